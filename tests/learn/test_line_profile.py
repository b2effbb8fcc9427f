"""Peaks joined to phases, standards and systems."""

from dataclasses import replace

import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.learn.line_profile import KNOWN, Peak, Phase, Powder, analyse_powder, factors
from chemomech.mechanics.slip_systems import SLIP_SYSTEMS
from chemomech.observe.line_profile import analyse_peak
from profiles import counted, wilkens_peak

CELL, STIFFNESS = KNOWN["LiFePO4"]
Q = np.linspace(-0.6, 0.6, 1601)
D = next(system for system in SLIP_SYSTEMS if system.label == "D")


def peak(hkl, density, seed=0):
    counts = counted(wilkens_peak(Q, density, 80, 300), Q, top=1e6, background=40, seed=seed)
    return Peak(hkl, float(np.linalg.norm(np.divide(hkl, CELL))), Q, counts)


def standard(g, width):
    return Peak((1, 0, 0), g, Q, 1e6 * np.exp(-((Q / width) ** 2) / 2) + 20)


def test_the_standard_nearest_in_g_corrects_a_peak():
    measured, near, far = peak((1, 0, 1), 4e-4), standard(2.4, 0.003), standard(4.0, 0.008)
    found = analyse_powder(Powder({"1 0 1": measured}, {"powder": Phase(CELL)}, [far, near]))
    alone = analyse_peak(Q, measured.intensity, instrument=(near.q_per_nm, near.intensity))
    assert found.peaks["1 0 1"].M2 == alone.M2


def test_one_peak_tells_no_systems_and_no_line():
    found = analyse_powder(Powder({"1 0 1": peak((1, 0, 1), 4e-4)}, {"powder": Phase(CELL)}))
    assert found.systems is None
    assert found.williamson_hall is None
    assert any("needs two peaks" in warning for warning in found.warnings)


def test_one_system_comes_back_with_its_density():
    """Two peaks made by 500 1/um^2 of system D alone, the only system asked for: within 5 %."""
    hkls = [(1, 0, 1), (3, 0, 1)]
    bare = [Peak(hkl, float(np.linalg.norm(np.divide(hkl, CELL))), Q, Q) for hkl in hkls]
    density = 500e-6 * factors(Phase(CELL), [D], bare)[:, 0]
    peaks = {str(hkl): peak(hkl, value, seed) for seed, (hkl, value) in enumerate(zip(hkls, density, strict=True))}
    found = analyse_powder(Powder(peaks, {"powder": Phase(CELL)}, systems=[D]))
    assert found.systems.density_per_um2 == pytest.approx([500], rel=0.05)
    assert found.systems.explained > 0.95
    assert found.warnings == []


def test_g_that_belongs_to_another_cell_is_said():
    wrong = replace(peak((1, 0, 1), 4e-4), g_per_nm=0.2317)
    found = analyse_powder(Powder({"1 0 1": wrong}, {"powder": Phase(CELL)}))
    assert any("g_per_nm is 0.2317, but the cell gives 2.317" in warning for warning in found.warnings)


def test_the_stiffness_of_an_unknown_cell_is_not_guessed():
    with pytest.raises(InputError, match="none is known for a cell"):
        factors(Phase((0.9, 0.6, 0.47)), [D], [peak((1, 0, 1), 4e-4)])
    measured = factors(Phase((1.0332, 0.601, 0.4692)), [D], [peak((1, 0, 1), 4e-4)])  # LiFePO4 as diffraction finds it
    assert measured == pytest.approx(factors(Phase(CELL, STIFFNESS), [D], [peak((1, 0, 1), 4e-4)]), rel=0.05)
