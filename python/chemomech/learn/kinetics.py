"""Learn free energy, exchange current and local rate constants from videos of reacting particles (Zhao et al. 2023).

The posterior of the unknowns of `reaction_model` is that of

    sum over frames ((model - data) / noise)^2 + rho_2 / noise^2 sum Z^2 + sum z^2 / size^2

The laws are the most probable ones with the unknowns of the particles integrated out (`evidence`), and these the most
probable ones given the laws; `kinetics_search` finds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError, InputError
from chemomech.learn.arrow import CONVERGED, Minimum, Parameters, deviation
from chemomech.learn.evidence import UNSETTLED
from chemomech.learn.kinetics_search import KineticsSearch
from chemomech.learn.kinetics_validation import CrossValidation, bootstrap, cross_validate
from chemomech.learn.posterior import PosteriorSamples, require_sampler, sample_posterior
from chemomech.learn.reaction_model import Lengths, ParticleModel, Problem
from chemomech.learn.vanishing_cells import LastStep
from chemomech.observe.video import FilmedParticle, ReactionVideo
from chemomech.phasefield.reaction import ReactionLaw
from chemomech.tasks import TasksOn, Unfinished, in_threads

#: Ratio of the misfit of all frames to their noise worth a warning.
_SUSPICIOUS_MISFIT = 1.1
#: And of a single particle, whose pull on the laws then is not that of its noise.
_STRANGE_MISFIT = 1.2
#: One of all frames that is too good: what is fitted takes up less of the noise.
_SUSPICIOUS_FIT = 0.7
#: Time between frames, h, below which a warning is due: X-rays take longer.
_SUSPICIOUS_TIME_H = 1 / 3600
#: Half-width of a 99 % interval of a normal distribution, in standard deviations.
NORMAL_99 = 2.5758293035489004
#: Fewer cannot be drawn anew.
_LEAST_PARTICLES = 3
#: Where the laws are reported; the ends are too close to 0 and 1 to be seen through the noise.
COMPOSITION = np.linspace(0.05, 0.95, 37)


@dataclass(frozen=True)
class KineticsSettings:
    """What may be chosen.

    Attributes
    ----------
    rho_2 : regularisation of ln k: "evidence" (under which the maps found are most likely), "k-fold" (validation over
        half-cycles and the one-standard-error rule) or a number.
    posterior_samples : draws of each of two chains of Hamiltonian Monte Carlo; hours for many pixels, hence 0.
    """

    rho_2: Literal["evidence", "k-fold"] | float = "evidence"
    posterior_samples: int = 0


@dataclass(frozen=True, eq=False)
class ParticleKinetics:
    """One particle as learned.

    Attributes
    ----------
    log_k : (n_pixels,) ln of the local rate constant; its mean over the area of all particles is zero.
    log_k_deviation : (n_pixels,) its standard deviation, posterior and widened like the bands.
    model : by half-cycle, the frames (n_t, n_pixels) of the learned model.
    """

    particle: FilmedParticle
    log_k: Float
    log_k_deviation: Float
    model: dict[str, Float]

    @property
    def errors(self) -> Float:
        """Model less data of all pixels, frames and half-cycles, (n,)."""
        halves = self.particle.half_cycles
        return np.concatenate([np.ravel(self.model[half.name] - half.li_fraction) for half in halves])

    @property
    def rmse(self) -> float:
        """Root mean square of `errors`."""
        return _rms(self.errors)

    @property
    def external_correlation(self) -> float | None:
        """Correlation of k with the external map of the particle; None without one."""
        if self.particle.external is None:
            return None
        return float(np.corrcoef(np.exp(self.log_k), self.particle.external)[0, 1])


@dataclass(frozen=True, eq=False)
class KineticsResult:
    """What the videos say, and how surely.

    Attributes
    ----------
    law : the laws; ln k has mean zero over the area of all particles.
    composition : (n,) at which the following are given.
    mu_kT, mu_half_width : (n,) mu_h less its mean, and the half-width of its point-wise 99 % band.
    log_j0, log_j0_half_width : (n,) ln of j0 in 1/h, and the half-width of its point-wise 99 % band.
    mu_bootstrap, log_j0_bootstrap : (n,) half-widths of 99 % bands from drawing particles anew, mean ln k held; None
        with fewer than three particles.
    cross_validation : errors of half-cycles left out; None unless rho_2 was chosen by them.
    posterior : samples, on the cells of the search; None unless asked for.
    video : what it is learned from.
    rmse, noise : of model less data over all frames; standard deviation of the noise.
    rho : regularisation of ln k.
    lengths : correlation lengths, that of ln k the most likely one, that of the initial fields as first frames say
        unless another is much likelier; of many particles those of a few.
    reason, iterations : why the last stage of the search ended, and after how many steps.
    particles : by name.
    warnings : what a careful reader should look at first.
    """

    law: ReactionLaw
    composition: Float
    mu_kT: Float
    mu_half_width: Float
    log_j0: Float
    log_j0_half_width: Float
    mu_bootstrap: Float | None
    log_j0_bootstrap: Float | None
    cross_validation: CrossValidation | None
    posterior: PosteriorSamples | None
    video: ReactionVideo
    rmse: float
    rho: float
    lengths: Lengths
    reason: str
    iterations: int
    particles: dict[str, ParticleKinetics]
    warnings: list[str]

    @property
    def noise(self) -> float:
        """That of the video."""
        return self.video.noise


def learn_kinetics(
    video: ReactionVideo,
    settings: KineticsSettings | None = None,
    *,
    tasks: TasksOn = in_threads,
    unfinished: Path | None = None,
) -> KineticsResult:
    """Learn mu_h(c), j0(c) and ln k(x, y) from videos.

    The bands are those of the linearised posterior: the inverse Gauss-Newton matrix, the unknowns of the particles
    integrated out, widened by the misfit where that is larger than the noise, and by what the last step has changed:
    the worth of cells, and what the search had left.

    Parameters
    ----------
    tasks : who evaluates the films; `parallel.launch.tasks_on` knows of many processes.
    unfinished : folder in which the search is kept, step by step, and goes on from there when the same video and
        settings come again.

    Raises
    ------
    InputError : no particle has the two half-cycles that k-fold validation needs, what draws samples is missing, or the
        search comes to where reactions or their derivatives cannot be had.
    ConvergenceError : those of half-cycles left out, or of samples, cannot be.

    >>> result = learn_kinetics(read_video("video.h5"))
    >>> result.law.exchange_current(np.array([0.5]))
    array([12.7])
    """
    settings = settings or KineticsSettings()
    if settings.rho_2 == "k-fold" and all(len(each.half_cycles) < 2 for each in video.particles.values()):
        raise InputError('rho_2 = "k-fold" needs a particle with two half-cycles; give a number or "evidence"')
    if settings.posterior_samples:
        require_sampler()
    kept = Unfinished(unfinished, (video, settings)) if unfinished else None
    # Films are shared out among threads; those of the linear algebra would be in their way.
    with threadpool_limits(1, user_api="blas"):
        return _learn(video, settings, tasks, kept)


def _learn(video: ReactionVideo, settings: KineticsSettings, tasks: TasksOn, kept: Unfinished | None) -> KineticsResult:
    search = KineticsSearch(video, tasks, kept)
    rho = settings.rho_2 if isinstance(settings.rho_2, int | float) else None
    try:
        problem, found, volume = search.laws(*search.beginning(), rho)
    except ConvergenceError as error:
        values = sum(half.li_fraction.size for each in video.particles.values() for half in each.half_cycles)
        raise InputError(
            f"the search for laws broke off; too few pixels or frames ({values} values here), or a wrong "
            f"kappa_eV_per_nm or noise_sigma, can lead to where there is no going on: {error}"
        ) from error
    validation = None
    if settings.rho_2 == "k-fold":
        validation = cross_validate(problem, found, unfinished=kept)
        problem, found, volume = search.under_rho(problem, found, validation.chosen)
    draws = settings.posterior_samples
    posterior = sample_posterior(problem, found, draws=draws) if draws else None
    return _result(video, search.on_vanishing_cells(problem, found, volume), validation, posterior)


def _result(
    video: ReactionVideo,
    last: LastStep,
    validation: CrossValidation | None,
    posterior: PosteriorSamples | None,
) -> KineticsResult:
    problem, found = last.problem, last.found
    basis, models = problem.basis, problem.models
    now, before = _reported(problem, found.parameters), _reported(problem, last.searched)
    along_mean = _along_mean_log_k(models)
    particles = {
        model.particle.name: ParticleKinetics(
            particle=model.particle,
            log_k=now.log_k[index],
            log_k_deviation=_log_k_deviation(found, model, index, along_mean),
            model={film.half_cycle.name: each for film, each in zip(model.films, own, strict=True)},
        )
        for index, (model, own) in enumerate(zip(models, problem.all_frames(found.parameters), strict=True))
    }
    rmse = _rms(np.concatenate([each.errors for each in particles.values()]))
    widening = max(rmse / video.noise, 1.0)
    particles = {
        name: replace(each, log_k_deviation=_with_cells(widening * each.log_k_deviation, each.log_k - log_k))
        for (name, each), log_k in zip(particles.items(), before.log_k, strict=True)
    }
    strange = [
        f"{name}: the model misses its frames by {each.rmse:.3f} RMS, the noise {video.noise}"
        for name, each in particles.items()
        if each.rmse > _STRANGE_MISFIT * video.noise
    ]
    mu_design, log_j0_design = basis.mu_design(COMPOSITION), basis.log_j0_design(COMPOSITION)
    mu_deviation = widening * deviation(found, mu_design, [np.zeros_like(along) for along in along_mean])
    log_j0_deviation = widening * deviation(found, log_j0_design, along_mean)
    mu_bootstrap = log_j0_bootstrap = None
    if len(models) >= _LEAST_PARTICLES:
        drawn, n = bootstrap(last.pull.added_to(found.parameters.shared, found.arrows)), len(models)
        # Of few particles the deviation is itself uncertain, and draws with replacement make it too small.
        half = float(stats.t.isf(0.005, n - 1)) * np.sqrt(n / (n - 1))
        mu_bootstrap = half * (drawn @ mu_design.T).std(axis=0)
        log_j0_bootstrap = half * (drawn @ log_j0_design.T).std(axis=0)
    return KineticsResult(
        law=now.law,
        composition=COMPOSITION,
        mu_kT=now.mu_kT,
        mu_half_width=NORMAL_99 * _with_cells(mu_deviation, now.mu_kT - before.mu_kT),
        log_j0=now.log_j0,
        log_j0_half_width=NORMAL_99 * _with_cells(log_j0_deviation, now.log_j0 - before.log_j0),
        mu_bootstrap=mu_bootstrap,
        log_j0_bootstrap=log_j0_bootstrap,
        cross_validation=validation,
        posterior=posterior,
        rmse=rmse,
        video=video,
        rho=problem.rho,
        lengths=models[0].lengths,
        reason=found.reason,
        iterations=found.iterations,
        particles=particles,
        warnings=[
            *_warnings(rmse, video, found),
            *last.notes,
            *strange,
            *(f"left out: {each}" for each in video.skipped),
        ],
    )


@dataclass(frozen=True, eq=False)
class _Reported:
    """What parameters say, mu_h of mean zero over `COMPOSITION`, ln k over the area of all particles."""

    law: ReactionLaw
    mu_kT: Float
    log_j0: Float
    log_k: list[Float]


def _reported(problem: Problem, parameters: Parameters) -> _Reported:
    along_mean = _along_mean_log_k(problem.models)
    mean = sum(float(along @ own) for along, own in zip(along_mean, parameters.local, strict=True))
    law = problem.basis.law(parameters.shared)
    log_j0 = law.log_j0.copy()
    log_j0[0] += mean
    law = replace(law, log_j0=log_j0)
    mu = law.chemical_potential(COMPOSITION)
    return _Reported(
        law=law,
        mu_kT=mu - mu.mean(),
        log_j0=np.log(law.exchange_current(COMPOSITION)),
        log_k=[
            model.log_k_modes @ model.split(own)[0] - mean
            for model, own in zip(problem.models, parameters.local, strict=True)
        ],
    )


def _with_cells(posterior: Float, moved: Float) -> Float:
    """Standard deviation of the posterior and of cells.

    What the last step has moved is known no better than to within as much, an even distribution (JCGM 100:2008, 4.3.7),
    of the shape of the step: where that is zero nothing is added. Films made by other solvers hold cells of their own.
    """
    return np.asarray(np.hypot(posterior, moved / np.sqrt(3)))


def _rms(values: Float) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _along_mean_log_k(models: Sequence[ParticleModel]) -> list[Float]:
    """By particle, what its parameters add to the mean of ln k over the area of all."""
    areas = [model.particle.pixel_size_nm**2 for model in models]
    total = sum(area * len(model.log_k_modes) for area, model in zip(areas, models, strict=True))
    result = []
    for model, area in zip(models, areas, strict=True):
        along = np.zeros(sum(model.sizes))
        along[: model.sizes[0]] = model.log_k_modes.sum(axis=0) * area / total
        result.append(along)
    return result


def _log_k_deviation(found: Minimum, model: ParticleModel, index: int, along_mean: Sequence[Float]) -> Float:
    """Of ln k less its mean over all particles, in the pixels of one."""
    along = [-own for own in along_mean]
    along[index] = np.tile(along[index], (len(model.log_k_modes), 1))
    along[index][:, : model.sizes[0]] += model.log_k_modes
    return deviation(found, np.zeros((len(model.log_k_modes), len(found.schur))), along)


def _warnings(rmse: float, video: ReactionVideo, found: Minimum) -> list[str]:
    notes, noise = [], video.noise
    halves = [half for each in video.particles.values() for half in each.half_cycles]
    shortest = min(float(np.median(np.diff(half.time_h))) for half in halves)
    if shortest < _SUSPICIOUS_TIME_H:
        notes.append(
            f"frames {3600 * shortest:.2g} s apart: is time_s in seconds? Times in hours make j0 3600 times as large"
        )
    if rmse > _SUSPICIOUS_MISFIT * noise:
        notes.append(
            f"the model misses the frames by {rmse:.3f} RMS, more than noise_sigma, {noise:.3f}: it is too small, or "
            "something in the videos is not in the model, or the search ended in a local minimum; the bands, which are "
            "widened by the ratio, may still be too narrow"
        )
    if rmse < _SUSPICIOUS_FIT * noise:
        notes.append(
            f"the model meets the frames within {rmse:.3f} RMS, less than noise_sigma, {noise:.3f}, allows: it is too "
            "large, or the frames have been smoothed"
        )
    if found.reason == UNSETTLED:
        notes.append("the laws had not settled when the search ended, and the bands may be too narrow")
    elif found.reason != CONVERGED:
        notes.append(f"the search ended before its tolerance: {found.reason}")
    return notes
