"""Known dislocation densities and sizes come back from the peaks they broaden, and the errors are honest."""

import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.observe.line_profile import analyse_peak, restricted_moment, williamson_hall
from profiles import SIMULATED, counted, simulated_peak, wilkens_function, wilkens_peak

#: rho* (1/nm^2), cut-off radius (nm), size (nm), half range (1/nm). R sqrt(rho*) from 0.8 to 2.1; peaks made by
#: dislocations alone, by both, and mostly by size.
SAMPLES = [(2e-4, 150, 400, 0.5), (2e-4, 60, np.inf, 0.5), (1e-3, 60, 200, 0.8), (5e-5, 300, 500, 0.4)]


def grid(half_range, points=1601):
    return np.linspace(-half_range, half_range, points)


def test_the_reference_function_is_smooth_where_its_pieces_meet():
    """Both pieces of Wilkens' function agree at 1 and with its series near 0."""
    assert wilkens_function(1 - 1e-9) == pytest.approx(wilkens_function(1 + 1e-9), abs=1e-4)
    assert wilkens_function(0.0501) == pytest.approx(wilkens_function(0.0499), abs=5e-3)


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("seed", range(3))
def test_density_and_size_come_back(sample, seed):
    """1e7 counts in the maximum leave errors of 1.2 to 2.9 %; the limit of 5 % is two of them."""
    density, cutoff, size, half_range = sample
    q = grid(half_range)
    peak = analyse_peak(q, counted(wilkens_peak(q, density, cutoff, size), q, top=1e7, background=50, seed=seed))
    assert peak.M2.density_per_nm2 == pytest.approx(density, rel=0.05)
    assert peak.M4.density_per_nm2 == pytest.approx(density, rel=0.05)
    assert peak.consistent
    if np.isfinite(size):
        assert peak.M2.size_nm == pytest.approx(size, rel=0.05)
    else:
        assert peak.M2.size_nm > 3000  # beyond what the range can show


def test_errors_are_honest_at_fewer_counts():
    """Deviations in units of the standard error: 40 experiments at 1e4 to 1e6 counts, two moments each."""
    scores = []
    for density, cutoff, size, half_range in SAMPLES[:2]:
        q = grid(half_range)
        clean = wilkens_peak(q, density, cutoff, size)
        for top in (1e4, 1e6):
            for seed in range(10):
                peak = analyse_peak(q, counted(clean, q, top=top, background=20, seed=seed))
                scores += [(fit.density_per_nm2 - density) / fit.density_error for fit in (peak.M2, peak.M4)]
    # The truncation part is an upper estimate, so the scores are narrower than a normal distribution's, not wider.
    assert np.mean(np.square(scores)) < 1
    assert np.mean(np.abs(scores) > 2) <= 0.05


def test_the_expansion_alone_is_good_to_three_per_cent():
    """Without noise what is left is the part of the expansion that is not kept: below 3.5 %."""
    for density, cutoff, size, half_range in [*SAMPLES, (2e-4, 500, 300, 0.5), (2e-4, 150, 100, 0.5)]:
        q = grid(half_range)
        clean = wilkens_peak(q, density, cutoff, size)
        peak = analyse_peak(q, 1e6 * clean / clean.max() + 20)
        assert peak.M2.density_per_nm2 == pytest.approx(density, rel=0.03)
        assert peak.M4.density_per_nm2 == pytest.approx(density, rel=0.035)


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0), (1, 0.01)])
def test_scale_and_centre_do_not_matter(scale, shift):
    """Counts may be normalised and q = 0 may lie beside the peak."""
    q = grid(0.5)
    counts = counted(wilkens_peak(q, 2e-4, 100, 400), q, top=1e6, background=20, seed=4)
    plain, other = analyse_peak(q, counts), analyse_peak(q + shift, scale * counts)
    assert other.M2.density_per_nm2 == pytest.approx(plain.M2.density_per_nm2, rel=1e-3)
    assert other.M2.density_error == pytest.approx(plain.M2.density_error, rel=1e-2)
    assert other.shift_per_nm == pytest.approx(plain.shift_per_nm + shift, abs=1e-6)


def test_the_background_is_found_beneath_the_tails():
    """Fitted with them; the lowest counts of the range lie a fifth higher."""
    q = grid(0.4)
    clean = wilkens_peak(q, 5e-5, 300, 500)
    peak = analyse_peak(q, counted(clean, q, top=1e7, background=50, seed=0))
    assert peak.M2.background == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("seed", range(2))
def test_the_instrument_is_taken_out(seed):
    """A standard as wide as the peak itself, with Lorentzian tails; uncorrected the size is 20 % too small."""
    q, density, size = grid(0.6, 2401), 4e-4, 300.0
    kernel = np.exp(-((q / 0.006) ** 2) / 2) + 0.02 / (1 + (q / 0.006) ** 2)
    folded = np.convolve(wilkens_peak(q, density, 80, size), kernel / kernel.sum(), mode="same")
    counts = counted(folded, q, top=1e7, background=50, seed=seed)
    standard = counted(kernel, q, top=1e7, background=50, seed=seed + 10)
    peak, raw = analyse_peak(q, counts, instrument=(q, standard)), analyse_peak(q, counts)
    assert peak.M2.density_per_nm2 == pytest.approx(density, rel=0.05)
    assert peak.M4.density_per_nm2 == pytest.approx(density, rel=0.05)
    assert peak.M2.size_nm == pytest.approx(size, rel=0.05)
    assert raw.M2.size_nm < 0.85 * size


@pytest.mark.skipif(not SIMULATED.exists(), reason="reference data of another origin is not beside the project")
@pytest.mark.parametrize("order", [4, 5])
@pytest.mark.parametrize("name", ["screw_circle", "screw_pbc_01", "screw_pbc_02", "screw_pbc_03"])
def test_simulated_crystals_give_their_density(name, order):
    """Within 15 %, the error of the method, at the orders whose tails stand above the speckle of one configuration."""
    q, intensity, density = simulated_peak(SIMULATED / f"{name}.dat", order)
    peak = analyse_peak(q, intensity)
    assert peak.M2.density_per_nm2 == pytest.approx(density, rel=0.15)
    assert peak.M4.density_per_nm2 == pytest.approx(density, rel=0.15)


@pytest.mark.skipif(not SIMULATED.exists(), reason="reference data of another origin is not beside the project")
def test_simulated_crystals_give_their_density_on_average():
    """At orders 2 and 3 speckle moves single crystals by up to 20 %; their mean is within 10 %."""
    found = []
    for path in sorted(SIMULATED.glob("*.dat")):
        for order in (2, 3):
            q, intensity, density = simulated_peak(path, order)
            peak = analyse_peak(q, intensity)
            found.append([peak.M2.density_per_nm2 / density, peak.M4.density_per_nm2 / density])
    assert np.mean(found, axis=0) == pytest.approx([1, 1], abs=0.1)


def test_moments_of_a_flat_profile():
    """The integral of r^k from -q to q is 2 q^(k+1) / (k+1); the last point stands for its whole cell."""
    q = np.linspace(-1, 1, 4001)
    for order in (2, 4):
        limit, moment = restricted_moment(q, np.ones_like(q), order)
        assert moment[-1] == pytest.approx(2 / (order + 1), rel=1.5e-3)
        assert np.interp(0.5, limit, moment) == pytest.approx(2 * 0.5 ** (order + 1) / (order + 1), rel=5e-3)


def test_williamson_hall_line():
    hall = williamson_hall([2.0, 3.0, 4.0], [0.012, 0.013, 0.014])
    assert (hall.size_nm, hall.strain) == pytest.approx((100, 0.0005))
    assert williamson_hall([2.0, 4.0], [0.01, 0.02]).size_nm > 1e6
    with pytest.raises(InputError, match="two different g"):
        williamson_hall([2.0, 2.0], [0.01, 0.02])


def ordinary():
    q = grid(0.5)
    return q, counted(wilkens_peak(q, 2e-4, 100, 400), q, top=1e6, background=20, seed=0)


def second_peak(q, y):
    return q, y + 1e5 * np.exp(-(((q - 0.25) / 0.02) ** 2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda q, y: (q[::30], y[::30]), "54 points do not show the tails"),
        (lambda q, y: (q, y[:-1]), "intensity must have shape"),
        (lambda q, y: (q[::-1], y), "must increase, and does not from point 0 to 1"),
        (lambda q, y: (q, np.where(np.arange(len(y)) == 7, -1, y)), "negative at 1 points, first at 7"),
        (lambda q, y: (q, np.where(np.arange(len(y)) == 7, np.nan, y)), "must be finite, 1 are not"),
        (lambda q, y: (q, np.full_like(y, 3)), "there is no peak"),
        (lambda q, y: (q[q > -0.02], y[q > -0.02]), "edge of its range: .* on its left"),
        (lambda q, y: (q[q > 0], y[q > 0]), "edge of its range"),
        (second_peak, "another peak overlaps this one"),
    ],
)
def test_peaks_that_cannot_be_used_are_refused(spoil, message):
    with pytest.raises(InputError, match=message):
        analyse_peak(*spoil(*ordinary()))


def test_a_bad_standard_is_named():
    q, y = ordinary()
    with pytest.raises(InputError, match="instrument: intensity is negative"):
        analyse_peak(q, y, instrument=(q, -y))
