"""Learn the composition-eigenstrain law from the aligned maps of any number of particles.

Model M0 regresses the measured strain on the composition; model M1 asks for elastic equilibrium (Deng, eqs. 1-3; SI,
sections II, V and VII); model M2 adds a dislocation density in every pixel. All laws share their order, which is chosen
on held-out particles with M1.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.learn.dislocation_density import (
    DislocatedEquilibrium,
    DislocationMaps,
    DislocationResult,
    burgers_vector,
    compare_candidates,
    frobenius_norm,
    try_candidates,
)
from chemomech.learn.law import EigenstrainLaw
from chemomech.learn.least_squares import (
    Design,
    Fit,
    OrderScore,
    bootstrap_covariance,
    build_design,
    choose_order,
    fit,
    heterogeneity,
    plain_covariance,
    propagated_covariance,
    reference_offset,
)
from chemomech.learn.observation import Boundary, DirectRegression, Equilibrium, Misfit, Observation, View
from chemomech.mechanics.compatibility import incompatibility
from chemomech.mechanics.stiffness import OLIVINE, plane_stress
from chemomech.observe.maps import CHANNELS, CorrelativeMaps
from chemomech.observe.noise import white_noise
from chemomech.tasks import Tasks, one_by_one, same_sums

log = logging.getLogger(__name__)

MODELS = ("M0", "M1", "M2")
_QUANTITIES = ("composition", *CHANNELS)
#: Orders compared when the order is chosen automatically.
_AUTO_ORDERS = range(1, 6)
#: Beyond this a polynomial follows the noise of any map.
_LARGEST_ORDER = 12
#: Strain noise below this is not measurable, even where it is given; it keeps weights finite.
_LEAST_STRAIN_NOISE = 1e-6
#: Above this ratio of residual to noise variance the model leaves something out and noise alone cannot give the errors.
_UNEXPLAINED_RATIO = 1.25
#: Particles that differ more than noise makes them with this probability are drawn again to find the errors.
_UNLIKELY = 0.05
#: The law is an extrapolation where no more than this share of the pixels goes further, noise left out.
_FEW_PIXELS = 0.01
#: A constant strain beside the law of more standard errors than this points to the lattice reference.
_SUSPICIOUS_ERRORS = 5
#: Share of pixels at exactly 0 or 1 that gives a clipped composition away.
_CLIPPED = 0.002


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Covariance of the coefficients, estimated in several ways.

    Attributes
    ----------
    estimates : (2 order, 2 order) by method: "plain" least squares, "propagated" measurement noise and, with three
        particles or more, "particle bootstrap".
    used, reason : the method the law's bands stand on, and why.
    widening : factor on that covariance.
    unexplained_ratio : variance of the residual strain over that of the noise; 1 when only noise is left.
    explained : noise alone explains the residual and the differences between particles.
    """

    estimates: dict[str, Float]
    used: str
    reason: str
    widening: float
    unexplained_ratio: float
    explained: bool

    @property
    def covariance(self) -> Float:
        """The covariance in use."""
        return self.widening * self.estimates[self.used]


@dataclass(frozen=True, eq=False)
class ParticleResult:
    """What the law leaves unexplained in one particle.

    Attributes
    ----------
    maps : the measured maps.
    coherency_strain : (ny, nx, 3) elastic strain of model M1, its total strain less the eigenstrain; aa, cc, 2 ac.
    residual_strain : (ny, nx, 3) measured strain less eigenstrain and coherency strain (Deng SI, eq. 5.1).
    incompatibility : (ny, nx), 1/nm^2, of the residual strain.
    rms_incompatibility_per_nm2 : its root mean square; NaN where no 3 x 3 pixels lie inside the mask.
    held_out : the particle took no part in the fit.
    """

    maps: CorrelativeMaps
    coherency_strain: Float
    residual_strain: Float
    incompatibility: Float
    rms_incompatibility_per_nm2: float
    held_out: bool


@dataclass(frozen=True, eq=False)
class EigenstrainResult:
    """The learned law and how far to trust it.

    Attributes
    ----------
    order : Legendre order of all laws.
    order_given : it was asked for, not chosen.
    order_selection : misfit of each order tried; empty when the order was given and no particle held out.
    laws : by model.
    uncertainty : by model, the covariances and which of them the law carries.
    model_error : by model, mean Frobenius norm of the residual strain over the pixels of all particles.
    noise : median standard deviation of "composition", "aa", "cc", "ac", "rotation" over all pixels.
    particles : by name.
    dislocations : those of model M2, where it was fitted.
    boundary, misfit : as asked for.
    warnings : what a careful reader of the result should look at first.
    """

    order: int
    order_given: bool
    order_selection: list[OrderScore]
    laws: dict[str, EigenstrainLaw]
    uncertainty: dict[str, Uncertainty]
    model_error: dict[str, float]
    noise: dict[str, float]
    particles: dict[str, ParticleResult]
    dislocations: DislocationResult | None
    boundary: Boundary
    misfit: Misfit
    warnings: list[str]

    @property
    def main(self) -> str:
        """The model whose order, residual strain and warnings stand for the result: M1 where it was fitted."""
        return _main(self.laws)


def learn_eigenstrain(
    particles: Sequence[CorrelativeMaps],
    *,
    order: int | Literal["auto"] = "auto",
    test: Sequence[str] = (),
    boundary: Boundary = "free",
    misfit: Misfit = "strain",
    models: Sequence[str] = ("M0", "M1"),
    stiffness_GPa: Float = OLIVINE,
    tasks: Tasks = one_by_one,
) -> EigenstrainResult:
    """Learn f(X) from composition and strain maps.

    A particle that fails (its elastic solution does not converge, say) is left out and named in the warnings; the
    result is that of the others alone.

    Parameters
    ----------
    particles : the aligned maps; names must differ.
    order : Legendre order, or "auto" to choose it from 1..5 with each particle held out in turn, and on those of
        `test`.
    test : names of particles that are kept out of the fit.
    boundary : "free" for traction-free edges, "dirichlet" to hold the edge at the measured displacement.
    misfit : "strain" compares strains (white noise, the rotation is not read), "displacement" the displacement
        integrated from strain and rotation.
    models : any of "M0", "M1" and, with M1 and free edges, "M2"; the order and the residual maps are those of M1 where
        it is among them. M2 is always fitted to strain and rotation.
    stiffness_GPa : (6, 6) Voigt; the mean of LiFePO4 and FePO4 by default.
    tasks : who does the work on single particles; `parallel.ranks` has one for many processes.

    Raises
    ------
    InputError : unusable maps or options, or a composition that varies too little to determine the law.
    ConvergenceError : an iterative solution stopped before its tolerance, in every particle that could be fitted.

    >>> result = learn_eigenstrain(read_stack("maps.h5"))
    >>> result.laws["M1"].derivative(0.5)
    array([0.049, -0.0196])
    """
    skipped: list[str] = []
    while True:
        _check_arguments(particles, order, test, boundary, misfit, models)
        try:
            with same_sums():
                result = _learn(particles, order, test, boundary, misfit, models, stiffness_GPa, tasks)
            return replace(result, warnings=[*skipped, *result.warnings])
        except _ParticlesFailed as failed:
            names = failed.errors.keys()
            if all(maps.name in names or maps.name in test for maps in particles):
                raise next(iter(failed.errors.values())) from None
            skipped += [f"particle {name} was skipped: {error}" for name, error in failed.errors.items()]
            for line in skipped[-len(names) :]:
                log.warning("%s; learning from the others", line)
            particles = [maps for maps in particles if maps.name not in names]
            test = [name for name in test if name not in names]


class _ParticlesFailed(Exception):
    """Errors of particles, by name."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        super().__init__()
        self.errors = errors


def _for_particles(
    tasks: Tasks,
    description: str,
    function: Callable[..., Any],
    particles: Sequence[CorrelativeMaps],
    *of_each: Sequence[Any],
) -> dict[str, Any]:
    """By name, function((maps, ...)) of each particle, with what `of_each` holds for it.

    Raises
    ------
    _ParticlesFailed : some did not get through.
    """
    items = list(zip(particles, *of_each, strict=True))
    results = tasks(description, function, items, lambda item: float(item[0].mask.sum()))
    by_name = dict(zip((maps.name for maps in particles), results, strict=True))
    errors = {name: result for name, result in by_name.items() if isinstance(result, Exception)}
    if errors:
        raise _ParticlesFailed(errors)
    return by_name


def _learn(
    particles: Sequence[CorrelativeMaps],
    order: int | Literal["auto"],
    test: Sequence[str],
    boundary: Boundary,
    misfit: Misfit,
    models: Sequence[str],
    stiffness_GPa: Float,
    tasks: Tasks,
) -> EigenstrainResult:
    main = _main(models)
    deviations = _deviations(particles, test)
    noise = dict(zip(_QUANTITIES, np.median(np.concatenate(list(deviations.values())), axis=0).tolist(), strict=True))
    order_given = order != "auto"
    highest = max(_AUTO_ORDERS) if order == "auto" else order
    views: list[View] = ["strain", "displacement"] if order == "auto" or misfit == "displacement" else ["strain"]
    work = partial(
        _designs_of,
        models=[model for model in models if model != "M2"],
        stiffness=plane_stress(stiffness_GPa),
        boundary=boundary,
        misfit=misfit,
        views=views,
        order=highest,
    )
    of_particles = _for_particles(tasks, "particles", work, particles, list(deviations.values()))
    designs = {model: {name: own[model] for name, own in of_particles.items()} for model in work.keywords["models"]}

    fitted = {model: [d for name, d in by_name.items() if name not in test] for model, by_name in designs.items()}
    selection: list[OrderScore] = []
    held_out = [designs[main][name] for name in test]
    if order == "auto":
        order, selection = choose_order(fitted[main], held_out, _AUTO_ORDERS)
    elif held_out:
        selection = choose_order(fitted[main], held_out, [order])[1]

    solutions = {model: fit(used, order) for model, used in fitted.items()}
    uncertainty = {model: _uncertainty(fitted[model], solution) for model, solution in solutions.items()}
    laws = {model: _law(solution, uncertainty[model]) for model, solution in solutions.items()}
    model_error = {model: _model_error(designs[model].values(), law) for model, law in laws.items()}
    dislocations = None
    if "M2" in models:
        solutions["M2"], uncertainty["M2"], dislocations = _fit_dislocations(
            particles, deviations, laws["M1"], test, stiffness_GPa, tasks
        )
        laws["M2"] = _law(solutions["M2"], uncertainty["M2"])
        model_error["M2"] = dislocations.model_error

    return EigenstrainResult(
        order=order,
        order_given=order_given,
        order_selection=selection,
        laws=laws,
        uncertainty=uncertainty,
        model_error=model_error,
        noise=noise,
        particles={
            maps.name: _particle_result(maps, designs[main][maps.name], laws[main], maps.name in test)
            for maps in particles
        },
        dislocations=dislocations,
        boundary=boundary,
        misfit=misfit,
        warnings=[
            *_extrapolation([maps for maps in particles if maps.name not in test], noise["composition"]),
            *_clipping(particles),
            *_unexplained(fitted[main], solutions[main], uncertainty[main], main),
            *([_untrusted("M2", uncertainty["M2"])] if "M2" in laws and not uncertainty["M2"].explained else []),
        ],
    )


def _main(models: Iterable[str]) -> str:
    return "M1" if "M1" in models else "M0"


def _law(solution: Fit, uncertainty: Uncertainty) -> EigenstrainLaw:
    return EigenstrainLaw(solution.coefficients, uncertainty.covariance)


def _design(maps: CorrelativeMaps, deviation: Float, observation: Observation, view: View, order: int) -> Design:
    """Design of a particle whose composition and channels have the standard deviations (n_pixels, 5)."""
    return build_design(observation, view, maps.composition[maps.mask], deviation[:, 0], deviation[:, 1:], order)


def _designs_of(
    item: tuple[CorrelativeMaps, Float],
    models: Sequence[str],
    stiffness: Float,
    boundary: Boundary,
    misfit: Misfit,
    views: Sequence[View],
    order: int,
) -> dict[str, Design]:
    """Designs of M0 and M1, as far as they are among `models`."""
    maps, deviation = item
    designs = {}
    if "M0" in models:
        designs["M0"] = _design(maps, deviation, DirectRegression(maps, deviation[:, 1:]), "strain", order)
    if "M1" in models:
        observation = Equilibrium(maps, deviation[:, 1:], stiffness, boundary, views)
        designs["M1"] = _design(maps, deviation, observation, misfit, order)
    return designs


def _fit_dislocations(
    particles: Sequence[CorrelativeMaps],
    deviations: dict[str, Float],
    law: EigenstrainLaw,
    test: Sequence[str],
    stiffness_GPa: Float,
    tasks: Tasks,
) -> tuple[Fit, Uncertainty, DislocationResult]:
    """Model M2, with the dislocations that best explain what the law of M1 leaves, in the order of that law."""
    own = list(deviations.values())
    try_all = partial(try_candidates, law=law, stiffness_GPa=stiffness_GPa)
    comparison = compare_candidates(_for_particles(tasks, "dislocations", try_all, particles, own), test)
    width = comparison.density_deviation_per_nm2
    fitted = [maps for maps in particles if maps.name not in test]
    make_design = partial(_dislocated_design, chosen=comparison.chosen, stiffness_GPa=stiffness_GPa, order=law.order)
    designs = _for_particles(
        tasks,
        "law with dislocations",
        make_design,
        fitted,
        [deviations[maps.name] for maps in fitted],
        [width[maps.name] for maps in fitted],
    )
    solution = fit(list(designs.values()), law.order)
    uncertainty = _uncertainty(list(designs.values()), solution)
    explain = partial(
        _explained, chosen=comparison.chosen, stiffness_GPa=stiffness_GPa, law=_law(solution, uncertainty)
    )
    widths = [width[maps.name] for maps in particles]
    found = _for_particles(tasks, "dislocation densities", explain, particles, own, widths)
    return solution, uncertainty, DislocationResult(comparison.chosen, comparison.candidates, found)


def _dislocated_design(
    item: tuple[CorrelativeMaps, Float, float], chosen: str | None, stiffness_GPa: Float, order: int
) -> Design:
    maps, deviation, _ = item
    return _design(maps, deviation, _dislocated(item, chosen, stiffness_GPa), "distortion", order)


def _explained(
    item: tuple[CorrelativeMaps, Float, float], chosen: str | None, stiffness_GPa: Float, law: EigenstrainLaw
) -> DislocationMaps:
    return _dislocated(item, chosen, stiffness_GPa).explain(law, item[1][:, 0])


def _dislocated(
    item: tuple[CorrelativeMaps, Float, float], chosen: str | None, stiffness_GPa: Float
) -> DislocatedEquilibrium:
    # Made anew for each use: kept, the factors of hundreds of particles would fill the memory.
    maps, deviation, width = item
    return DislocatedEquilibrium(maps, deviation[:, 1:], stiffness_GPa, burgers_vector(chosen, maps), width)


def _check_arguments(
    particles: Sequence[CorrelativeMaps],
    order: object,
    test: Sequence[str],
    boundary: str,
    misfit: str,
    models: Sequence[str],
) -> None:
    for option, value, allowed in (("boundary", boundary, get_args(Boundary)), ("misfit", misfit, get_args(Misfit))):
        if value not in allowed:
            raise InputError(f"{option} must be {' or '.join(allowed)}, got {value!r}")
    names = [maps.name for maps in particles]
    if not names:
        raise InputError("there is no particle to learn from")
    if len(set(names)) < len(names):
        raise InputError("particle names must differ")
    unknown = [name for name in test if name not in names]
    if unknown:
        raise InputError(f"test particle {unknown[0]!r} is not among {', '.join(names)}")
    n_fitted = len(names) - len(set(test))
    if n_fitted == 0:
        raise InputError("every particle is a test particle; leave at least one to learn from")
    if not models or any(model not in MODELS for model in models):
        raise InputError(f"models must be among {', '.join(MODELS)}, got {','.join(models) or 'none'}")
    if "M2" in models and ("M1" not in models or boundary != "free"):
        raise InputError("model M2 starts from the law of M1 and takes edges to be free: fit M1 too, boundary free")
    if order == "auto":
        if n_fitted == 1 and not test:
            raise InputError("choosing the order needs a second particle to judge it; give it: order 2, for instance")
    elif not isinstance(order, int) or not 1 <= order <= _LARGEST_ORDER:
        raise InputError(f"order must be auto or an integer from 1 to {_LARGEST_ORDER}, got {order}")


def _deviations(particles: Sequence[CorrelativeMaps], test: Sequence[str]) -> dict[str, Float]:
    """Standard deviations (n_pixels, 5) of the composition and the four channels, by particle.

    A channel without an uncertainty gets the white noise of the maps that have none; held-out particles have no say in
    it while others do.
    """
    columns: dict[str, list[Float]] = {maps.name: [] for maps in particles}
    for i, name in enumerate(_QUANTITIES):
        silent = [maps for maps in particles if name not in maps.uncertainty]
        estimate = 0.0
        if silent:
            heard = [maps for maps in silent if maps.name not in test] or silent
            fields = [maps.composition if i == 0 else maps.distortion[..., i - 1] for maps in heard]
            estimate = white_noise(fields, [maps.mask for maps in heard], name)
        if i > 0:
            estimate = max(estimate, _LEAST_STRAIN_NOISE)
        for maps in particles:
            given = maps.uncertainty.get(name, np.full(maps.mask.shape, estimate))
            columns[maps.name].append(np.maximum(given[maps.mask], _LEAST_STRAIN_NOISE if i > 0 else 0.0))
    return {name: np.column_stack(channels) for name, channels in columns.items()}


def _uncertainty(designs: Sequence[Design], solution: Fit) -> Uncertainty:
    """All covariances of a fit and the one that its residual allows to trust."""
    ratio = float(np.mean([d.whitened.unexplained_ratio(solution.coefficients) for d in designs]))
    chance = heterogeneity(designs, solution)
    estimates: dict[str, Float] = {
        "plain": plain_covariance(designs, solution.coefficients.shape[1]),
        "propagated": propagated_covariance(designs, solution),
    }
    bootstrap = bootstrap_covariance(designs, solution.coefficients.shape[1])
    if bootstrap is not None:
        estimates["particle bootstrap"] = bootstrap
    residual = (
        f"the residual strain has {ratio:.2f} times the variance of the measurement noise, and noise alone makes "
        f"particles differ this much with probability {f'{chance:.2g}' if chance > 1e-6 else 'below 1e-6'}"
    )
    if ratio <= _UNEXPLAINED_RATIO and chance >= _UNLIKELY:
        used = "propagated"
        # Densities take up what single lines leave beside the mean of a pixel, so that M2's ratio says little.
        wider = bootstrap is not None and np.trace(bootstrap) > np.trace(estimates[used])
        if wider and designs[0].view == "distortion":
            used = "particle bootstrap"
        return Uncertainty(estimates, used, f"{residual}: it explains them", 1.0, ratio, explained=True)
    if bootstrap is not None:
        example = "" if designs[0].view == "distortion" else " (dislocations, for instance)"
        reason = (
            f"{residual}: the maps hold strain that the model leaves out{example}, and the errors are taken from the "
            "spread between particles"
        )
        return Uncertainty(estimates, "particle bootstrap", reason, 1.0, ratio, explained=False)
    reason = (
        f"{residual} and there are fewer than three particles to draw from: "
        "the propagated covariance is widened by that factor and is still too narrow where the residual is correlated"
    )
    return Uncertainty(estimates, "propagated", reason, max(ratio, 1.0), ratio, explained=False)


def _model_error(designs: Iterable[Design], law: EigenstrainLaw) -> float:
    """Mean over pixels of the Frobenius norm of the residual strain tensor."""
    residual = np.concatenate([design.strain - design.total_strain(law.coefficients) for design in designs])
    return float(frobenius_norm(residual).mean())


def _particle_result(maps: CorrelativeMaps, design: Design, law: EigenstrainLaw, held_out: bool) -> ParticleResult:
    unexplained = design.strain - design.total_strain(law.coefficients)
    coherency = maps.distortion[maps.mask][:, :3] - unexplained
    coherency[:, :2] -= design.eigenstrain(law.coefficients)
    residual = maps.to_map(unexplained)
    field = incompatibility(residual, maps.mask, maps.pixel_size_nm)
    defined = field[np.isfinite(field)]
    return ParticleResult(
        maps=maps,
        coherency_strain=maps.to_map(coherency),
        residual_strain=residual,
        incompatibility=field,
        rms_incompatibility_per_nm2=float(np.sqrt(np.mean(defined**2))) if defined.size else float("nan"),
        held_out=held_out,
    )


def _extrapolation(particles: Sequence[CorrelativeMaps], noise: float) -> list[str]:
    """A warning when the maps hold only a part of 0..1, of which the law is a continuation."""
    composition = np.concatenate([maps.composition[maps.mask] for maps in particles])
    low, high = np.quantile(composition, [_FEW_PIXELS, 1 - _FEW_PIXELS]) + np.array([2, -2]) * noise
    if low <= 0.1 and high >= 0.9:
        return []
    return [f"the maps hold compositions from {max(low, 0):.2f} to {min(high, 1):.2f}; beyond, the law is extrapolated"]


def _clipping(particles: Sequence[CorrelativeMaps]) -> list[str]:
    """A warning when noise at the ends of 0..1 was cut off, which steepens the law."""
    composition = np.concatenate([maps.composition[maps.mask] for maps in particles])
    if min(np.mean(composition == 0.0), np.mean(composition == 1.0)) < _CLIPPED:
        return []
    return ["many pixels have a composition of exactly 0 or 1: give the noisy values; clipping them biases the law"]


def _untrusted(model: str, uncertainty: Uncertainty) -> str:
    return f"{model}: {uncertainty.reason}"


def _unexplained(designs: Sequence[Design], solution: Fit, uncertainty: Uncertainty, model: str) -> list[str]:
    if model == "M0":
        return [
            "M0 takes elastic strain for eigenstrain: its law is not that of a stress-free crystal; fit M1 for that"
        ]
    notes = [] if uncertainty.explained else [_untrusted(model, uncertainty)]
    offset, error = reference_offset(designs, solution)
    error = error * max(uncertainty.unexplained_ratio, 1) ** 0.5
    for name, value, deviation in zip("ac", offset, error, strict=True):
        if abs(value) > _SUSPICIOUS_ERRORS * deviation:
            notes.append(
                f"beside the law the strain along {name} holds a constant of {value:+.1e} +- {deviation:.0e}: check "
                f"{name}_ref_angstrom, the lattice parameter of LiFePO4, and the zero of the composition"
            )
    return notes
