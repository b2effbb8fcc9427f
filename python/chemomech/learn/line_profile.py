"""From the peaks of a powder to dislocations: every peak by itself, then all of them by slip systems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.learn.dislocation_systems import DislocationSystems, find_systems, geometric_factor, mixture
from chemomech.mechanics.contrast import contrast_factor
from chemomech.mechanics.slip_systems import SlipSystem, candidates
from chemomech.mechanics.stiffness import FEPO4, LIFEPO4
from chemomech.observe.line_profile import PeakAnalysis, WilliamsonHall, analyse_peak, williamson_hall
from chemomech.progress import progress

Triple = tuple[float, float, float]

#: Cells (nm) whose stiffness is known, and how near a cell must be to be taken for one of them. The two differ by 5 %
#: along a; measured cells are within 1.6 % of these (Deng SI, Table S4).
KNOWN = {"LiFePO4": ((1.045, 0.605, 0.474), LIFEPO4), "FePO4": ((0.996, 0.588, 0.486), FEPO4)}
_SAME_CELL = 0.02
#: g of a peak and of its indices may differ by this much before it is said.
_SAME_G = 0.05
#: Scatter about the fit, in variances of the noise, beyond which a peak is said not to follow it.
_POOR_FIT = 2.0


@dataclass(frozen=True)
class Peak:
    """One measured peak.

    Attributes
    ----------
    hkl : indices; g_per_nm : 1/d.
    q_per_nm, intensity : (n,) as for `observe.line_profile.analyse_peak`.
    contrast_factor, burgers_nm : of the only kind of dislocation, where it is known.
    """

    hkl: tuple[int, int, int]
    g_per_nm: float
    q_per_nm: Float
    intensity: Float
    contrast_factor: float | None = None
    burgers_nm: float | None = None


@dataclass(frozen=True)
class Phase:
    """Lattice parameters (nm), stiffness (6, 6) in GPa or None for that of the olivine with this cell, volume share."""

    cell_nm: Triple
    stiffness_GPa: Float | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Powder:
    """What was measured: peaks by name, phases by name, peaks of a standard, systems (None: those of LiFePO4)."""

    peaks: Mapping[str, Peak]
    phases: Mapping[str, Phase]
    standard: Sequence[Peak] = ()
    systems: Sequence[SlipSystem] | None = None


@dataclass(frozen=True)
class LineProfileResult:
    """What `analyse_powder` found.

    Attributes
    ----------
    powder : the measurement.
    peaks : name -> its analysis.
    single_contrast_per_m2 : name -> density from M2 and from M4 for a peak with a contrast factor of its own.
    williamson_hall : the line through the breadths; None with fewer than two different g.
    systems : None where they cannot be told; a warning says why.
    warnings : sentences for the reader.
    """

    powder: Powder
    peaks: Mapping[str, PeakAnalysis]
    single_contrast_per_m2: Mapping[str, tuple[float, float]]
    williamson_hall: WilliamsonHall | None
    systems: DislocationSystems | None
    warnings: list[str] = field(default_factory=list)


def analyse_powder(powder: Powder) -> LineProfileResult:
    """Analyse every peak, then decompose their effective densities into slip systems.

    A peak of the standard corrects the peaks whose g is nearest to its own.

    Raises
    ------
    InputError : as `analyse_peak`, naming the peak; as `find_systems`; weights of phases that do not add up to 1.

    >>> result = analyse_powder(read_peaks("peaks.h5"))
    >>> result.systems.density_per_um2
    """
    analyses: dict[str, PeakAnalysis] = {}
    warnings = _far_from_their_indices(powder)
    with progress("peaks", len(powder.peaks)) as advance:
        for name, peak in powder.peaks.items():
            standard = min(powder.standard, key=lambda each: abs(each.g_per_nm - peak.g_per_nm), default=None)
            instrument = None if standard is None else (standard.q_per_nm, standard.intensity)
            try:
                analyses[name] = analyse_peak(peak.q_per_nm, peak.intensity, instrument=instrument)
            except InputError as error:
                raise InputError(f"/peaks/{name}: {error}") from error
            advance()
    warnings += _doubts(analyses)
    g = [peak.g_per_nm for peak in powder.peaks.values()]
    breadths = [analysis.integral_breadth_per_nm for analysis in analyses.values()]
    systems, told = _systems(powder, analyses)
    return LineProfileResult(
        powder=powder,
        peaks=analyses,
        single_contrast_per_m2=_single_contrast(powder, analyses),
        williamson_hall=williamson_hall(g, breadths) if len(set(g)) > 1 else None,
        systems=systems,
        warnings=warnings + told,
    )


def factors(phase: Phase, systems: Sequence[SlipSystem], peaks: Sequence[Peak]) -> Float:
    """Lambda (m, n) of the peaks and systems in one phase, powder average.

    Raises
    ------
    InputError : no stiffness is given and none is known for the cell; systems that cannot be.

    >>> factors(Phase((1.045, 0.605, 0.474)), systems, peaks).shape
    (5, 15)
    """
    stiffness = _stiffness(phase)
    columns = []
    for system in systems:
        b = float(np.linalg.norm(system.burgers_nm(phase.cell_nm)))
        try:
            contrast = [
                contrast_factor(
                    phase.cell_nm,
                    stiffness,
                    burgers=system.burgers,
                    plane=system.plane,
                    line=system.line,
                    hkl=peak.hkl,
                )
                for peak in peaks
            ]
        except InputError as error:
            raise InputError(f"/systems/{system.label}: {error}") from error
        columns.append(geometric_factor([peak.g_per_nm for peak in peaks], b, contrast))
    return np.column_stack(columns)


def _systems(powder: Powder, analyses: Mapping[str, PeakAnalysis]) -> tuple[DislocationSystems | None, list[str]]:
    unknown = [name for name, phase in powder.phases.items() if _known_stiffness(phase) is None]
    if unknown:
        phase = powder.phases[unknown[0]]
        cell = " x ".join(f"{length:g}" for length in phase.cell_nm)
        return None, [
            f"Slip systems were not told apart: no stiffness_GPa is given, and none is known for a cell of {cell} nm."
        ]
    shown = {name: analysis for name, analysis in analyses.items() if analysis.density_per_nm2 > 0}
    missing = [name for name in analyses if name not in shown]
    warnings = [f"{name} shows no dislocations and takes no part in telling systems apart." for name in missing]
    if len(shown) < 2:
        return None, [*warnings, "Slip systems were not told apart: that needs two peaks that show dislocations."]
    peaks = [powder.peaks[name] for name in shown]
    first = next(iter(powder.phases.values()))
    systems = powder.systems or candidates(first.cell_nm, _stiffness(first))
    matrices = {name: factors(phase, systems, peaks) for name, phase in powder.phases.items()}
    energies = {
        name: np.array([system.line_energy_nJ_per_m(phase.cell_nm, _stiffness(phase)) for system in systems])
        for name, phase in powder.phases.items()
    }
    weights = {name: phase.weight for name, phase in powder.phases.items()}
    found = find_systems(
        [system.label for system in systems],
        list(shown),
        mixture(matrices, weights),
        [analysis.density_per_nm2 for analysis in shown.values()],
        mixture(energies, weights),
    )
    if len(shown) < len(systems):
        warnings.append(
            f"{len(shown)} peaks cannot tell {len(systems)} systems apart by themselves: read "
            f"{'the sparsest sets and ' if found.sets else ''}the distributions, not one density alone."
        )
    if found.widened:
        warnings.append(
            f"No densities describe all peaks within {100 * found.asked:.0f} %; the closest miss one by "
            f"{100 * found.closest:.0f} %, and the distributions hold what is within {100 * found.tolerance:.0f} %."
        )
    return found, warnings


def _doubts(analyses: Mapping[str, PeakAnalysis]) -> list[str]:
    told = []
    apart = [name for name, analysis in analyses.items() if not analysis.consistent]
    if apart:
        told.append(f"M2 and M4 disagree by more than 15 % and two standard errors at {', '.join(apart)}.")
    scatter = {name: max(analysis.M2.chi2, analysis.M4.chi2) for name, analysis in analyses.items()}
    poor = [f"{name} ({chi2:.1f})" for name, chi2 in scatter.items() if chi2 > _POOR_FIT]
    if poor:
        told.append(
            "The tails scatter about the fit by more than the noise; chi-squared per degree of freedom, "
            f"by whose root the standard errors are widened: {', '.join(poor)}."
        )
    return told


def _far_from_their_indices(powder: Powder) -> list[str]:
    told = []
    for name, peak in powder.peaks.items():
        expected = [float(np.linalg.norm(np.divide(peak.hkl, phase.cell_nm))) for phase in powder.phases.values()]
        nearest = min(expected, key=lambda g: abs(g - peak.g_per_nm))
        if abs(nearest / peak.g_per_nm - 1) > _SAME_G:
            told.append(f"{name}: g_per_nm is {peak.g_per_nm:.4g}, but the cell gives {nearest:.4g} for these indices.")
    return told


def _single_contrast(powder: Powder, analyses: Mapping[str, PeakAnalysis]) -> dict[str, tuple[float, float]]:
    found = {}
    for name, peak in powder.peaks.items():
        if peak.contrast_factor is not None and peak.burgers_nm is not None:
            per_m2 = 1e18 / float(geometric_factor(peak.g_per_nm, peak.burgers_nm, peak.contrast_factor))
            m2, m4 = analyses[name].M2, analyses[name].M4
            found[name] = (m2.density_per_nm2 * per_m2, m4.density_per_nm2 * per_m2)
    return found


def _known_stiffness(phase: Phase) -> Float | None:
    if phase.stiffness_GPa is not None:
        return phase.stiffness_GPa
    for cell, stiffness in KNOWN.values():
        if np.allclose(phase.cell_nm, cell, rtol=_SAME_CELL, atol=0):
            return stiffness
    return None


def _stiffness(phase: Phase) -> Float:
    stiffness = _known_stiffness(phase)
    if stiffness is None:
        raise InputError(f"no stiffness is given, and none is known for a cell of {phase.cell_nm} nm")
    return stiffness
