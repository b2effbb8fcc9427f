"""Lattice parameters from Bragg disks, and lattice maps."""

import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.observe.diffraction import LatticeMaps, lattice_from_disks, pad_disks

A_NM, C_NM = 1.033, 0.469
GUESS = np.diag([1 / A_NM, 1 / C_NM])
INDICES = np.stack(np.mgrid[-5:6, -3:4], axis=-1).reshape(-1, 2)


def reciprocal(real):
    """Rows a*, c* of real vectors in rows: a . a* = c . c* = 1, a . c* = 0."""
    (a_x, a_y), (c_x, c_y) = np.moveaxis(real, (-2, -1), (0, 1))
    rows = [np.stack([c_y, -c_x], axis=-1), np.stack([-a_y, a_x], axis=-1)]
    return np.stack(rows, axis=-2) / (a_x * c_y - a_y * c_x)[..., None, None]


def known_lattices(ny=4, nx=5):
    """Lattices some per cent and some degrees away from the guess: parameters (ny, nx, 4) and real vectors."""
    random = np.random.default_rng(3)
    a, c = (
        A_NM * random.uniform(0.94, 1.05, (ny, nx)),
        C_NM * random.uniform(0.96, 1.04, (ny, nx)),
    )
    from_x, from_y = random.uniform(-0.04, 0.04, (2, ny, nx))
    real = np.stack(
        [
            np.stack([a * np.cos(from_x), a * np.sin(from_x)], axis=-1),
            np.stack([-c * np.sin(from_y), c * np.cos(from_y)], axis=-1),
        ],
        axis=-2,
    )
    return np.stack([a, c, from_x - from_y, (from_x + from_y) / 2], axis=-1), real


def parameters(fit):
    return np.stack([fit.a_nm, fit.c_nm, fit.gamma, fit.theta], axis=-1)


def test_a_known_lattice_is_recovered_to_rounding():
    """Also with a wandering origin, missing disks, stray ones between the lattice points, and any order of them.

    Five per cent shift the fifth order by a quarter of a spacing, which labels by the guess alone would not survive.
    """
    expected, real = known_lattices()
    random = np.random.default_rng(4)
    position = INDICES @ reciprocal(real) + random.uniform(-0.05, 0.05, (4, 5, 1, 2))
    intensity = random.uniform(0.1, 10, position.shape[:3])
    missing = random.uniform(size=intensity.shape) < 0.2
    position[missing], intensity[missing] = np.nan, 0
    stray = np.array([[0.5, 0.5], [-1.5, 2.5]]) @ reciprocal(real)
    order = random.permutation(len(INDICES) + 2)
    position = np.concatenate([position, stray], axis=2)[:, :, order]
    intensity = np.concatenate([intensity, np.full((4, 5, 2), 5.0)], axis=2)[:, :, order]
    fit = lattice_from_disks(position, intensity, GUESS)
    np.testing.assert_allclose(parameters(fit), expected, atol=1e-13)
    np.testing.assert_array_equal(fit.n_disks, (~missing).sum(axis=-1))
    assert np.nanmax(fit.deviation) < 1e-13


def test_small_displacement_gradients_give_strain_and_rotation():
    """u = G (x, y): eps_aa = du/dx, eps_cc = dv/dy, gamma = du/dy + dv/dx, theta = (dv/dx - du/dy) / 2.

    The gradients are 1e-5, so what is of second order in them is 1e-10.
    """
    gradient = 1e-5 * np.random.default_rng(5).standard_normal((2, 3, 2, 2))
    real = np.diag([A_NM, C_NM]) @ (np.eye(2) + gradient).swapaxes(-1, -2)
    position = INDICES @ reciprocal(real)
    disks = position + 1e-9 * np.random.default_rng(6).standard_normal(position.shape)  # else no uncertainty at all
    maps = lattice_from_disks(disks, np.ones(disks.shape[:3]), GUESS).maps(
        2.0, a_reference_nm=A_NM, c_reference_nm=C_NM
    )
    (du_dx, du_dy), (dv_dx, dv_dy) = np.moveaxis(gradient, (-2, -1), (0, 1))
    expected = np.stack([du_dx, dv_dy, du_dy + dv_dx, (dv_dx - du_dy) / 2], axis=-1)
    np.testing.assert_allclose(maps.distortion, expected, atol=2e-9)
    assert maps.mask.all()


@pytest.mark.parametrize(("reach", "n_disks"), [((2, 2), 25), ((5, 3), 77)])
@pytest.mark.parametrize("poisson", [False, True])
def test_the_uncertainty_is_that_of_repeated_measurements(reach, n_disks, poisson):
    """Leaving half out overestimates by 3.5/n as documented; 5000 repetitions know the ratio to 2 %.

    With intensities the position noise is that of counting, 1/sqrt(I); unequal weights act like fewer disks.
    """
    indices = np.stack(np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1], axis=-1).reshape(-1, 2)
    random = np.random.default_rng(7)
    intensity = random.uniform(0.5, 2, (1, 1, n_disks)) if poisson else np.ones((1, 1, n_disks))
    noise = 0.004 * random.standard_normal((1, 5000, n_disks, 2)) / np.sqrt(intensity)[..., None]
    fit = lattice_from_disks(indices @ GUESS + noise, np.broadcast_to(intensity, noise.shape[:3]), GUESS)
    scatter = parameters(fit).std(axis=(0, 1))
    reported = np.sqrt((fit.deviation**2).mean(axis=(0, 1)))
    ratio = reported / scatter
    assert (ratio > 0.98).all()
    assert (ratio < 1 + 6 / n_disks).all()
    standard_error = scatter / np.sqrt(5000)
    assert (np.abs(parameters(fit).mean(axis=(0, 1)) - [A_NM, C_NM, 0, 0]) < 4 * standard_error).all()


def test_a_pixel_counts_only_with_disks_in_two_directions():
    position = np.broadcast_to(INDICES @ GUESS, (1, 3, len(INDICES), 2)).copy()
    intensity = np.ones((1, 3, len(INDICES)))
    intensity[0, 0] = INDICES[:, 1] == 0  # a systematic row
    intensity[0, 1, 2:] = 0  # two disks
    fit = lattice_from_disks(position, intensity, GUESS)
    np.testing.assert_array_equal(np.isfinite(fit.a_nm), [[False, False, True]])
    np.testing.assert_array_equal(np.isfinite(fit.deviation).all(axis=-1), [[False, False, True]])
    np.testing.assert_array_equal(fit.n_disks, [[11, 2, 77]])


def test_lists_of_disks_are_padded():
    random = np.random.default_rng(8)
    disks = [[random.uniform(size=(n, 3)) for n in row] for row in ((3, 0), (1, 2))]
    position, intensity = pad_disks(disks)
    assert position.shape == (2, 2, 3, 2)
    for row, column in np.ndindex(2, 2):
        n = len(disks[row][column])
        np.testing.assert_array_equal(position[row, column, :n], disks[row][column][:, :2])
        np.testing.assert_array_equal(intensity[row, column, :n], disks[row][column][:, 2])
        assert np.isnan(position[row, column, n:]).all()
        assert (intensity[row, column, n:] == 0).all()


@pytest.mark.parametrize(
    ("disks", "message"),
    [
        ([[np.ones((2, 3))], []], "lengths [1, 0]"),
        ([[np.ones((2, 3)), np.ones((2, 2))]], "row 0, column 1 must have shape (any, 3), got (2, 2)"),
    ],
)
def test_lists_that_are_not_disks_are_refused(disks, message):
    with pytest.raises(InputError) as error:
        pad_disks(disks)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intensity": np.ones((1, 1, 5))}, "intensity must have shape (1, 1, 77)"),
        ({"intensity": -np.ones((1, 1, 77))}, "intensity must not be negative"),
        ({"intensity": np.full((1, 1, 77), np.nan)}, "or NaN"),
        ({"guess_per_nm": GUESS[::-1]}, "a* within 45 degrees of x"),
        ({"guess_per_nm": np.eye(3)}, "guess_per_nm must have shape (2, 2)"),
        ({"position_per_nm": np.ones((1, 1, 4, 2)), "intensity": np.ones((1, 1, 4))}, "4 disks a pixel"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    given = {"position_per_nm": (INDICES @ GUESS)[None, None], "intensity": np.ones((1, 1, 77)), "guess_per_nm": GUESS}
    with pytest.raises(InputError) as error:
        lattice_from_disks(**(given | change))
    assert message in str(error.value)


def lattice_maps(**change):
    distortion = np.arange(24).reshape(2, 3, 4) / 1000
    given = {"pixel_size_nm": 5.0, "mask": np.ones((2, 3), bool), "distortion": distortion}
    return LatticeMaps(**(given | change))


def test_a_region_becomes_the_reference():
    """Lengths of the result are a / a_region, whatever the reference was before."""
    maps = lattice_maps(uncertainty={"aa": np.full((2, 3), 0.01), "rotation": np.full((2, 3), 0.02)})
    region = np.zeros((2, 3), bool)
    region[1, 2] = True
    after = maps.relative_to(region)
    reference = maps.distortion[1, 2]
    for channel in (0, 1):
        np.testing.assert_allclose(
            1 + after.distortion[..., channel], (1 + maps.distortion[..., channel]) / (1 + reference[channel])
        )
    for channel in (2, 3):
        np.testing.assert_allclose(after.distortion[..., channel], maps.distortion[..., channel] - reference[channel])
    np.testing.assert_allclose(after.uncertainty["aa"], 0.01 / (1 + reference[0]))
    np.testing.assert_allclose(after.uncertainty["rotation"], 0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_size_nm": 0.0}, "pixel_size_nm must be positive"),
        ({"mask": np.zeros((2, 3), bool)}, "mask is empty"),
        ({"distortion": np.zeros((2, 3, 3))}, "distortion must have shape (2, 3, 4)"),
        ({"distortion": np.full((2, 3, 4), np.nan)}, "aa is not finite"),
        ({"uncertainty": {"xy": np.ones((2, 3))}}, "uncertainty of xy has no channel"),
        ({"uncertainty": {"aa": np.zeros((2, 3))}}, "uncertainty of aa must be positive"),
        ({"uncertainty": {"aa": np.ones((2, 2))}}, "uncertainty of aa must have shape (2, 3)"),
    ],
)
def test_maps_that_do_not_fit_together_are_refused(change, message):
    with pytest.raises(InputError) as error:
        lattice_maps(**change)
    assert message in str(error.value)


def test_a_region_outside_the_mask_is_refused():
    mask = np.ones((2, 3), bool)
    mask[0, 0] = False
    with pytest.raises(InputError, match="none of the 5 pixels"):
        lattice_maps(mask=mask).relative_to(~mask)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_guess_ten_per_cent_off_labels_the_outer_disks_right(factor):
    """At the ninth order it is wrong by almost one index; the inner disks lead to the lattice first."""
    indices = np.stack(np.mgrid[-10:11, -5:6], axis=-1).reshape(-1, 2)
    fit = lattice_from_disks((indices @ GUESS)[None, None], np.ones((1, 1, len(indices))), factor * GUESS)
    np.testing.assert_allclose(parameters(fit)[0, 0], [A_NM, C_NM, 0, 0], atol=1e-13)
    assert fit.n_disks == len(indices)
