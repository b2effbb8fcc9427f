"""Composition from spectra: known mixtures, known noise, published angles."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.observe import spectra as module
from chemomech.observe.spectra import (
    References,
    bootstrap_composition_error,
    fit_spectra,
    nnls,
    polar_angle,
    post_edge_normalise,
)

MEASURED = Path(__file__).parents[2].parent / "shared" / "reference" / "spectra"


def peak(energy, centre, width):
    return 1 / (1 + ((energy - centre) / width) ** 2)


GRID = np.arange(700.0, 721.0, 0.1)
REFERENCES = References(
    GRID,
    {
        "LiFePO4": peak(GRID, 708.2, 1.0) + 0.4 * peak(GRID, 710.5, 1.0) + 0.1,
        "FePO4": 0.5 * peak(GRID, 708.5, 0.8) + peak(GRID, 710.2, 1.0) + 0.1,
    },
)
WITH_CARBON = References(GRID, {**REFERENCES.spectra, "carbon": 0.4 - 0.01 * (GRID - 700)})
ENERGY = np.linspace(704, 716, 25)


def mixture(composition, references=REFERENCES, energy=ENERGY, thickness=1.0):
    """Stack (m, ny, nx) of LiFePO4 and FePO4 without noise."""
    columns = references.at(energy)
    parts = thickness * np.stack([composition, 1 - composition])
    return np.tensordot(columns[:, :2], parts, axes=1)


def noisy(composition, sigma, seed=0, **options):
    clean = mixture(composition, **options)
    return clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


@pytest.fixture(scope="module")
def measured():
    if not MEASURED.is_dir():
        pytest.skip(f"{MEASURED} is not there: spectra of unclear licence are not in this repository")
    return [np.loadtxt(MEASURED / name).T for name in ("fe2_l_edge.txt", "fe3_l_edge.txt")]


def test_mixtures_without_noise_come_back():
    """To rounding, with thickness, whatever the composition; on the bounds too."""
    composition = np.linspace(0, 1, 60).reshape(6, 10)
    thickness = np.linspace(0.01, 3, 60).reshape(6, 10)
    fit = fit_spectra(mixture(composition, thickness=thickness), ENERGY, REFERENCES)
    np.testing.assert_allclose(fit.composition, composition, atol=1e-12)
    np.testing.assert_allclose(fit.coefficients.sum(axis=0), thickness, rtol=1e-12)
    assert fit.names == ("LiFePO4", "FePO4")
    assert fit.r_factor.max() < 1e-14
    assert fit.composition_error.max() < 1e-6


def test_the_share_of_another_compound():
    composition = np.full((2, 3), 0.3)
    fit = fit_spectra(mixture(composition), ENERGY, REFERENCES, of="FePO4")
    np.testing.assert_allclose(fit.composition, 0.7)


def test_r_factor_by_its_definition():
    """Sum of squared residuals over sum of squared data (Ravel & Newville 2005)."""
    stack, weights = noisy(np.full((3, 4), 0.4), 0.1), np.linspace(1, 2, 25)
    fit = fit_spectra(stack, ENERGY, REFERENCES, weights=weights)
    residual = stack - np.tensordot(REFERENCES.at(ENERGY), fit.coefficients, axes=1)
    expected = np.tensordot(weights, residual**2, axes=1) / np.tensordot(weights, stack**2, axes=1)
    np.testing.assert_allclose(fit.r_factor, expected, rtol=1e-10)


@pytest.mark.parametrize("composition", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("background", [None, "constant", "linear"])
def test_mixtures_are_not_biased_and_errors_are_those_of_monte_carlo(composition, background):
    """6400 pixels of one composition: the mean is known to error / 80, their spread to 0.9 %.

    Noise of 2 % keeps clear of the bounds, and the ratio's bias is of order variance (1e-3 of the error squared).
    """
    truth = np.full((80, 80), composition)
    stack = noisy(truth, 0.02)
    fit = fit_spectra(stack, ENERGY, REFERENCES, background=background)
    spread = fit.composition.std()
    assert abs(fit.composition.mean() - composition) < 3.5 * spread / 80
    assert np.sqrt(np.mean(fit.composition_error**2)) == pytest.approx(spread, rel=0.04)
    known = fit_spectra(
        stack, ENERGY, REFERENCES, weights=np.full(25, 1 / 0.02**2), background=background, absolute_weights=True
    )
    assert np.sqrt(np.mean(known.composition_error**2)) == pytest.approx(spread, rel=0.04)


def test_errors_follow_the_noise_of_each_pixel():
    """Thin pixels have larger errors; 95 % of 6400 pixels lie within 1.97 errors (t of about 23 degrees: 2.07)."""
    thickness = np.broadcast_to(np.linspace(0.3, 3, 80), (80, 80))
    truth = np.full((80, 80), 0.5)
    fit = fit_spectra(noisy(truth, 0.02, thickness=thickness), ENERGY, REFERENCES)
    within = np.abs(fit.composition - truth) < 2.07 * fit.composition_error
    assert np.mean(within) == pytest.approx(0.95, abs=0.01)
    assert np.mean(within[:, :10]) == pytest.approx(0.95, abs=0.03)


def test_pure_pixels_keep_an_error():
    """Half of them sit on the bound; their error must cover the pixels that are really at 0.99.

    Of X = 1 the estimate's root mean square error is 0.71 of the free one's; errors may be too large by that, not zero.
    """
    fit = fit_spectra(noisy(np.ones((60, 60)), 0.02), ENERGY, REFERENCES)
    on_bound = fit.composition == 1
    assert 0.4 < on_bound.mean() < 0.6
    actual = np.sqrt(np.mean((fit.composition - 1) ** 2))
    assert actual < np.sqrt(np.mean(fit.composition_error[on_bound] ** 2)) < 1.6 * actual


def test_an_absent_third_compound_widens_errors_only_where_it_is_used():
    """Propagation through the active set: with carbon at zero the error is that of two references."""
    stack = noisy(np.full((60, 60), 0.5), 0.02)
    three, two = (fit_spectra(stack, ENERGY, references) for references in (WITH_CARBON, REFERENCES))
    unused = three.coefficients[2] == 0
    assert 0.3 < unused.mean() < 0.7
    np.testing.assert_allclose(three.composition_error[unused], two.composition_error[unused], rtol=1e-9)
    np.testing.assert_allclose(three.composition[unused], two.composition[unused], rtol=1e-9)


def test_bootstrap_agrees_with_propagation_for_white_noise():
    """25 energies, 100 draws: a draw has fewer degrees of freedom, which costs some per cent; 12 % covers both."""
    stack = noisy(np.full((15, 20), 0.5), 0.03)
    mask = np.ones((15, 20), bool)
    mask[3, 4] = False
    error = bootstrap_composition_error(stack, ENERGY, REFERENCES, mask)
    propagated = fit_spectra(stack, ENERGY, REFERENCES, mask).composition_error
    assert np.isnan(error[3, 4])
    assert np.nanmean(error) == pytest.approx(np.nanmean(propagated), rel=0.12)
    again = bootstrap_composition_error(stack, ENERGY, REFERENCES, mask)
    np.testing.assert_array_equal(error, again)


def test_bootstrap_sees_references_that_do_not_fit():
    """A spectrum with a peak of its own: its error does not shrink with the noise."""
    wrong = mixture(np.full((3, 3), 0.5)) + 0.2 * peak(ENERGY, 713, 0.7)[:, None, None]
    assert bootstrap_composition_error(wrong, ENERGY, REFERENCES).min() > 0.01


@pytest.mark.parametrize("background", ["constant", "linear"])
def test_backgrounds_of_either_sign_are_found(background):
    truth = np.full((2, 2), 0.6)
    x = np.linspace(-1, 1, 25) * (background == "linear")
    fit = fit_spectra(mixture(truth) - 0.05 + 0.1 * x[:, None, None], ENERGY, REFERENCES, background=background)
    np.testing.assert_allclose(fit.composition, truth, atol=1e-12)
    np.testing.assert_allclose(fit.background[0], -0.05, atol=1e-12)
    if background == "linear":
        np.testing.assert_allclose(fit.background[1], 0.1, atol=1e-12)


def test_masks_and_missing_pixels():
    stack = noisy(np.full((5, 6), 0.5), 0.01)
    mask = np.ones((5, 6), bool)
    mask[0] = False
    stack[3, 2, 2] = np.nan
    stack[:, 1, 1] = 0
    fit = fit_spectra(stack, ENERGY, REFERENCES, mask)
    missing = ~mask
    missing[2, 2] = True
    assert np.isnan(fit.coefficients[:, missing]).all()
    assert np.isfinite(fit.coefficients[:, ~missing]).all()
    missing[1, 1] = True  # no material, no composition
    for values in (fit.composition, fit.composition_error, fit.r_factor):
        np.testing.assert_array_equal(np.isnan(values), missing)


@pytest.mark.parametrize("store", ["hdf5", "chunked hdf5", "memmap"])
def test_stacks_on_disk_are_read_in_slabs(tmp_path, monkeypatch, store):
    """A slab of 20 kB holds a few rows of 25 x 40 float64."""
    monkeypatch.setattr(module, "_CHUNK", 20_000)
    stack = noisy(np.random.default_rng(1).random((31, 40)), 0.02).astype(np.float32)
    expected = fit_spectra(stack, ENERGY, REFERENCES, background="constant")
    bootstrap = bootstrap_composition_error(stack, ENERGY, REFERENCES, samples=5)
    if store == "memmap":
        stack.tofile(tmp_path / "stack")
        on_disk = np.memmap(tmp_path / "stack", np.float32, "r", shape=stack.shape)
    else:
        file = h5py.File(tmp_path / "stack.h5", "w")
        chunks = (5, 4, 40) if store == "chunked hdf5" else None
        on_disk = file.create_dataset("od", data=stack, chunks=chunks)
        assert len(list(module._slabs(on_disk))) > 2
    fit = fit_spectra(on_disk, ENERGY, REFERENCES, background="constant")
    for name in ("coefficients", "background", "composition", "composition_error", "r_factor"):
        np.testing.assert_allclose(getattr(fit, name), getattr(expected, name), rtol=1e-9, atol=1e-12)
    again = bootstrap_composition_error(on_disk, ENERGY, REFERENCES, samples=5)
    np.testing.assert_allclose(again, bootstrap, rtol=1e-9)


def test_yus_polar_angles(measured):
    """Yu et al. (2018): 27.5 to 27.9 degrees at X = 0.93 and 64.4 to 64.5 at X = 0.02, from post-edge 730 to 750 eV."""
    at = [np.interp([708.2, 710.2], energy, post_edge_normalise(energy, values)) for energy, values in measured]
    angle = {x: polar_angle(*(x * at[0] + (1 - x) * at[1])) for x in (0.93, 0.02)}
    assert 27.5 < angle[0.93] < 27.9
    assert 64.4 < angle[0.02] < 64.5


def test_measured_references_return_simulated_mixtures_without_bias(measured):
    """Five energies as in operando films and a whole edge, X from 0.1 to 0.9: 4000 pixels a composition."""
    grid = np.arange(700, 730, 0.05)
    spectra = [np.interp(grid, energy, post_edge_normalise(energy, values)) for energy, values in measured]
    references = References(grid, dict(zip(("LiFePO4", "FePO4"), spectra, strict=True)))
    truth = np.repeat(np.array([0.1, 0.3, 0.5, 0.7, 0.9])[:, None], 4000, axis=1)
    for energy in (np.array([704.0, 706.5, 708.2, 710.2, 713.0]), np.linspace(702, 728, 60)):
        fit = fit_spectra(noisy(truth, 0.1, references=references, energy=energy), energy, references)
        standard_error = fit.composition.std(axis=1) / np.sqrt(4000)
        assert (np.abs(fit.composition.mean(axis=1) - truth[:, 0]) < 3.5 * standard_error).all()
        rms = np.sqrt(np.mean(fit.composition_error**2, axis=1))
        np.testing.assert_allclose(rms, fit.composition.std(axis=1), rtol=0.06)


def test_post_edge_mean_is_the_integral():
    """Of a straight line through (730, 1) and (750, 3) it is 2, however the points lie."""
    energy = np.array([700, 729, 730.5, 731, 749, 760])
    values = 1 + (energy - 730) / 10
    np.testing.assert_allclose(post_edge_normalise(energy, values), values / 2)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((740, 770), "the window 740 to 770 eV is not within the energies 700 to 760 eV"),
        ((700, 720), "a mean of -1 from"),
    ],
)
def test_bad_post_edge(window, message):
    with pytest.raises(InputError, match=message):
        post_edge_normalise([700, 730, 760], [-1, -1, 5], window)


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        ([690, 705, 730], r"2 of 3 energies lie outside the references \(700 to 720.9 eV\): 690, 730"),
        ([705, 706, 706], r"energies must increase, but number 2 \(from 0\), 706 eV, repeats"),
        ([705, 708.2, 706], "energies must increase, but number 2 .from 0., 706 eV, follows 708.2"),
        ([705, np.nan, 706], "energies are not finite at 1 places"),
        ([], "energies are empty"),
    ],
)
def test_bad_energies(energy, message):
    with pytest.raises(InputError, match=message):
        REFERENCES.at(energy)


@pytest.mark.parametrize(
    ("energy", "spectra", "message"),
    [
        ([1, 2], {}, "references hold no spectrum"),
        ([1, 2], {"a": [1, 2, 3]}, r"reference a must have shape \(2\), got \(3,\)"),
        ([1, 2], {"a": [1, np.inf]}, "reference a is not finite at 1 energies"),
        ([2, 1], {"a": [1, 2]}, "energies of the references must increase"),
    ],
)
def test_bad_references(energy, spectra, message):
    with pytest.raises(InputError, match=message):
        References(energy, spectra)


def same_twice():
    return References(GRID, {"LiFePO4": REFERENCES.spectra["FePO4"], "FePO4": 2 * REFERENCES.spectra["FePO4"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stack": np.ones((7, 4, 4))}, r"stack has shape \(7, 4, 4\), but there are 25 energies"),
        ({"stack": np.ones((25, 4))}, r"must have shape \(25, ny, nx\)"),
        ({"mask": np.ones((4, 5), bool)}, r"mask must have shape \(4, 4\), got \(4, 5\)"),
        ({"weights": np.ones(3)}, r"weights must have shape \(25\), got \(3,\)"),
        ({"weights": -np.ones(25)}, "weights must be >= 0"),
        ({"background": "quadratic"}, "background must be None, 'constant' or 'linear', got 'quadratic'"),
        ({"of": "Fe"}, "there is no reference 'Fe'; the references are LiFePO4, FePO4"),
        (
            {"energy_eV": [705, 706], "stack": np.ones((2, 4, 4)), "background": "constant"},
            "2 energies cannot determine 3",
        ),
        ({"references": same_twice()}, "LiFePO4, FePO4 cannot be told apart at the 25 energies"),
        ({"stack": -mixture(np.full((4, 4), 0.5))}, "mostly negative at 100 % of the pixels with signal"),
    ],
)
def test_bad_input(options, message):
    arguments = {"stack": np.ones((25, 4, 4)), "energy_eV": ENERGY, "references": REFERENCES} | options
    with pytest.raises(InputError, match=message):
        fit_spectra(**arguments)


def test_a_few_negative_pixels_are_counted_and_noise_around_the_particle_is_not():
    stack = 0.01 * np.random.default_rng(0).standard_normal((25, 20, 20))
    stack[:, 5:15, 5:15] += mixture(np.full((10, 10), 0.5))
    assert fit_spectra(stack, ENERGY, REFERENCES).negative_fraction == 0
    stack[:, 5, 5:8] *= -1
    assert fit_spectra(stack, ENERGY, REFERENCES).negative_fraction == pytest.approx(0.03)


def test_bad_bootstrap():
    with pytest.raises(InputError, match="at least 2 samples, got 1"):
        bootstrap_composition_error(np.ones((25, 2, 2)), ENERGY, REFERENCES, samples=1)
    energy = [705.0, 708, 711, 714]
    with pytest.raises(InputError, match="4 energies are too few to resample with 4 unknowns"):
        bootstrap_composition_error(np.ones((4, 2, 2)), energy, REFERENCES, background="linear", samples=20)


def test_nnls_has_its_public_place():
    np.testing.assert_allclose(nnls(np.eye(2), [[1.0, -1.0]]), [[1.0, 0.0]])
