"""Which dislocation systems broaden the peaks: rho*_hkl = sum_i Lambda_i(hkl) rho_i with rho_i >= 0 (Deng SI, 4.5).

There are more systems than peaks, so the least-squares solution alone says little. What the data do say is told in
four ways: one solution that is well defined, the sparsest sets of systems inside the tolerance of the method, the
distribution of every density over all solutions inside it (Deng SI, Fig. S11), and what more of a system would do.

Deviations are relative, (Lambda rho)_hkl / rho*_hkl - 1, because the error of the variance method is; "inside" means
that no peak deviates by more than the tolerance. Densities here are in 1/um^2, rho* in 1/nm^2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.optimize import nnls as least_squares

from chemomech.arrays import Float, require_shape
from chemomech.errors import ConvergenceError, InputError
from chemomech.observe.line_profile import TOLERANCE

_PER_UM2 = 1e-6
_CHAINS, _STEPS, _MOST_STEPS = 128, 500, 64_000
#: Independent samples wanted: the mean of a density is then known to 3 % of its standard deviation.
_EFFECTIVE = 1000.0
_MOST_SETS = 40
#: Where nothing fits inside the tolerance, solutions count up to this times the closest one.
_ROOM = 1.1
_ADDED_PER_UM2 = 100.0


@dataclass(frozen=True)
class SystemSet:
    """One of the sparsest sets: systems, their densities, the largest deviation of a peak, and sum K b^2 rho."""

    labels: tuple[str, ...]
    density_per_um2: Float
    deviation: float
    energy_kJ_per_m3: float


@dataclass(frozen=True)
class DislocationSystems:
    """What the peaks say about n systems.

    Attributes
    ----------
    labels : (n,); peaks : (m,) names.
    factor : (m, n) Lambda; target_per_nm2 : (m,) rho*.
    energy_nJ_per_m : (n,) K b^2.
    density_per_um2 : (n,) least squares; among all solutions that fit equally well, the one of least energy.
    fitted_per_nm2 : (m,) its Lambda rho.
    explained : 1 - |rho* - Lambda rho| / |rho*|.
    asked, tolerance : the tolerance asked for, and the one inside which solutions count, wider where there are none.
    closest : the smallest largest deviation that any densities reach.
    sets : the sparsest sets, smallest deviation first.
    samples_per_um2 : (k, n) uniform over all solutions inside the tolerance.
    effective_samples : how many independent ones they are worth, for the least known density.
    added_alone, added_refitted : (n,) largest deviation of a peak with 100 1/um^2 more of a system, the others as they
        are, and fitted again.
    deviation : largest deviation of a peak at `density_per_um2`.
    """

    labels: tuple[str, ...]
    peaks: tuple[str, ...]
    factor: Float
    target_per_nm2: Float
    energy_nJ_per_m: Float
    density_per_um2: Float
    fitted_per_nm2: Float
    explained: float
    asked: float
    tolerance: float
    closest: float
    sets: Sequence[SystemSet]
    samples_per_um2: Float
    effective_samples: float
    added_alone: Float
    added_refitted: Float
    deviation: float

    @property
    def widened(self) -> bool:
        """No densities fit inside the tolerance asked for."""
        return self.tolerance > self.asked

    @property
    def std_per_um2(self) -> Float:
        """(n,) standard deviation of every density over all solutions inside the tolerance."""
        return np.asarray(self.samples_per_um2.std(axis=0))


def geometric_factor(g_per_nm: npt.ArrayLike, burgers_nm: npt.ArrayLike, contrast: npt.ArrayLike) -> Float:
    """Lambda = (pi/2) g^2 b^2 C (Deng SI, IV), by which a density gives its rho*.

    Parameters
    ----------
    g_per_nm, burgers_nm, contrast : broadcast against each other.

    >>> geometric_factor(2.0, 0.5, 0.25).round(3)
    np.float64(0.393)
    """
    squares = np.asarray(g_per_nm, dtype=np.float64) ** 2 * np.asarray(burgers_nm, dtype=np.float64) ** 2
    return np.asarray(np.pi / 2 * squares * np.asarray(contrast, dtype=np.float64))[()]


def mixture(factors: Mapping[str, Float], weights: Mapping[str, float]) -> Float:
    """Lambda (m, n) of a powder of several phases: the mean of theirs, weighted by the volume of each.

    The peaks of the phases must overlap so far that they were analysed as one; a system then has one density in all.

    Raises
    ------
    InputError : other names, or weights that are negative or do not add up to 1.

    >>> mixture({"LFP": lfp, "FP": fp}, {"LFP": 0.5, "FP": 0.5})
    """
    if set(factors) != set(weights):
        raise InputError(f"weights are given for {', '.join(weights)}, the phases are {', '.join(factors)}")
    if min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
        told = ", ".join(f"{name} {value:g}" for name, value in weights.items())
        raise InputError(f"the weights of the phases must be >= 0 and add up to 1, got {told}")
    return np.asarray(sum(weights[name] * np.asarray(factor) for name, factor in factors.items()))


def find_systems(
    labels: Sequence[str],
    peaks: Sequence[str],
    factor: npt.ArrayLike,
    target_per_nm2: npt.ArrayLike,
    energy_nJ_per_m: npt.ArrayLike,
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> DislocationSystems:
    """Decompose the effective densities of several peaks into dislocation systems.

    Parameters
    ----------
    labels : (n,) of the systems; peaks : (m,) names.
    factor : (m, n) Lambda, see `geometric_factor`.
    target_per_nm2 : (m,) rho* > 0.
    energy_nJ_per_m : (n,) K b^2, which chooses between solutions that fit equally well.
    tolerance : largest relative deviation of a peak that is accepted.
    seed : of the samples.

    Raises
    ------
    InputError : shapes that do not fit, rho* or factors not positive, labels twice.
    ConvergenceError : the samples do not become independent.

    >>> systems = find_systems(["A", "D"], ["1 0 1", "2 1 0"], [[0.1, 0.9], [0.5, 0.1]], [1e-4, 1e-4], [27, 16])
    """
    wanted = np.asarray(target_per_nm2, dtype=np.float64)
    matrix = np.asarray(factor, dtype=np.float64)
    energy = np.asarray(energy_nJ_per_m, dtype=np.float64)
    require_shape(wanted, "effective densities", (len(peaks),))
    require_shape(matrix, "geometric factors", (len(peaks), len(labels)))
    require_shape(energy, "energies", (len(labels),))
    if len(set(labels)) < len(labels):
        raise InputError(f"systems must have different labels, got {', '.join(labels)}")
    if not (wanted > 0).all():
        at = int(np.argmin(wanted))
        raise InputError(f"effective densities must be positive, got {wanted[at]:g} 1/nm^2 at {peaks[at]}")
    silent = np.flatnonzero(~(matrix >= 0).all(axis=0) | ~(matrix > 0).any(axis=0))
    if len(silent):
        raise InputError(f"system {labels[silent[0]]} broadens none of the peaks: nothing can be said about it")

    relative = _PER_UM2 * matrix / wanted[:, None]
    density = _least_energy(relative, energy)
    fitted = _PER_UM2 * matrix @ density
    closest = _smallest_deviation(relative)
    allowed = tolerance if closest < tolerance else _ROOM * closest
    samples, effective = _sample(relative, allowed, seed)
    added = [_with_more(relative, density, i) for i in range(len(labels))]
    return DislocationSystems(
        labels=tuple(labels),
        peaks=tuple(peaks),
        factor=matrix,
        target_per_nm2=wanted,
        energy_nJ_per_m=energy,
        density_per_um2=density,
        fitted_per_nm2=fitted,
        explained=float(1 - np.linalg.norm(wanted - fitted) / np.linalg.norm(wanted)),
        asked=tolerance,
        tolerance=allowed,
        closest=closest,
        sets=sparsest_sets(labels, relative, energy, allowed),
        samples_per_um2=samples,
        effective_samples=effective,
        added_alone=np.array([alone for alone, _ in added]),
        added_refitted=np.array([again for _, again in added]),
        deviation=_deviation(relative, density),
    )


def sparsest_sets(labels: Sequence[str], relative: Float, energy: Float, tolerance: float) -> list[SystemSet]:
    """All sets of the smallest size that fits, and of the next, each fitted by non-negative least squares.

    Sets in which a density comes out as zero are those of a smaller size and left out; at most 40, the smaller and
    better fitting first.

    Parameters
    ----------
    relative : (m, n) Lambda / rho*, per 1/um^2; energy : (n,) K b^2 in nJ/m.
    """
    found: list[SystemSet] = []
    smallest = 0
    ones = np.ones(len(relative))
    for size in range(1, len(relative) + 1):
        if smallest and size > smallest + 1:
            break
        of_size = []
        for chosen in combinations(range(len(labels)), size):
            columns = relative[:, chosen]
            density, _ = least_squares(columns, ones)
            deviation = _deviation(columns, density)
            if deviation <= tolerance and (density > 0).all():
                names = tuple(labels[i] for i in chosen)
                of_size.append(SystemSet(names, density, deviation, float(energy[list(chosen)] @ density)))
        smallest = smallest or (size if of_size else 0)
        found += sorted(of_size, key=lambda each: each.deviation)
    return found[:_MOST_SETS]


def _deviation(relative: Float, density: Float) -> float:
    return float(np.abs(relative @ density - 1).max())


def _least_energy(relative: Float, energy: Float) -> Float:
    """The least-squares solution; of those with the same fit, which is unique, the one of least energy."""
    density, _ = least_squares(relative, np.ones(len(relative)))
    fit = relative @ density
    scale = 1 / relative.max(axis=0)
    slack = 1e-9
    rows = np.vstack([relative * scale, -relative * scale])
    found = linprog(energy * scale, A_ub=rows, b_ub=np.concatenate([fit + slack, slack - fit]), method="highs")
    return np.asarray(found.x * scale if found.status == 0 else density)


def _smallest_deviation(relative: Float) -> float:
    """The smallest largest deviation that any non-negative densities reach (a linear program)."""
    m, n = relative.shape
    scale = 1 / relative.max(axis=0)
    rows = np.block([[relative * scale, -np.ones((m, 1))], [-relative * scale, -np.ones((m, 1))]])
    found = linprog(np.append(np.zeros(n), 1), A_ub=rows, b_ub=np.repeat([1.0, -1.0], m), method="highs")
    return float(found.fun)


def _with_more(relative: Float, density: Float, i: int) -> tuple[float, float]:
    more = density.copy()
    more[i] += _ADDED_PER_UM2
    others = np.delete(relative, i, axis=1)
    rest, _ = least_squares(others, 1 - relative[:, i] * more[i]) if others.shape[1] else (np.empty(0), 0.0)
    again = float(np.abs(others @ rest + relative[:, i] * more[i] - 1).max())
    return _deviation(relative, more), again


def _sample(relative: Float, tolerance: float, seed: int) -> tuple[Float, float]:
    """Uniform samples of {rho >= 0, |relative rho - 1| <= tolerance} by hit-and-run (Smith 1984).

    Many chains start between the vertices that make each density largest and smallest. Directions are drawn with the
    covariance of those vertices, then with that of the first samples, which evens out a polytope of unequal widths
    (Lovasz & Vempala 2006). The number of independent samples follows from how far the means of the chains differ.
    """
    m, n = relative.shape
    random = np.random.default_rng(seed)
    scale = 1 / relative.max(axis=0)
    sides = np.vstack([relative * scale, -relative * scale, -np.eye(n)])
    limits = np.concatenate([np.full(m, 1 + tolerance), np.full(m, tolerance - 1), np.zeros(n)])
    vertices = []
    for sign in (1, -1):
        for i in range(n):
            found = linprog(sign * np.eye(n)[i], A_ub=sides[: 2 * m], b_ub=limits[: 2 * m], method="highs")
            vertices.append(found.x)
    corners = np.array(vertices)
    x = random.dirichlet(np.ones(len(corners)), _CHAINS) @ corners
    spread = np.cov(corners.T).reshape(n, n)
    x, _ = _walk(random, x, spread, sides, limits, _STEPS)
    x, walked = _walk(random, x, spread, sides, limits, _STEPS)
    spread = np.cov(walked.reshape(-1, n).T).reshape(n, n)
    x, _ = _walk(random, x, spread, sides, limits, _STEPS)
    kept: list[Float] = []
    steps = _STEPS
    while True:
        x, walked = _walk(random, x, spread, sides, limits, steps)
        kept.append(walked[:: max(1, steps // 100)])
        chains = np.concatenate(kept)
        variance = chains.reshape(-1, n).var(axis=0)
        means = chains.mean(axis=0).var(axis=0, ddof=1)
        moving = variance > 1e-18
        if not moving.any():  # one point alone is inside
            return chains.reshape(-1, n) * scale, float(chains.size / n)
        effective = float((_CHAINS * variance[moving] / means[moving]).min())
        if effective >= _EFFECTIVE:
            return chains.reshape(-1, n) * scale, effective
        if steps >= _MOST_STEPS:
            raise ConvergenceError(
                "sampling the densities", iterations=2 * steps, residual=1 / effective, tolerance=1 / _EFFECTIVE
            )
        steps *= 2


def _walk(
    random: np.random.Generator, x: Float, spread: Float, sides: Float, limits: Float, steps: int
) -> tuple[Float, Float]:
    """Chains (c, n) after so many steps of hit-and-run in {sides x <= limits}, and their states (steps, c, n)."""
    value, vector = np.linalg.eigh(spread)
    root = vector * np.sqrt(np.maximum(value, 1e-12 * max(value.max(), 1e-300)))
    states = np.empty((steps, *x.shape))
    for step in range(steps):
        direction = random.standard_normal(x.shape) @ root.T
        room, rate = np.maximum(limits - x @ sides.T, 0), direction @ sides.T
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = room / rate
        forward = np.where(rate > 0, reach, np.inf).min(axis=1)
        backward = np.where(rate < 0, reach, -np.inf).max(axis=1)
        x = x + (backward + random.random(len(x)) * (forward - backward))[:, None] * direction
        states[step] = x
    return x, states
