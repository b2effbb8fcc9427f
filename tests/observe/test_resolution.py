"""Resolution, interface widths and classes, on objects whose answers are known."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import erf

from chemomech.errors import InputError
from chemomech.observe.resolution import (
    composition_histogram,
    fourier_ring_correlation,
    interface_profiles,
    phase_class,
)

PIXEL = 5.0


def two_views(sigma, noise, shape=(256, 320), seed=0):
    """White noise of unit power behind a Gaussian of `sigma` pixels, twice, each with white noise of its own."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.standard_normal(shape), sigma, mode="wrap")
    return (field + noise * random.standard_normal(shape) for _ in range(2))


def expected_correlation(frequency, sigma, noise):
    """S / (S + N) with S = exp(-(2 pi f sigma)^2), N = noise^2."""
    signal = np.exp(-((2 * np.pi * frequency * sigma * PIXEL) ** 2))
    return signal / (signal + noise**2)


def test_rings_follow_the_analytic_correlation():
    """Opposite pixels of a spectrum are one (2) and the Hann window correlates neighbours ((35/18)^2): a ring of n
    pixels is worth n / 7.6 independent ones, and four standard deviations hold for a hundred rings."""
    sigma, noise = 1.5, 0.1
    found = fourier_ring_correlation(*two_views(sigma, noise), PIXEL)
    expected = expected_correlation(found.frequency_per_nm, sigma, noise)
    scatter = np.sqrt(7.6 / found.pixels)
    assert (np.abs(found.correlation - expected) < 4 * scatter).all()
    assert np.sqrt(np.mean((found.correlation - expected) ** 2)) < np.sqrt(np.mean(scatter**2))


@pytest.mark.parametrize(("sigma", "noise"), [(1.5, 0.1), (2.5, 0.03), (2.0, 0.3)])
def test_resolution_is_where_signal_meets_noise(sigma, noise):
    """0.5 is crossed at f = sqrt(ln(1 / N)) / (2 pi sigma), half-bit where the analytic curve meets the threshold of
    the rings' sizes. The scatter of a ring there, 0.1, over the slope of the curve is 3 to 7 % of the frequency, and
    the first of several rings within it counts, so a half-bit resolution is rather read too coarse."""
    found = fourier_ring_correlation(*two_views(sigma, noise, (512, 512)), PIXEL)
    half = np.sqrt(np.log(1 / noise**2)) / (2 * np.pi * sigma * PIXEL)
    assert found.resolution_nm("0.5") == pytest.approx(1 / half, rel=0.05)
    curve = expected_correlation(found.frequency_per_nm, sigma, noise)
    bit = found.frequency_per_nm[np.flatnonzero(curve < found.half_bit)[0]]
    assert found.resolution_nm() == pytest.approx(1 / bit, rel=0.15)
    assert found.resolution_nm() < found.resolution_nm("0.5")


def test_sharp_images_have_no_limit_within_their_band():
    image = np.random.default_rng(0).standard_normal((64, 64))
    assert np.isnan(fourier_ring_correlation(image, image, PIXEL).resolution_nm())


def test_half_bit_is_half_a_bit_for_wide_rings():
    """log2(1 + 2 * S / N) = 0.5 for the sum of two images with S / N each: a correlation of 0.1716."""
    found = fourier_ring_correlation(*two_views(1.0, 0.1), PIXEL)
    wide = type(found)(np.ones(1), np.ones(1), np.array([1e12]))
    ratio = (np.sqrt(2) - 1) / 2
    assert wide.half_bit[0] == pytest.approx(ratio / (1 + ratio), abs=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((20, 20)), np.zeros((20, 21)), r"second must have shape \(20, 20\), got \(20, 21\)"),
        (np.zeros((8, 20)), np.zeros((8, 20)), r"at least 16 x 16 pixels, got \(8, 20\)"),
        (np.eye(20), np.full((20, 20), np.nan), "second is not finite at 400 pixels"),
        (np.ones((20, 20)), np.eye(20), "first has no contrast: every pixel is 1"),
    ],
)
def test_unusable_images_are_refused(first, second, message):
    with pytest.raises(InputError, match=message):
        fourier_ring_correlation(first, second, PIXEL)


def test_unrelated_images_have_no_resolution():
    first, _ = two_views(1.0, 0.0)
    with pytest.raises(InputError, match="do not show the same object"):
        fourier_ring_correlation(first, -first, PIXEL).resolution_nm()
    with pytest.raises(InputError, match=r"criterion must be 'half-bit' or '0\.5', got '3-sigma'"):
        fourier_ring_correlation(first, first, PIXEL).resolution_nm("3-sigma")


def boundary(angle_deg, shape=(60, 80), pixel=20.0):
    """Mask of a disc and the distance (nm) to a straight line through its centre at an angle."""
    y, x = (pixel * (axis - (n - 1) / 2) for axis, n in zip(np.indices(shape), shape, strict=True))
    angle = np.deg2rad(angle_deg)
    return np.hypot(x, y) < 560, x * np.cos(angle) + y * np.sin(angle)


@pytest.mark.parametrize("angle", [0, 30, 90, 217])
def test_error_function_boundaries_have_their_width(angle):
    """Cubic interpolation of an edge with sigma = 2.5 pixels errs by less than a per cent, also when tilted."""
    mask, distance = boundary(angle)
    composition = 0.5 + 0.47 * erf(distance / (np.sqrt(2) * 50))
    found = interface_profiles(composition, composition, mask, 20.0, half_length_nm=250)
    assert len(found.values) > 20
    np.testing.assert_allclose(found.width_nm, 2.5631 * 50, rtol=0.01)
    # Straight lines between samples 10 nm apart, and outer quarters that still hold a trace of the step.
    np.testing.assert_allclose(found.direct_width_nm, 2.5631 * 50, rtol=0.02)
    along = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    np.testing.assert_allclose(found.centre_nm @ along, 0, atol=1)


def test_tanh_boundaries_have_their_direct_width():
    """10-90 % of tanh(s / d) is 2 artanh(0.8) d = 2.197 d; the fitted error function is a little narrower."""
    mask, distance = boundary(20)
    composition = 0.5 + 0.5 * np.tanh(distance / 60)
    found = interface_profiles(composition, composition, mask, 20.0, half_length_nm=350)
    np.testing.assert_allclose(found.direct_width_nm, 2.1972 * 60, rtol=0.02)
    np.testing.assert_allclose(found.width_nm, 2.1972 * 60, rtol=0.1)


def test_the_lattice_parameter_is_profiled_across_the_same_boundary():
    """Another width, falling instead of rising, a centre beside X = 0.5, and noise whose effect on a width averages."""
    mask, distance = boundary(-35)
    random = np.random.default_rng(0)
    composition = 0.5 + 0.47 * erf(distance / (np.sqrt(2) * 40)) + 0.02 * random.standard_normal(mask.shape)
    lattice = 10.1 - 0.25 * erf((distance - 20) / (np.sqrt(2) * 60)) + 0.01 * random.standard_normal(mask.shape)
    found = interface_profiles(lattice, composition, mask, 20.0, half_length_nm=250)
    standard_error = found.std_width_nm / np.sqrt(len(found.width_nm))
    # Profiles a pixel apart share interpolation weights: about half as many are independent.
    assert abs(found.mean_width_nm - 2.5631 * 60) < 3 * np.sqrt(2) * standard_error + 0.01 * found.mean_width_nm
    assert 0 < found.std_width_nm < 0.2 * found.mean_width_nm
    assert found.values[:, 0].mean() > found.values[:, -1].mean()


def test_profiles_stay_inside_the_particle():
    mask, distance = boundary(0)
    composition = np.where(mask, 0.5 + 0.47 * erf(distance / 70), np.nan)
    found = interface_profiles(composition, composition, mask, 20.0, half_length_nm=300)
    # The disc of 560 nm is 300 nm deep where |y| < 470 nm.
    assert np.abs(found.centre_nm[:, 1]).max() < 480
    assert np.isfinite(found.values).all()


def test_a_particle_without_boundary_is_refused():
    mask, _ = boundary(0)
    with pytest.raises(InputError, match=r"0 of 0 profiles across X = 0\.5 stay inside"):
        interface_profiles(np.ones(mask.shape), np.ones(mask.shape), mask, 20.0, half_length_nm=200)
    with pytest.raises(InputError, match="composition is not finite at"):
        interface_profiles(np.ones(mask.shape), np.full(mask.shape, np.nan), mask, 20.0, half_length_nm=200)


def test_histogram_is_a_density_that_loses_no_pixel():
    mask, distance = boundary(0)
    composition = 0.5 + 0.52 * np.tanh(distance / 60)
    density, edges = composition_histogram(composition, mask)
    assert (density * np.diff(edges)).sum() == pytest.approx(1, abs=1e-12)
    assert edges[0] <= composition[mask].min()
    assert edges[-1] >= composition[mask].max()
    with pytest.raises(InputError, match="mask is empty"):
        composition_histogram(composition, np.zeros_like(mask))


@pytest.mark.parametrize(
    ("mean", "expected"), [(-0.01, "FP"), (0.15, "FP"), (0.151, "LXFP"), (0.849, "LXFP"), (0.85, "LFP"), (1.02, "LFP")]
)
def test_classes_follow_the_mean_composition(mean, expected):
    assert phase_class(mean) == expected


def test_an_unknown_mean_has_no_class():
    with pytest.raises(InputError, match="mean_composition must be finite, got nan"):
        phase_class(float("nan"))
