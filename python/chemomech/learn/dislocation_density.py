"""Model M2: elastic equilibrium with a dislocation density in every pixel (Deng, Fig. 3c; SI, section VI).

The lattice distortion of a particle is beta = S f(X) + G rho + noise: S the answer of the free body to the eigenstrain,
G that to a signed density rho of one kind of dislocations. The measured distortion, strain and rotation, is what is
fitted, each channel with its uncertainty: its curl holds the density (Kroener), of which an integrated displacement
keeps nothing. Densities are as many as pixels, so each is held towards zero with a standard deviation s:

    minimise  |beta - S f - G rho|^2_W + |rho|^2 / s^2.

With f given this is linear in rho; with rho eliminated the law is a generalised least squares whose noise holds the
field of random dislocations, of covariance W^-1 + s^2 G G^T. (Pairs rho = rho+ - rho- of non-negative densities
with the same penalty have the same minimum: there rho+ rho- = 0.)

s is at most what the discrepancy principle allows in each particle (Morozov 1966): no smaller a residual than the noise
of strain, rotation and composition makes. Where that asks too much (fields of single lines differ from means over
pixels, uncertainties may be given too small), s is as low as still predicts pixels left out of the fit within a per
cent of the best; these pixels also choose the kind of dislocations. Conjugate gradients need a dozen applications of G
and its transpose, each a convolution and an elastic solution; the convolution alone, inverted by Fourier transform, is
the preconditioner.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy.optimize import brentq

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError
from chemomech.learn.law import EigenstrainLaw, shifted_legendre, shifted_legendre_derivative
from chemomech.learn.observation import View
from chemomech.mechanics.compatibility import burgers_density
from chemomech.mechanics.dislocated_body import DislocatedBody
from chemomech.mechanics.dislocations import DensityField, StraightDislocation
from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress
from chemomech.mechanics.stiffness import plane_stress
from chemomech.observe.maps import CorrelativeMaps

#: Burgers vectors compared, in lattice parameters a and c: lines along b whose strain lies in the image plane.
CANDIDATES = {"[001]": (0, 1), "[100]": (1, 0)}
#: Largest standard deviations of the density that are compared, in lines a pixel.
_LINES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
#: Lines a pixel where the discrepancy principle starts to look, and where there are no dislocations.
_COMMON_LINES, _NO_LINES = 0.25, 2.5e-3
#: Relative precision of that standard deviation; the density changes by a third of it.
_PRECISION = 0.05
#: Relative residual of the conjugate gradients, in the norm of the preconditioner. At half a line a pixel, that of
#: microscopy, the law then moves by 1 % of its standard error and the mean density by 3e-5 of itself.
_RTOL = 1e-3
_MOST_ITERATIONS = 500
#: Up to this many pixels the body is factorised: hundreds of loads pay for it. A load takes 5 ms at 5e3 pixels, 20 ms
#: at 2e4, a third to a half of what multigrid takes; beyond, the factor outgrows everything else in memory.
_DIRECT_PIXELS = 30_000
#: Share of the pixels on which candidates are judged; a density is fitted to the others.
_HELD_OUT = 0.1
#: A larger density, or a candidate, must lower the squared misfit on those pixels by more than this share; a candidate
#: by more than so many of its standard errors, too.
_WORTHLESS, _CONVINCING = 0.01, 3.0


class MeasuredBody:
    """A free particle: its measured distortion, and what an eigenstrain would make of it.

    Rotations, measured and predicted, are compared up to a constant of each connected piece, which a free body leaves
    open.

    Parameters
    ----------
    maps : the measured particle.
    deviation : (n_pixels, 4) noise of its channels.
    stiffness_GPa : (6, 6) Voigt.

    Attributes
    ----------
    weights : (n_pixels, 4) inverse variances.
    data : (n_pixels, 4) channels aa, cc, 2 ac, rotation.
    """

    def __init__(self, maps: CorrelativeMaps, deviation: Float, stiffness_GPa: Float) -> None:
        self.maps = maps
        self.stiffness_GPa = stiffness_GPa
        self.weights = 1 / deviation**2
        mesh = pixel_mesh(maps.mask, maps.pixel_size_nm)
        solver: Literal["direct", "multigrid"] = "direct" if mesh.n_cells <= _DIRECT_PIXELS else "multigrid"
        self.body = PlaneStress(mesh, plane_stress(stiffness_GPa), solver=solver)
        self.component = mesh.component
        self.data = self.centre(maps.distortion[maps.mask][..., None], self.weights)[..., 0]

    def centre(self, channels: Float, weights: Float) -> Float:
        """Channels (n_pixels, 4, k) less the weighted mean rotation of each piece."""
        weight = weights[:, 3]
        total = np.bincount(self.component, weight)
        centred = channels.copy()
        for column in centred[:, 3].T:
            mean = np.bincount(self.component, weight * column) / np.where(total > 0, total, 1)
            column -= mean[self.component]
        return centred

    def respond(self, eigenstrain: Float) -> Float:
        """Channels (n_pixels, 4, k) of eigenstrains (n_pixels, 3, k)."""
        moved = self.body.displacement(self.body.eigenstrain_loads(eigenstrain))
        return self.centre(self.body.distortion(moved), self.weights)

    def respond_transpose(self, weighted: Float) -> Float:
        """Transpose of `respond` (n_pixels, 3, k), of weighted channels, whose rotations sum to zero on each piece."""
        loads = self.body.distortion_transpose(weighted)
        return self.body.eigenstrain_loads_transpose(self.body.displacement(loads))

    def unexplained(self, law: EigenstrainLaw, composition_deviation: Float) -> Float:
        """Measured channels (n_pixels, 4) less those of equilibrium under a law."""
        composition = self.maps.composition[self.maps.mask]
        eigenstrain = np.zeros((len(composition), 3, 1))
        basis = shifted_legendre(composition, law.order, composition_deviation**2)
        eigenstrain[:, :2, 0] = basis @ law.coefficients.T
        return self.data - self.respond(eigenstrain)[..., 0]

    def composition_noise(self, law: EigenstrainLaw, composition_deviation: Float) -> Float:
        """Channels (n_pixels, 4) that a draw of the composition's noise makes under a law."""
        composition = self.maps.composition[self.maps.mask]
        slope = shifted_legendre_derivative(composition, law.order, composition_deviation**2) @ law.coefficients.T
        error = np.random.default_rng(0).choice([-1.0, 1.0], len(slope)) * composition_deviation
        eigenstrain = np.column_stack([slope, np.zeros(len(slope))]) * error[:, None]
        return self.respond(eigenstrain[..., None])[..., 0]


class DensityModel:
    """The densities of one kind of dislocations that fit best, and what they leave.

    Parameters
    ----------
    measured : the particle.
    burgers_nm : (3,) crystal axes.
    """

    def __init__(self, measured: MeasuredBody, burgers_nm: Float) -> None:
        maps = measured.maps
        line = StraightDislocation(measured.stiffness_GPa, burgers_nm)
        field = DensityField(line, maps.mask.shape, maps.pixel_size_nm)
        self._measured = measured
        self._body = DislocatedBody(measured.body, maps.mask, field)

    def distortion(self, density_per_nm2: Float) -> Float:
        """Channels (n_pixels, 4, k) of densities (n_pixels, k)."""
        channels = self._body.distortion(density_per_nm2)
        return self._measured.centre(channels, self._measured.weights)

    def transpose(self, weighted: Float) -> Float:
        """Transpose of `distortion`, of weighted channels, whose rotations sum to zero on each piece."""
        return self._body.transpose(weighted)

    def fit(self, channels: Float, deviation_per_nm2: float, weights: Float | None = None) -> Float:
        """Densities (n_pixels, k) that minimise |channels - G rho|^2_W + |rho|^2 / deviation^2.

        Parameters
        ----------
        channels : (n_pixels, 4, k).
        deviation_per_nm2 : prior standard deviation of the density, lines per nm^2.
        weights : (n_pixels, 4), or None for those of the measurement; 0 leaves a pixel out.

        Raises
        ------
        ConvergenceError : conjugate gradients stopped short of their tolerance.
        """
        weights = self._measured.weights if weights is None else weights
        floor = deviation_per_nm2**-2
        invert = self._body.normal_inverse(weights.mean(axis=0), floor)

        def transpose(values: Float) -> Float:
            return self._body.transpose(weights[..., None] * self._measured.centre(values, weights))

        def normal(density: Float) -> Float:
            return transpose(self._body.distortion(density)) + floor * density

        residual = transpose(channels)
        density = np.zeros_like(residual)
        direction = conditioned = invert(residual)
        square = start = (residual * conditioned).sum(axis=0)
        for _ in range(_MOST_ITERATIONS):
            if (square <= _RTOL**2 * start).all():
                return density
            image = normal(direction)
            curvature = (direction * image).sum(axis=0)
            step = np.divide(square, curvature, out=np.zeros_like(square), where=curvature > 0)
            density += step * direction
            residual = residual - step * image
            conditioned = invert(residual)
            new = (residual * conditioned).sum(axis=0)
            direction = conditioned + np.divide(new, square, out=np.zeros_like(square), where=square > 0) * direction
            square = new
        worst = float(np.sqrt((square[start > 0] / start[start > 0]).max()))
        raise ConvergenceError("the dislocation density", iterations=_MOST_ITERATIONS, residual=worst, tolerance=_RTOL)

    def deviation_by_discrepancy(self, channels: Float, level: float) -> float:
        """The prior deviation at which the squared weighted misfit of channels (n_pixels, 4) falls to `level`.

        The largest or the smallest considered when all leave more or less.
        """

        @cache
        def excess(logarithm: float) -> float:
            left = self.residual(channels[..., None], self.fit(channels[..., None], float(np.exp(logarithm))))
            return float((self._measured.weights * left[..., 0] ** 2).sum()) - level

        # From a density that is common in microscopy, by decades, to a pair on either side of the level.
        per_pixel = self._measured.maps.pixel_size_nm**-2
        least, largest = np.log(_NO_LINES * per_pixel), np.log(_LINES[-1] * per_pixel)
        below = above = np.log(_COMMON_LINES * per_pixel)
        if excess(above) > 0:
            while excess(above) > 0:
                if above > largest - _PRECISION:
                    return float(np.exp(largest))
                below, above = above, above + np.log(10)
        else:
            while excess(below) <= 0:
                if below < least + _PRECISION:
                    return float(np.exp(least))
                below, above = below - np.log(10), below
        return float(np.exp(brentq(excess, below, above, xtol=_PRECISION)))

    def residual(self, channels: Float, density_per_nm2: Float) -> Float:
        """Channels (n_pixels, 4, k) less the distortion of densities (n_pixels, k)."""
        return channels - self.distortion(density_per_nm2)


class DislocatedEquilibrium:
    """Model M2 of one particle as an observation: rows of the fit are the distortion, less what densities explain.

    Parameters
    ----------
    maps, deviation, stiffness_GPa : as for `MeasuredBody`.
    burgers_nm : (3,) crystal axes.
    density_deviation_per_nm2 : prior standard deviation of the density.
    """

    def __init__(
        self,
        maps: CorrelativeMaps,
        deviation: Float,
        stiffness_GPa: Float,
        burgers_nm: Float,
        density_deviation_per_nm2: float,
    ) -> None:
        self._measured = MeasuredBody(maps, deviation, stiffness_GPa)
        self._model = DensityModel(self._measured, burgers_nm)
        self._deviation = density_deviation_per_nm2
        self.data: dict[View, Float] = {"distortion": self._measured.data}

    def respond(self, eigenstrain: Float) -> dict[View, Float]:
        return {"distortion": self._measured.respond(eigenstrain)}

    def weigh(self, view: View, vectors: Float) -> Float:
        density = self._model.fit(vectors, self._deviation)
        return self._measured.weights[..., None] * self._model.residual(vectors, density)

    def transpose(self, view: View, vectors: Float) -> tuple[Float, Float]:
        return self._measured.respond_transpose(vectors), vectors

    def hidden_transpose(self, view: View, vectors: Float) -> Float:
        return self._deviation * self._model.transpose(vectors)

    def explain(self, law: EigenstrainLaw, composition_deviation: Float) -> "DislocationMaps":
        """The densities under a law, and what they explain."""
        measured, model, maps = self._measured, self._model, self._measured.maps
        unexplained = measured.unexplained(law, composition_deviation)
        noise = np.random.default_rng(1).standard_normal(unexplained.shape) / np.sqrt(measured.weights)
        noise = measured.centre(noise[..., None], measured.weights)[..., 0]
        noise += measured.composition_noise(law, composition_deviation)
        density = model.fit(np.stack([unexplained, noise], axis=-1), self._deviation)
        explained = model.distortion(density[:, :1])[..., 0]
        return DislocationMaps(
            density_per_nm2=maps.to_map(density[:, 0]),
            mean_abs_density_per_nm2=float(np.abs(density[:, 0]).mean()),
            mean_abs_of_noise_per_nm2=float(np.abs(density[:, 1]).mean()),
            density_deviation_per_nm2=self._deviation,
            burgers_density_per_nm=burgers_density(maps.distortion, maps.mask, maps.pixel_size_nm),
            strain=maps.to_map(explained[:, :3]),
            residual_strain=maps.to_map((unexplained - explained)[:, :3]),
        )


@dataclass(frozen=True, eq=False)
class DislocationMaps:
    """Dislocations of one particle under model M2.

    Attributes
    ----------
    density_per_nm2 : (ny, nx) signed density.
    mean_abs_density_per_nm2 : its mean size; lines of opposite sign in one pixel cancel.
    mean_abs_of_noise_per_nm2 : the mean size that noise of strain, rotation and composition alone would give.
    density_deviation_per_nm2 : the prior standard deviation of the density.
    burgers_density_per_nm : (ny, nx, 2) along a and c, the curl of the measured distortion: free of any model.
    strain : (ny, nx, 3) elastic strain of the dislocations; aa, cc, 2 ac.
    residual_strain : (ny, nx, 3) measured strain less eigenstrain, coherency and dislocation strain.
    """

    density_per_nm2: Float
    mean_abs_density_per_nm2: float
    mean_abs_of_noise_per_nm2: float
    density_deviation_per_nm2: float
    burgers_density_per_nm: Float
    strain: Float
    residual_strain: Float


@dataclass(frozen=True)
class Candidate:
    """One kind of dislocations, or none, compared under the law of M1 (Deng SI, Fig. S6).

    Attributes
    ----------
    burgers : lattice direction, or None for a body without dislocations.
    held_out_misfit : root-mean-square misfit, in standard deviations of the noise, of pixels that no density saw.
    model_error : mean Frobenius norm of the residual strain over all pixels.
    mean_abs_density_per_nm2 : over all pixels.
    """

    burgers: str | None
    held_out_misfit: float
    model_error: float
    mean_abs_density_per_nm2: float


@dataclass(frozen=True, eq=False)
class DislocationResult:
    """The dislocations that model M2 found.

    Attributes
    ----------
    burgers : direction of the candidate chosen; None when no candidate predicts pixels better than none.
    candidates : all that were compared.
    particles : by name.
    """

    burgers: str | None
    candidates: list[Candidate]
    particles: dict[str, DislocationMaps]

    @property
    def mean_abs_density_per_nm2(self) -> float:
        """Over the pixels of all particles."""
        return _pixel_mean([np.abs(maps.density_per_nm2) for maps in self.particles.values()])

    @property
    def mean_abs_of_noise_per_nm2(self) -> float:
        """What noise alone would give, over the pixels of all particles."""
        pixels = [np.isfinite(maps.density_per_nm2).sum() for maps in self.particles.values()]
        each = [maps.mean_abs_of_noise_per_nm2 for maps in self.particles.values()]
        return float(np.average(each, weights=pixels))

    @property
    def model_error(self) -> float:
        """Mean over pixels of the Frobenius norm of the residual strain tensor."""
        return _pixel_mean([frobenius_norm(maps.residual_strain) for maps in self.particles.values()])


@dataclass(frozen=True, eq=False)
class Comparison:
    """The candidates, the one chosen, and the prior deviation of its density in each particle (by name), 1/nm^2."""

    candidates: list[Candidate]
    chosen: str | None
    density_deviation_per_nm2: dict[str, float]


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate in one particle, at each of the limits compared; without dislocations all are alike.

    Attributes
    ----------
    width : (n,) prior standard deviation of the density, 1/nm^2.
    misfit : (n, n_judged) mean squared misfit of the channels of the held-out pixels, in variances of the noise.
    error, density : (n, n_pixels) norm of the residual strain, size of the density.
    """

    width: Float
    misfit: Float
    error: Float
    density: Float


def try_candidates(
    item: tuple[CorrelativeMaps, Float], law: EigenstrainLaw, stiffness_GPa: Float
) -> dict[str | None, Trial]:
    """What every candidate, and none, explains of the strain that a law leaves in one particle.

    Densities are fitted without a tenth of the pixels and judged by their prediction of those: a wrong kind, or too
    free a density, can follow the noise where it is fitted, but not foresee it.

    Parameters
    ----------
    item : the measured maps, and (n_pixels, 5) noise of composition and channels.
    law : what the eigenstrain is.
    stiffness_GPa : (6, 6) Voigt.
    """
    maps, deviation = item
    measured = MeasuredBody(maps, deviation[:, 1:], stiffness_GPa)
    unexplained = measured.unexplained(law, deviation[:, 0])
    answer = measured.composition_noise(law, deviation[:, 0])
    level = unexplained.size + float((measured.weights * answer**2).sum())
    return {label: _try(measured, label, unexplained, level) for label in (None, *CANDIDATES)}


def compare_candidates(trials: dict[str, dict[str | None, Trial]], test: Collection[str] = ()) -> Comparison:
    """Which dislocations, and how many, explain what a law leaves, judged over all particles together.

    Parameters
    ----------
    trials : by name, what `try_candidates` found.
    test : names of particles that have no say in the choice.
    """
    labels: list[str | None] = [None, *CANDIDATES]
    candidates: list[Candidate] = []
    widths: dict[str | None, dict[str, float]] = {}
    judged: dict[str | None, Float] = {}
    for label in labels:
        judges = [own[label] for name, own in trials.items() if name not in test]
        misfit = np.concatenate([trial.misfit for trial in judges], axis=1)
        means = misfit.mean(axis=1)
        best = int(np.argmax(means <= (1 + _WORTHLESS) * means.min()))
        judged[label] = misfit[best]
        widths[label] = {name: float(own[label].width[best]) for name, own in trials.items()}
        candidates.append(
            Candidate(
                burgers=label,
                held_out_misfit=float(np.sqrt(means[best])),
                model_error=float(np.concatenate([trial.error[best] for trial in judges]).mean()),
                mean_abs_density_per_nm2=float(np.concatenate([trial.density[best] for trial in judges]).mean()),
            )
        )
    chosen = min(candidates, key=lambda candidate: candidate.held_out_misfit)
    gain = judged[None] - judged[chosen.burgers]
    error = gain.std() / np.sqrt(len(gain))
    if gain.mean() <= max(_WORTHLESS * judged[None].mean(), _CONVINCING * error):
        chosen = candidates[0]
    return Comparison(candidates, chosen.burgers, widths[chosen.burgers])


def _try(measured: MeasuredBody, label: str | None, unexplained: Float, level: float) -> Trial:
    draw = np.random.default_rng(0).random(len(unexplained))
    judged = draw <= max(_HELD_OUT, draw.min())  # one at least
    weights = np.where(judged[:, None], 0.0, measured.weights)
    channels, per_pixel = unexplained[..., None], measured.maps.pixel_size_nm**-2
    model = DensityModel(measured, burgers_vector(label, measured.maps)) if label else None
    allowed = model.deviation_by_discrepancy(unexplained, level) if model else _NO_LINES * per_pixel
    widths = [min(lines * per_pixel, allowed) for lines in _LINES]
    left, density = channels, np.zeros((len(channels), 1))
    misfits, errors, densities = [], [], []
    for width, narrower in zip(widths, [None, *widths], strict=False):
        if model and width != narrower:
            density = model.fit(channels, width, weights)
            left = model.residual(channels, density)
        misfits.append((measured.weights * left[..., 0] ** 2)[judged].mean(axis=1))
        errors.append(frobenius_norm(left[:, :3, 0]))
        densities.append(np.abs(density[:, 0]))
    return Trial(np.array(widths), np.array(misfits), np.array(errors), np.array(densities))


def burgers_vector(label: str | None, maps: CorrelativeMaps) -> Float:
    """Burgers vector (3,) in crystal axes, nm, of a candidate; of the shortest when there are no dislocations."""
    a, c = CANDIDATES[label or "[001]"]
    return np.array([a * maps.reference_nm[0], 0.0, c * maps.reference_nm[1]])


def frobenius_norm(strain: Float) -> Float:
    """Norm of strain tensors (..., 3) with components aa, cc, 2 ac."""
    return np.asarray(np.sqrt(strain[..., 0] ** 2 + strain[..., 1] ** 2 + strain[..., 2] ** 2 / 2))


def _pixel_mean(maps: Sequence[Float]) -> float:
    values = np.concatenate([field[np.isfinite(field)] for field in maps])
    return float(values.mean())
