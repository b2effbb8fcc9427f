"""Energy stacks with known drifts, contrast that turns over with the energy, and noise."""

import numpy as np
import pytest
from scipy import ndimage

from chemomech.errors import InputError
from chemomech.observe.alignment import align_stack

#: Optical density of lithium and iron phosphate at 700, 706.2, 706.8, 711.2 and 713.4 eV.
SPECTRA = np.array([[0.10, 0.12], [0.80, 0.35], [1.11, 0.40], [0.72, 1.92], [0.37, 0.92]])
DRIFT = np.array([[0.0, 0.0], [0.37, -0.81], [1.62, 0.25], [-2.4, 3.3], [-9.71, 6.18]])
NOISE = 0.007


def amounts(shift_x, shift_y, shape=(90, 150), samples=4):
    """Thickness of the two phases (2, ny, nx) of a platelet, seen with optics of one pixel; sampled 4 x 4 a pixel."""
    ny, nx = shape
    y, x = np.mgrid[: ny * samples, : nx * samples]
    x, y = (x + 0.5) / samples - nx / 2 - shift_x, (y + 0.5) / samples - ny / 2 - shift_y
    thickness = ((np.abs(x) / 60 + np.abs(y) / 38 < 1) & (np.abs(y) < 30)) * (
        1 + 0.15 * np.sin(x / 20) * np.cos(y / 17)
    )
    lithium = 0.5 + 0.47 * np.tanh((x + 0.35 * y + 4 * np.sin(y / 12)) / 2.5)
    phases = [ndimage.gaussian_filter(thickness * share, samples) for share in (lithium, 1 - lithium)]
    return np.stack([p.reshape(ny, samples, nx, samples).mean(axis=(1, 3)) for p in phases])


CLEAN = np.stack([np.tensordot(spectrum, amounts(*drift), 1) for spectrum, drift in zip(SPECTRA, DRIFT, strict=True)])


def noisy(noise, seed=0):
    return CLEAN + noise * np.random.default_rng(seed).standard_normal(CLEAN.shape)


@pytest.mark.parametrize("reference", [0, 3, -1])
@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 0.1), (NOISE, 0.1), (4 * NOISE, 0.15)])
def test_drifts_come_back_to_a_fraction_of_a_pixel(reference, noise, tolerance):
    """The contrast between the phases turns over at the edge, which leaves a bias of 0.05 pixel (1 nm)."""
    found = align_stack(noisy(noise), reference)
    np.testing.assert_allclose(found.drift, DRIFT - DRIFT[reference], atol=tolerance)
    assert (found.correlation > 0.7).all()


def test_equal_contrast_leaves_no_bias():
    """One spectrum at all energies: only noise is left, 0.02 of a pixel at a signal of 100 to 1."""
    images = np.stack([amounts(*drift).sum(axis=0) for drift in DRIFT])
    images += NOISE * np.random.default_rng(0).standard_normal(images.shape)
    np.testing.assert_allclose(align_stack(images).drift, DRIFT, atol=0.03)


def test_aligned_images_show_one_object():
    """With the drift goes the misfit of two spectra: 0.05 pixel of drift left at an edge 2.5 pixels wide."""
    found = align_stack(CLEAN)
    known = np.isfinite(found.images).all(axis=0)
    still = np.tensordot(SPECTRA, amounts(0, 0), 1)
    for aligned, expected, drifted in zip(found.images, still, CLEAN, strict=True):
        before = np.sqrt(np.mean((drifted - expected)[known] ** 2))
        assert np.sqrt(np.mean((aligned - expected)[known] ** 2)) < max(0.1 * before, 0.004)


def test_what_drifted_in_from_outside_is_unknown():
    """The fifth image drifted by (-9.71, 6.18): its first ten columns and last seven rows lack a partner."""
    unknown = np.isnan(align_stack(CLEAN).images[4])
    expected = np.zeros_like(unknown)
    expected[:, :10] = expected[-7:] = True
    np.testing.assert_array_equal(unknown, expected)


def test_a_single_image_stays_where_it_is():
    found = align_stack(CLEAN[:1])
    np.testing.assert_array_equal(found.drift, 0)
    np.testing.assert_allclose(found.images, CLEAN[:1], atol=1e-12)


def test_an_image_of_something_else_is_refused_by_number():
    images = noisy(NOISE)
    images[2] = np.random.default_rng(1).standard_normal(images[2].shape)
    with pytest.raises(
        InputError, match=r"edges in image 2 \(-?0\.\d\d\) of 5 correlate with the others by less than 0.2"
    ):
        align_stack(images)


@pytest.mark.parametrize(
    ("images", "reference", "message"),
    [
        (CLEAN[0], 0, r"images must have shape \(any, any, any\)"),
        (CLEAN, 5, "the stack has 5 images; reference 5 is none of them"),
        (np.where(np.arange(5)[:, None, None] == 1, np.nan, CLEAN), 0, "image 1 of the stack is not finite"),
        (CLEAN * (np.arange(5) != 3)[:, None, None], 0, "image 3 of the stack has no contrast"),
    ],
)
def test_unusable_stacks_are_refused(images, reference, message):
    with pytest.raises(InputError, match=message):
        align_stack(images, reference)
