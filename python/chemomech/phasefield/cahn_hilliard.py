"""Implicit steps of Cahn and Hilliard's equation on a body of voxels.

    dX/dt = div( D M(X) grad mu / kT ),   mu = h'(X) - div( kappa grad X ) + mu_el      (Deng SI, eqs 3.3, 3.6, 3.7)

with no flux through the surface of the solid, or Butler and Volmer's symmetric exchange with a reservoir there,
2 j0 sinh((mu_res - mu) / (2 kT)) per area. Newton's method on X and mu
together; its linear systems are solved by multigrid cycles whose smoother relaxes whole lines along the second axis,
the crystal's b, where lithium is up to 1e5 times as fast and gradients cost a hundred times as much. Coarse grids are
coarser along the other two axes only. cpp/phasefield has the kernels.
"""

from dataclasses import dataclass

import numpy as np

from chemomech import _core
from chemomech.arrays import Float
from chemomech.errors import ConvergenceError
from chemomech.mechanics.box import Box
from chemomech.phasefield.free_energy import FreeEnergy
from chemomech.phasefield.node_grid import NodeGrid

#: Columns along each of the two coarsened axes below which a grid is the coarsest.
_FEWEST = 3
#: Axes that are coarsened, and the ratio of couplings up to which they are so together.
_COARSENED, _COMPARABLE = np.array([True, False, True]), 2.25
#: Sweeps over all lines, before and after the correction; on the coarsest grid.
_SWEEPS, _SWEEPS_COARSEST = 1, 8
#: Times a correction is sought on the second and third grid: interfaces a few nodes wide are poorly seen there. Once
#: divides the error of a long step by 1.3 a cycle, twice by 2 to 3; further down it changes nothing.
_VISITS = (2, 2)
#: Share of the way to the edge of the free energy's range that one iteration may take a composition.
_OF_THE_WAY = 0.9
_MOST_ITERATIONS = 25
#: A linear system is solved to this share, in at most so many cycles.
_LINEAR, _MOST_CYCLES = 0.1, 8
#: Curvature of a phase, kT, by which errors of the potential are compared with errors of the composition.
_CURVATURE = 10.0


@dataclass(frozen=True)
class Transport:
    """What a solid solution is and how it moves.

    Attributes
    ----------
    free_energy : homogeneous, per site.
    gradient_nm2 : (3,) kappa / kT along the axes.
    diffusivity_nm2_per_s : (3,) D along the axes.
    exchange_nm_per_s : j0 of the surface over the density of sites.
    reservoir_kT : chemical potential beyond the surface.
    """

    free_energy: FreeEnergy
    gradient_nm2: Float
    diffusivity_nm2_per_s: Float
    exchange_nm_per_s: float = 0.0
    reservoir_kT: float = 0.0

    @property
    def closed(self) -> bool:
        return self.exchange_nm_per_s == 0


class _Level:
    """One grid of the cycle: its coefficients and room for its vectors."""

    def __init__(self, box: Box, factors: tuple[int, int, int] | None) -> None:
        self.box = box
        self.factors = factors  # to the grid below; None for the coarsest
        self.fields = np.zeros((3, *box.shape))
        self.mobility = np.zeros((3, *box.shape))
        self.gradient = np.zeros((3, *box.shape))
        self.right, self.solution, self.spare = (np.zeros((2, *box.shape)) for _ in range(3))
        self.landing = box.landing(self.right)
        self.mass, self.curvature, self.exchange = self.fields
        self.system = _core.ConservationSystem(self.mass, self.mobility, self.gradient, self.curvature, self.exchange)

    def smooth(self, sweeps: int) -> None:
        for sweep in range(2 * sweeps):
            self.box.fill_halo(self.solution)
            self.system.smooth(self.right, sweep % 2, self.solution)


class CahnHilliard:
    """The implicit equations of one body.

    Parameters
    ----------
    grid : nodes of the body.
    transport : its laws.
    """

    def __init__(self, grid: NodeGrid, transport: Transport) -> None:
        self.grid, self.transport = grid, transport
        strengths = np.sqrt(transport.gradient_nm2 * transport.diffusivity_nm2_per_s) / grid.spacing_nm**2
        self._levels = [_Level(box, factors) for box, factors in _boxes(grid.box, strengths)]
        finest = self._levels[0]
        finest.mass[...] = grid.mass
        finest.gradient[...] = grid.edges * transport.gradient_nm2[:, None, None, None]
        for upper, lower in zip(self._levels[:-1], self._levels[1:], strict=True):
            _coarsen_nodes(upper, lower, slice(0, 1))
            _coarsen_edges(upper, lower, upper.gradient, lower.gradient)

    def flow(self, potential: Float) -> Float:
        """What leaves each node for its neighbours at the mobility that is set, nm^3/s."""
        out = self.grid.field()
        self.grid.box.fill_halo(potential)
        _core.spread(self._levels[0].mobility, potential, out)
        return out

    def bending(self, composition: Float) -> Float:
        """-div(kappa grad X) times the volume of each node, nm^3 kT."""
        out = self.grid.field()
        self.grid.box.fill_halo(composition)
        _core.spread(self._levels[0].gradient, composition, out)
        return out

    def energy_kT(self, composition: Float) -> float:
        """Homogeneous and gradient energy times the volume of a site, nm^3 kT."""
        owned = self.grid.box.owned
        exists = self.grid.exists[owned]
        x = composition[owned]
        homogeneous = np.where(exists, self.transport.free_energy.energy(np.where(exists, x, 0.5)), 0.0)
        bending = self.bending(composition)[owned]
        energy = (homogeneous * self.grid.mass[owned]).sum() + 0.5 * (x * bending).sum()
        return self.grid.box.sum(float(energy))

    def set_mobility(self, composition: Float) -> None:
        """Take the mobility of a composition near that of the step; a little beyond its range counts as at its edge."""
        law = self.transport.free_energy
        inside = np.clip(composition, law.lowest, law.highest)
        relative = np.where(self.grid.mass > 0, law.mobility(inside), 0.0)
        self.grid.box.fill_halo(relative)
        finest = self._levels[0]
        for axis, diffusivity in enumerate(self.transport.diffusivity_nm2_per_s):
            mean = relative + np.roll(relative, -1, axis)
            np.multiply(mean, self.grid.edges[axis] * (diffusivity / 2), out=finest.mobility[axis])
        for upper, lower in zip(self._levels[:-1], self._levels[1:], strict=True):
            _coarsen_edges(upper, lower, upper.mobility, lower.mobility)

    def solve(
        self,
        rate: float,
        history: Float,
        composition: Float,
        potential: Float,
        tolerance: float,
        *,
        steady: Float | float = 0.0,
        stiffness: float = 0.0,
    ) -> int:
        """Solve mass (rate X - history) + flow(mu) = 0 with mu = h' + bending / mass + steady + stiffness X.

        Parameters
        ----------
        rate : coefficient of the new composition in its time derivative, 1/s.
        history : (X, Y, Z) what the compositions before contribute, 1/s.
        composition, potential : (X, Y, Z) a guess, replaced by the solution; kT.
        tolerance : largest change of a composition in the last iteration.
        steady, stiffness : the rest of the potential, (X, Y, Z) or one, and its derivative; kT.

        Returns
        -------
        Iterations taken.

        Raises
        ------
        ConvergenceError : none does within the allowed iterations.
        """
        finest, mass, law = self._levels[0], self.grid.mass, self.transport.free_energy
        exists = self.grid.exists
        for iteration in range(1, _MOST_ITERATIONS + 1):
            inside = np.where(exists, composition, 0.5)
            curvature = np.where(exists, law.curvature(inside) + stiffness, 0.0)
            target = np.where(exists, law.potential(inside) + steady + stiffness * inside, 0.0)
            np.multiply(mass, curvature, out=finest.curvature)
            lost, ease = self.exchange(potential)
            finest.exchange[...] = ease
            self._prepare(rate)
            wrong = np.stack(
                [
                    mass * (history - rate * composition) - self.flow(potential) - lost,
                    mass * (target - potential) + self.bending(composition),
                ]
            )
            wrong[:, ~exists] = 0.0
            step = self._correction(wrong, rate)
            _advance(composition, step[0], law.lowest, law.highest)
            potential += step[1]
            largest = self.grid.amplitude(step[0])
            if largest <= tolerance:
                return iteration
            lowest, highest = self.grid.extremes(composition)
            if not (np.isfinite(largest) and law.lowest < lowest and highest < law.highest):
                break
        raise ConvergenceError(
            "an implicit step of the composition", iterations=iteration, residual=largest, tolerance=tolerance
        )

    def exchange(self, potential: Float) -> tuple[Float | float, Float | float]:
        """What leaves each node through the surface, nm^3/s, and its derivative with respect to the potential."""
        transport = self.transport
        if transport.closed:
            return 0.0, 0.0
        half = (potential - transport.reservoir_kT) / 2
        scale = transport.exchange_nm_per_s * self.grid.surface
        return 2 * scale * np.sinh(half), scale * np.cosh(half)

    def _prepare(self, rate: float) -> None:
        for upper, lower in zip(self._levels[:-1], self._levels[1:], strict=True):
            upper.box.fill_halo(upper.fields[1:3])
            _coarsen_nodes(upper, lower, slice(1, 3))
        for level in self._levels:
            level.system.factorise(rate)

    def _correction(self, wrong: Float, rate: float) -> Float:
        """Solution of the linearised equations to a tenth: flexible GMRES (Saad 1993) around the cycle.

        The cycle alone may amplify a mode or two when a step is so long that an interface could wander off freely.
        """
        finest = self._levels[0]
        weight = self.grid.per_volume(self.grid.exists.astype(float))
        scale = np.array([1 / rate, 1 / _CURVATURE])[:, None, None, None] ** 2 * weight

        def product(x: Float, y: Float) -> float:
            return self.grid.box.sum(float(np.einsum("cijk,cijk,cijk->", scale, x, y)))

        size = np.sqrt(product(wrong, wrong))
        if size == 0:
            return np.zeros_like(wrong)
        residuals, tried = [wrong / size], []
        projected = np.zeros((_MOST_CYCLES + 1, _MOST_CYCLES))
        for k in range(_MOST_CYCLES):
            finest.right[...] = residuals[k]
            finest.solution.fill(0.0)
            self._cycle(0)
            tried.append(finest.solution.copy())
            self.grid.box.fill_halo(finest.solution)
            finest.system.residual(finest.right, finest.solution, finest.spare)
            image = np.where(self.grid.exists, residuals[k] - finest.spare, 0.0)
            for i, earlier in enumerate(residuals):
                projected[i, k] = product(image, earlier)
                image -= projected[i, k] * earlier
            projected[k + 1, k] = np.sqrt(product(image, image))
            small = projected[: k + 2, : k + 1]
            target = np.eye(1, k + 2)[0] * size
            coefficients = np.linalg.lstsq(small, target, rcond=None)[0]
            left = np.linalg.norm(target - small @ coefficients)
            if left <= _LINEAR * size or projected[k + 1, k] == 0:
                break
            residuals.append(image / projected[k + 1, k])
        return np.asarray(sum(c * z for c, z in zip(coefficients, tried, strict=True)))

    def _cycle(self, depth: int) -> None:
        """Improve the `solution` of a level for its `right`."""
        level = self._levels[depth]
        if level.factors is None:
            level.smooth(_SWEEPS_COARSEST)
            return
        below = self._levels[depth + 1]
        level.smooth(_SWEEPS)
        level.box.fill_halo(level.solution)
        level.system.residual(level.right, level.solution, level.spare)
        level.box.fill_halo(level.spare)
        _core.restrict_to(level.factors, level.spare, below.landing)
        below.box.arrive(below.landing, below.right)
        below.solution.fill(0.0)
        for _ in range(_VISITS[depth] if depth < len(_VISITS) else 1):
            self._cycle(depth + 1)
        error = below.box.depart(below.solution, below.landing)
        _core.add_prolonged(level.factors, error, level.solution)
        level.solution *= level.mass > 0
        level.smooth(_SWEEPS)


def _advance(composition: Float, step: Float, lowest: float, highest: float) -> None:
    """composition += step, most of the way to the edge at most."""
    room = np.where(step > 0, highest - composition, composition - lowest) * _OF_THE_WAY
    composition += np.clip(step, -room, room)


def _boxes(box: Box, strengths: Float) -> list[tuple[Box, tuple[int, int, int] | None]]:
    """The boxes from the finest to the coarsest, each with the factors to the next.

    The axis along which nodes are coupled more strongly is coarsened first. One of few cells may be, too: the cells
    below then reach beyond its end.
    """
    boxes: list[tuple[Box, tuple[int, int, int] | None]] = []
    strong = np.array([strengths[0], 0.0, strengths[2]])
    while True:
        cells = np.array(box.whole.cells)
        can = _COARSENED & ((cells % 2 == 0) | ~np.array(box.periodic))
        long = can & (cells > _FEWEST)
        if not long.any():
            return [*boxes, (box, None)]
        strongest = can & (strong * _COMPARABLE >= strong.max())
        halve = strongest if strongest.any() else long
        fx, _, fz = np.where(halve, 2, 1).tolist()
        boxes.append((box, (fx, 1, fz)))
        box = box.coarser((fx, 1, fz))
        strong = strong / np.where(halve, 4, 1)


def _coarsen_nodes(upper: _Level, lower: _Level, which: slice) -> None:
    assert upper.factors is not None
    coarse = lower.fields[which]
    landing = lower.box.landing(coarse)
    _core.restrict_to(upper.factors, upper.fields[which], landing)
    lower.box.arrive(landing, coarse)
    lower.box.fill_halo(coarse)


def _coarsen_edges(upper: _Level, lower: _Level, fine: Float, coarse: Float) -> None:
    """The edges of the grid below: a linear field stores the same energy in them."""
    assert upper.factors is not None
    upper.box.fill_halo(fine)
    fx, _, fz = upper.factors
    landing = lower.box.landing(coarse)
    _core.restrict_to(upper.factors, fine[1:2], landing[1:2])
    for axis, others in ((0, (1, 1, fz)), (2, (fx, 1, 1))):
        pairs = fine[axis : axis + 1]
        if upper.factors[axis] == 2:
            shape = list(landing.shape[1:])
            shape[2 - axis] = fine.shape[3 - axis]
            joined = np.zeros((1, *shape))
            first = np.moveaxis(pairs, axis + 1, 1)
            into = np.moveaxis(joined, axis + 1, 1)
            n = min((first.shape[1] - 1) // 2, into.shape[1] - 1)
            into[:, 1 : n + 1] = 0.25 * (first[:, 1 : 2 * n : 2] + first[:, 2 : 2 * n + 1 : 2])
            pairs = joined
        _core.restrict_to(others, pairs, landing[axis : axis + 1])
    lower.box.arrive(landing, coarse)
    lower.box.fill_halo(coarse)
