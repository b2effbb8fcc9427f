"""Registration of two microscopes: twins with known transforms, ground truth on a made-up particle, refusals."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

from checks import convergence_rates
from chemomech.errors import InputError
from chemomech.observe import registration
from chemomech.observe.registration import Image, coverage, register

TWINS = Path(__file__).parents[3] / "shared" / "reference" / "twins"
NOISE_COMPOSITION, NOISE_FIXED = 0.006, 0.02


def turned(degrees, scale_x=1.0, scale_y=1.0, shear=0.0):
    """Rotation times shear times scales."""
    t = np.deg2rad(degrees)
    rotation = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return rotation @ np.array([[1, shear], [0, 1]]) @ np.diag([scale_x, scale_y])


def positions(shape, pixel):
    """x and y (ny, nx) about the image centre, nm."""
    y, x = (pixel * (axis - (n - 1) / 2) for axis, n in zip(np.indices(shape), shape, strict=True))
    return x, y


def platelet(x, y):
    """Is (x, y) in the particle, a rhombus of 3.6 x 2 um with cut tips and one corner gone?"""
    return (np.abs(x) / 1900 + np.abs(y) / 1050 < 1) & (np.abs(y) < 850) & (x + 2 * y < 1650)


def composition_at(x, y):
    """Two phases with a curved boundary 100 nm wide and a little texture."""
    boundary = x + 0.3 * y + 120 * np.sin(y / 350)
    return 0.5 + 0.46 * np.tanh(boundary / 60) + 0.02 * np.sin(x / 300) * np.cos(y / 260)


def fixed_image(seed=0, phase=composition_at, shape=(48, 92), pixel=49.5):
    """A lattice parameter map with noise, NaN outside the particle."""
    x, y = positions(shape, pixel)
    mask = platelet(x, y)
    a = 9.82 + 0.5 * phase(x, y) + NOISE_FIXED * np.random.default_rng(seed).standard_normal(shape)
    return Image(np.where(mask, a, np.nan), pixel, mask)


def moving_image(matrix, translation, seed=0, phase=composition_at, shape=(180, 300), pixel=20.0):
    """The same particle as an X-ray microscope sees it: composition, and coverage from an uneven thickness.

    Four samples a pixel and a Gaussian of 20 nm stand for the optics.
    """
    random = np.random.default_rng(seed)
    x, y = positions(tuple(4 * n for n in shape), pixel / 4)
    stem_x, stem_y = np.einsum("ij,jyx->iyx", matrix, [x, y]) + np.reshape(translation, (2, 1, 1))
    thickness = np.where(platelet(stem_x, stem_y), 1 + 0.1 * np.sin(stem_x / 500) * np.cos(stem_y / 400), 0)
    thickness = ndimage.gaussian_filter(thickness, 4.0).reshape(shape[0], 4, shape[1], 4).mean(axis=(1, 3))
    thickness += 0.005 * random.standard_normal(shape)
    x, y = positions(shape, pixel)
    stem = np.einsum("ij,jyx->iyx", matrix, [x, y]) + np.reshape(translation, (2, 1, 1))
    composition = phase(*stem) + NOISE_COMPOSITION * random.standard_normal(shape)
    return Image(np.where(thickness > 0.2, composition, np.nan), pixel, coverage(thickness))


def depth(mask):
    return ndimage.distance_transform_edt(mask)


def xray_maps(group, reference):
    """Composition, its standard deviation and the thickness by non-negative least squares with two references."""
    density = group["optical_density"][...]
    spectra = np.stack(
        [np.interp(group["energy_eV"], reference["energy_eV"], reference[k]) for k in ("LiFePO4", "FePO4")], axis=1
    )
    inverse = np.linalg.pinv(spectra)
    amounts = np.einsum("km,myx->kyx", inverse, density)
    alone = np.maximum(np.einsum("mk,myx->kyx", spectra / (spectra**2).sum(axis=0), density), 0)
    both = (amounts >= 0).all(axis=0)
    lithium = np.where(both, amounts[0], np.where(amounts[1] < 0, alone[0], 0))
    iron = np.where(both, amounts[1], np.where(amounts[0] < 0, alone[1], 0))
    thickness = lithium + iron
    solid = thickness > 0.15 * np.percentile(thickness, 95)
    safe = np.where(solid, thickness, 1)
    composition = lithium / safe
    noise = np.median(np.abs(density[:, :6])) / 0.6745
    slope = ((1 - composition)[..., None] * inverse[0] - composition[..., None] * inverse[1]) / safe[..., None]
    deviation = noise * np.linalg.norm(slope, axis=-1)
    return np.where(solid, composition, np.nan), np.where(solid, deviation, np.nan), thickness


@pytest.mark.skipif(not (TWINS / "raw.h5").exists(), reason="the twins of shared/reference/twins are not here")
@pytest.mark.parametrize("name", ["P1", "P2", "P3", "P4", "P5"])
def test_twins_find_their_transform_and_composition(name):
    """Well inside what is promised (0.01, 20 nm, 0.02): the data determine 0.002, 2 nm and 0.006 at their noise."""
    truth = next(p for p in json.loads((TWINS / "raw.truth.json").read_text())["particles"] if p["name"] == name)
    with h5py.File(TWINS / "raw.h5") as raw, h5py.File(TWINS / "coherent_clean.h5") as clean:
        xray, stem = (raw["particles"][name][side] for side in ("xray", "stem"))
        composition, deviation, thickness = xray_maps(xray, raw["reference"])
        mask = stem["mask"][...].astype(bool)
        fixed = Image(stem["a"][...], stem.attrs["pixel_size_nm"], mask)
        moving = Image(composition, xray.attrs["pixel_size_nm"], coverage(thickness))
        expected = clean["particles"][name]["composition"][...]
    found = register(moving, fixed)
    assert np.abs(found.matrix - truth["xray_to_stem_matrix"]).max() < 0.005
    assert np.linalg.norm(found.translation_nm - truth["translation_nm"]) < 5
    values, error = found.resample(composition, deviation)
    inside = depth(mask) > 4
    assert np.sqrt(np.mean((values - expected)[inside] ** 2)) < 0.01
    assert np.isfinite(values[mask]).all()
    assert np.isfinite(error[mask]).all()
    assert found.score > 0.99
    assert found.overlap > 0.99


@pytest.mark.parametrize(
    ("matrix", "translation"),
    [
        (turned(0), (0, 0)),
        (turned(4, 1.05, 0.96, 0.03), (120, -110)),
        (turned(-15, 0.9, 1.1, 0.08), (300, 280)),
    ],
)
def test_known_transforms_come_back_within_their_uncertainty(matrix, translation):
    """Four standard errors, doubled for what the covariance leaves out: the pixels of a mask do not err independently,
    and its flat edge 850 nm from the centre lies up to half a pixel off (here 8.5 nm, 0.01)."""
    found = register(moving_image(matrix, translation), fixed_image())
    error = np.concatenate([(found.matrix - matrix).ravel(), found.translation_nm - translation])
    assert (np.abs(error) < 2 * 4 * np.sqrt(np.diag(found.covariance))).all()
    assert np.abs(error[:4]).max() < 0.01
    assert np.linalg.norm(error[4:]) < 10


def test_the_covariance_is_that_of_repeated_measurements():
    """Spread over six noise seeds against the predicted one: 30 degrees of freedom scatter it by 13 %; a mask's own
    pixels do not change with the seed, so less than predicted is right, more than 1.5 times would be wrong."""
    matrix, translation = turned(3, 1.02, 0.98), np.array([40.0, -60.0])
    results = [register(moving_image(matrix, translation, seed), fixed_image(seed)) for seed in range(6)]
    parameters = np.array([[*r.matrix.ravel(), *r.translation_nm] for r in results])
    scaled = parameters.std(axis=0, ddof=1) / np.sqrt(np.diag(results[0].covariance))
    assert np.sqrt(np.mean(scaled**2)) < 1.5


def straight(x, y):
    return 0.5 + 0.46 * np.tanh((x + 0.3 * y) / 60)


def test_the_outline_fixes_sliding_along_a_straight_boundary():
    matrix, translation = turned(2, 1.03, 0.97), np.array([60.0, -90.0])
    moving, fixed = moving_image(matrix, translation, phase=straight), fixed_image(phase=straight)
    found = register(moving, fixed)
    assert np.linalg.norm(found.translation_nm - translation) < 5
    with pytest.raises(InputError, match="leave the registration open by"):
        register(Image(moving.values, 20.0), Image(fixed.values, 49.5))


def test_a_particle_of_one_phase_is_registered_by_its_outline():
    """Nothing correlates inside; a flat edge of the mask lies up to half a pixel off, 25 nm on 850."""
    matrix, translation = turned(-3, 0.97, 1.02), np.array([-50.0, 30.0])

    def lithiated(x, y):
        return np.full(np.shape(x), 0.97)

    found = register(moving_image(matrix, translation, phase=lithiated), fixed_image(phase=lithiated))
    np.testing.assert_allclose(found.matrix, matrix, atol=0.01)
    np.testing.assert_allclose(found.translation_nm, translation, atol=10)


def test_another_pair_of_channels_goes_through_the_same_door():
    """Optical density and dark field: the whole image, dark background, no outline given."""
    matrix, translation = turned(4, 1.02, 0.99), np.array([80.0, -40.0])
    random = np.random.default_rng(0)

    def scattering(x, y):
        smooth = 1 / (1 + np.exp((np.abs(x) / 1700 + np.abs(y) / 900 - 1) * 20))
        return smooth * (1 + 0.3 * composition_at(x, y))

    x, y = positions((180, 300), 20.0)
    density = scattering(*(np.einsum("ij,jyx->iyx", matrix, [x, y]) + translation[:, None, None]))
    dark_field = 40 * scattering(*positions((60, 100), 49.5)) + 5
    found = register(
        Image(density + 0.01 * random.standard_normal(density.shape), 20.0),
        Image(dark_field + 0.5 * random.standard_normal(dark_field.shape), 49.5),
    )
    np.testing.assert_allclose(found.matrix, matrix, atol=0.003)
    np.testing.assert_allclose(found.translation_nm, translation, atol=3)
    assert np.isnan(found.overlap)


def test_wrongly_indexed_patterns_do_not_count():
    """Three per cent of the lattice map replaced by 4 to 16 Angstrom move the result by less than its standard error,
    0.001 and 1 nm: what those pixels knew is missing, what they say now is not believed."""
    matrix, translation = turned(3), np.array([50.0, -20.0])
    fixed, random = fixed_image(), np.random.default_rng(1)
    wrong = random.random(fixed.values.shape) < 0.03
    values = np.where(wrong & fixed.particle, random.uniform(4, 16, wrong.shape), fixed.values)
    moving = moving_image(matrix, translation)
    found, clean = register(moving, Image(values, 49.5, fixed.coverage)), register(moving, fixed)
    assert np.abs(found.matrix - clean.matrix).max() < 0.001
    assert np.abs(found.translation_nm - clean.translation_nm).max() < 1
    assert found.score > 0.99


@pytest.mark.parametrize("blur", [8.0, 0.0])
def test_the_gradient_is_exact(blur):
    """Taylor test: without the gradient the remainder falls with h, with it with h^2."""
    problem = registration._Problem(moving_image(turned(2), (30, 10)), fixed_image(), True, blur)
    at = np.array([1.01, -0.02, 0.03, 0.99, 40.0, -30.0])
    direction = np.random.default_rng(0).standard_normal(6) / problem.scale
    value, gradient, _ = problem.evaluate(at)
    steps = 4.0 * 0.5 ** np.arange(6)
    remainders = [abs(problem.misfit(at + h * direction) - value - h * gradient @ direction) for h in steps]
    assert convergence_rates(remainders)[-3:] == pytest.approx(2, abs=0.1)


def test_the_gauss_newton_hessian_is_the_curvature_at_a_perfect_fit():
    """Where the residual vanishes so does what Gauss-Newton leaves out; 1e-3 is the difference quotient's error."""
    x, y = positions((60, 90), 49.5)
    image, inside = Image(composition_at(x, y), 49.5), depth(platelet(x, y)) > 4
    channel = registration._Channel(
        image.values, image.axes_nm, image.positions(inside), image.values[inside], independent=1.0, gradient_noise=0.0
    )
    best = np.array([1.0, 0, 0, 1, 0, 0])
    scale = np.array([1000.0] * 4 + [1] * 2)
    curvature = channel.evaluate(best)[2] / np.outer(scale, scale)
    # The floor under the residual sets the unit; close to it F is the logarithm's parabola.
    h = 1e-4 / np.sqrt(curvature.max())
    columns = [
        (channel.evaluate(best + h * e / scale)[1] - channel.evaluate(best - h * e / scale)[1]) / (2 * h)
        for e in np.eye(6)
    ]
    np.testing.assert_allclose(np.array(columns) / scale, curvature, atol=1e-3 * curvature.max())


def test_resampling_keeps_a_quadratic_and_carries_the_error():
    """A quadratic comes back to the prior's bias (below 1e-3); the predicted deviation is the seen one to 5 % (2000
    pixels that share neighbours)."""
    matrix, translation = turned(5, 1.03, 0.98), np.array([50.0, -30.0])
    found = registration.Registration(
        matrix, translation, np.eye(6), 1.0, 1.0, moving_image(matrix, translation), fixed_image()
    )
    x, y = positions((180, 300), 20.0)
    quadratic = 0.5 + 2e-4 * x - 1e-4 * y + 1e-7 * x * y - 5e-8 * x**2
    deviation = np.where(x > 0, 0.02, 0.01)
    random = np.random.default_rng(0)
    exact, _ = found.resample(quadratic, deviation)
    noisy, error = found.resample(quadratic + deviation * random.standard_normal(x.shape), deviation)
    mask = found.fixed.particle
    moved_x, moved_y = found.to_moving(found.fixed.positions(mask)).T
    expected = 0.5 + 2e-4 * moved_x - 1e-4 * moved_y + 1e-7 * moved_x * moved_y - 5e-8 * moved_x**2
    np.testing.assert_allclose(exact[mask], expected, atol=1e-3)
    assert np.std(((noisy - exact) / error)[mask]) == pytest.approx(1, abs=0.05)
    assert np.isnan(exact[~mask]).all()
    # Averaging: nine X-ray pixels under the Gaussian leave less than half of the noise.
    assert np.median(error[mask]) < 0.5 * 0.02


def test_resampling_leaves_out_what_no_pixel_knows():
    found = registration.Registration(
        np.eye(2), np.zeros(2), np.eye(6), 1.0, 1.0, moving_image(np.eye(2), (0, 0)), fixed_image()
    )
    x, _ = positions((180, 300), 20.0)
    half = np.where(x < 0, 0.4, np.nan)
    values, error = found.resample(half, np.where(x < 0, 0.01, np.nan))
    column = positions((48, 92), 49.5)[0]
    mask = found.fixed.particle
    np.testing.assert_allclose(values[mask & (column < 0)], 0.4, atol=1e-9)
    assert np.isnan(values[mask & (column > 50)]).all()
    assert np.isnan(error[mask & (column > 50)]).all()
    with pytest.raises(InputError, match="deviation must be positive wherever values are known"):
        found.resample(half, np.zeros_like(half))


def test_coverage_follows_the_outline_where_the_particle_is_thin():
    """A wedge from thickness 1 to 0.3: the half level of the coverage stays at the edge, 0.2 pixels for the noise."""
    y, x = np.indices((80, 120))
    mask = (x >= 20) & (x < 100) & (y >= 20) & (y < 60)
    thickness = ndimage.gaussian_filter(np.where(mask, 1 - 0.7 * (x - 20) / 80, 0), 1.5)
    covered = coverage(thickness + 0.003 * np.random.default_rng(0).standard_normal(thickness.shape))
    middle = covered[30:50].mean(axis=0)
    for edge, side in ((19.5, slice(12, 28)), (99.5, slice(107, 91, -1))):
        crossing = np.interp(0.5, middle[side], np.arange(120.0)[side])
        assert crossing == pytest.approx(edge, abs=0.3)


@pytest.mark.parametrize("flip", [0, 1])
def test_a_mirrored_image_is_refused(flip):
    moving = moving_image(turned(2), (30, 20))
    flipped = Image(np.flip(moving.values, flip), 20.0, np.flip(moving.coverage, flip))
    with pytest.raises(InputError, match=r"fit better with an axis flipped \(correlation 1.00 against"):
        register(flipped, fixed_image())


def test_implausible_scales_are_refused():
    """The pixel size given wrong by a third."""
    moving = moving_image(np.eye(2), (0, 0))
    with pytest.raises(InputError, match=r"no plausible registration: scales 1\.5"):
        register(Image(moving.values, 13.0, moving.coverage), fixed_image())


def test_unrelated_insides_are_refused():
    random = np.random.default_rng(0)
    moving = moving_image(np.eye(2), (0, 0))
    other = ndimage.gaussian_filter(random.standard_normal(moving.values.shape), 12)
    with pytest.raises(InputError, match=r"correlate by -?0\.\d\d inside the particle, at least 0\.\d\d is needed"):
        register(Image(other / other.std(), 20.0, moving.coverage), fixed_image())


def test_particles_that_do_not_overlap_are_refused():
    """The mask has lost half of the particle in stripes."""
    fixed = fixed_image()
    striped = fixed.particle & ((np.arange(fixed.values.shape[1]) // 14) % 2 == 0)
    with pytest.raises(InputError, match=r"overlap by \d+% \(intersection over union"):
        register(moving_image(np.eye(2), (0, 0)), Image(fixed.values, 49.5, striped))


GOOD = {"values": np.zeros((20, 30)), "pixel_size_nm": 20.0, "coverage": np.ones((20, 30))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros(3)}, r"values of an image must have shape \(any, any\)"),
        ({"pixel_size_nm": 0.0}, "pixel_size_nm of an image must be positive, got 0"),
        ({"coverage": np.ones((3, 3))}, r"coverage of an image must have shape \(20, 30\), got \(3, 3\)"),
        ({"coverage": np.full((20, 30), 1.5)}, r"coverage of an image must lie in 0..1 everywhere, found 1.5..1.5"),
        ({"coverage": np.full((20, 30), np.nan)}, "coverage of an image must lie in 0..1 everywhere, found nan"),
        ({"coverage": np.zeros((20, 30))}, "no finite value inside its particle"),
        ({"values": np.full((20, 30), np.nan)}, "no finite value inside its particle"),
    ],
)
def test_unusable_images_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Image(**{**GOOD, **change})


def test_a_thickness_without_a_particle_is_refused():
    with pytest.raises(InputError, match="no particle in the thickness map"):
        coverage(np.zeros((20, 20)))


def test_a_particle_too_small_to_have_an_inside_is_refused():
    mask = np.zeros((30, 30), dtype=bool)
    mask[10:17, 10:17] = True
    with pytest.raises(InputError, match="usable pixels more than 4 from the particle's outline; at least 25"):
        register(moving_image(np.eye(2), (0, 0)), Image(np.where(mask, 1.0, np.nan), 49.5, mask))
