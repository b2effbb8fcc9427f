"""Lattice maps of 4D-STEM programs, in files made here after their public layouts."""

import json

import h5py
import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.io.stem import read_stem

A_NM, C_NM = 1.033, 0.469
LABELS = ("e_xx", "e_yy", "e_xy", "theta", "mask", "error")


def displacement_gradients(ny=3, nx=4):
    """du_i/dx_j in our axes, components (x, y): small, so that what is of second order is 1e-10."""
    return 1e-5 * np.random.default_rng(1).standard_normal((ny, nx, 2, 2))


def strain_and_rotation(gradient):
    (du_dx, du_dy), (dv_dx, dv_dy) = np.moveaxis(gradient, (-2, -1), (0, 1))
    return np.stack([du_dx, dv_dy, du_dy + dv_dx, (dv_dx - du_dy) / 2], axis=-1)


def reciprocal_vectors(gradient):
    """Rows a*, c* (..., 2, 2), components (x, y), of a crystal with a along x and c along y after the displacement."""
    real = np.diag([A_NM, C_NM]) @ (np.eye(2) + gradient).swapaxes(-1, -2)
    return np.linalg.inv(real).swapaxes(-1, -2)


def py4dstem_strain(gradient):
    """e_xx, e_yy, e_xy, theta as py4DSTEM computes them (process/strain/latticevectors.py, 0.14.18).

    It fits B in g' = B g to vectors with components along the first and the second array axis, that is (y, x), and
    takes 1 - B_xx, 1 - B_yy, -(B_xy + B_yx) / 2 and (B_xy - B_yx) / 2.
    """
    before, after = (reciprocal_vectors(g)[..., ::-1] for g in (np.zeros((2, 2)), gradient))
    b = (np.linalg.inv(before) @ after).swapaxes(-1, -2)
    return [
        1 - b[..., 0, 0],
        1 - b[..., 1, 1],
        -(b[..., 0, 1] + b[..., 1, 0]) / 2,
        (b[..., 0, 1] - b[..., 1, 0]) / 2,
    ]


def pyxem_strain(gradient):
    """e11, e22, e12, theta as pyxem computes them (signals/tensor_field.py, 0.21), by polar decomposition.

    It fits rows g' = g L, splits L = R U and takes 1 / U_11 - 1, 1 / U_22 - 1, U_12 and -asin R_21.
    """
    left, stretch, right = np.linalg.svd(
        np.linalg.inv(reciprocal_vectors(np.zeros((2, 2)))) @ reciprocal_vectors(gradient)
    )
    rotation = left @ right
    u = right.swapaxes(-1, -2) @ (stretch[..., None] * right)
    return [1 / u[..., 0, 0] - 1, 1 / u[..., 1, 1] - 1, u[..., 0, 1], -np.arcsin(rotation[..., 1, 0])]


def write_py4dstem(path, strain, mask, *, labels=LABELS, units="A", size=25.0, name="strainmap"):
    """An EMD 1.0 file as emdfile 0.0.16 writes a py4DSTEM StrainMap: below the Bragg vectors it came from."""
    with h5py.File(path, "a") as file:
        file.attrs.update(emd_group_type="file", version_major=1, version_minor=0, authoring_program="py4DSTEM")
        root = file.require_group("braggvectors_root")
        root.attrs.update(emd_group_type="root", python_class="Root")
        calibration = root.require_group("metadatabundle/calibration")
        calibration.attrs.update(emd_group_type="metadata", python_class="Calibration")
        for key, value in (("R_pixel_size", size), ("R_pixel_units", units)):
            calibration.pop(key, None)
            calibration[key] = value
        group = root.create_group(f"braggvectors/{name}")
        group.attrs.update(emd_group_type="array", python_class="StrainMap")
        slices = dict(zip(LABELS, [*strain, mask, np.full(mask.shape, np.nan)], strict=True))
        spelled = {label.replace("_", ""): values for label, values in slices.items()}
        group["data"] = np.stack([spelled[label.replace("_", "")] for label in labels]).astype(float)
        group["data"].attrs["units"] = "intensity"
        for dim in (0, 1):
            group[f"dim{dim}"] = [0, 1]
            group[f"dim{dim}"].attrs.update(name=f"dim{dim}", units="pixels")
        group["dim2"] = list(labels)
        group["dim2"].attrs["name"] = "_labels_"


@pytest.fixture
def strain_map(tmp_path):
    path = tmp_path / "strain.h5"
    gradient = displacement_gradients()
    mask = np.ones(gradient.shape[:2], bool)
    mask[0, 1] = False
    write_py4dstem(path, py4dstem_strain(gradient), mask)
    return path


def test_a_py4dstem_strain_map_turns_into_our_axes(strain_map):
    """Expected from the displacement itself; the file from reciprocal vectors in py4DSTEM's axes."""
    maps = read_stem(strain_map)
    expected = strain_and_rotation(displacement_gradients())
    expected[0, 1] = np.nan
    np.testing.assert_allclose(maps.distortion, expected, atol=2e-9)
    np.testing.assert_array_equal(maps.mask, np.isfinite(expected[..., 0]))
    assert maps.pixel_size_nm == pytest.approx(2.5)
    assert maps.source == str(strain_map)


def test_slices_are_found_by_their_names(tmp_path, strain_map):
    """The first releases wrote exx, later ones e_xx; `get_rotated_strain_map` writes another order."""
    path = tmp_path / "other.emd"
    mask = read_stem(strain_map).mask
    labels = ("exx", "exy", "eyy", "theta", "mask")
    write_py4dstem(path, py4dstem_strain(displacement_gradients()), mask, labels=labels, units="nm", size=2.5)
    np.testing.assert_array_equal(read_stem(path).distortion, read_stem(strain_map).distortion)


def test_a_rotation_and_a_shear_have_the_documented_signs(tmp_path):
    """A crystal turned counter-clockwise (x towards y) has theta > 0, one whose c leans towards +x gamma > 0."""
    turned, sheared = np.zeros((2, 1, 1, 2, 2))
    turned[..., 1, 0], turned[..., 0, 1] = 1e-4, -1e-4
    sheared[..., 0, 1] = 2e-4
    for name, gradient, expected in (
        ("turned", turned, [0, 0, 0, 1e-4]),
        ("sheared", sheared, [0, 0, 2e-4, -1e-4]),
    ):
        write_py4dstem(tmp_path / f"{name}.h5", py4dstem_strain(gradient), np.ones((1, 1)))
        distortion = read_stem(tmp_path / f"{name}.h5").distortion[0, 0]
        np.testing.assert_allclose(distortion, expected, atol=1e-7)  # second order: (2e-4)^2


def test_a_region_replaces_the_reference_of_the_file(strain_map):
    region = np.zeros((3, 4), bool)
    region[2] = True
    maps = read_stem(strain_map, region=region)
    np.testing.assert_allclose(np.median(maps.distortion[2], axis=0), 0, atol=1e-15)
    before = read_stem(strain_map).distortion
    np.testing.assert_allclose(np.diff(maps.distortion[2], axis=0), np.diff(before[2], axis=0), atol=1e-9)


def test_one_of_several_strain_maps_is_chosen(strain_map):
    gradient = 2 * displacement_gradients()
    write_py4dstem(strain_map, py4dstem_strain(gradient), np.ones((3, 4)), name="second")
    maps = read_stem(strain_map, dataset="braggvectors_root/braggvectors/second")
    np.testing.assert_allclose(maps.distortion, strain_and_rotation(gradient), atol=1e-8)
    with pytest.raises(InputError) as error:
        read_stem(strain_map)
    assert "found braggvectors_root/braggvectors/second, braggvectors_root/braggvectors/strainmap" in str(error.value)


def change(path, edit):
    with h5py.File(path, "r+") as file:
        edit(file["braggvectors_root"])


def without(name):
    return lambda root: root.__delitem__(name)


def replaced(name, value):
    def edit(root):
        del root[name]
        root[name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("braggvectors/strainmap/dim2"), "found none"),
        (without("braggvectors/strainmap/data"), "strainmap/data is missing; its group holds dim0"),
        (
            replaced("braggvectors/strainmap/data", np.zeros((3, 4))),
            "numbers along 3 axes, got float64 of shape (3, 4)",
        ),
        (replaced("braggvectors/strainmap/data", np.zeros((5, 3, 4))), "has 5 slices, but 6 labels"),
        (replaced("braggvectors/strainmap/data", np.full((6, 3, 4), np.nan)), "mask is empty"),
        (without("metadatabundle"), "R_pixel_size is missing; calibrate"),
        (replaced("metadatabundle/calibration/R_pixel_units", "pixels"), "has units 'pixels'"),
        (replaced("metadatabundle/calibration/R_pixel_size", 0.0), "pixel_size_nm must be positive"),
    ],
)
def test_what_a_strain_map_lacks_is_named(strain_map, edit, message):
    change(strain_map, edit)
    with pytest.raises(InputError) as error:
        read_stem(strain_map)
    assert message in str(error.value)
    assert str(strain_map) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(strain_map):
    strain_map.write_bytes(strain_map.read_bytes()[: strain_map.stat().st_size // 2])
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        read_stem(strain_map)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reference_nm": (A_NM, C_NM)}, "holds strains, which reference_nm cannot change"),
        ({"reference_nm": (A_NM, C_NM), "region": np.ones((3, 4), bool)}, "not both"),
        ({"region": np.ones((4, 3), bool)}, "region must have shape (3, 4), got (4, 3)"),
        ({"dataset": "elsewhere"}, "elsewhere is not a strain map; found braggvectors_root/"),
    ],
)
def test_references_that_do_not_fit_are_refused(strain_map, given, message):
    with pytest.raises(InputError) as error:
        read_stem(strain_map, **given)
    assert message in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_stem(tmp_path / "none.h5")


def sidecar(path, **entries):
    path.with_suffix(".json").write_text(json.dumps(entries))


LATTICE_UNITS = {"a": "angstrom", "c": "nm", "gamma": "mrad", "theta": "deg"}


@pytest.fixture
def pages(tmp_path):
    """Five pages in an order of their own; the pixel outside the mask holds zeros, as programs write them."""
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "lattice.tif"
    distortion = strain_and_rotation(displacement_gradients())
    aa, cc, gamma, theta = np.moveaxis(distortion, -1, 0)
    mask = np.ones(aa.shape)
    mask[2, 3] = 0
    stack = np.stack([mask, np.degrees(theta), 10 * A_NM * (1 + aa), C_NM * (1 + cc), 1e3 * gamma])
    tifffile.imwrite(path, stack * mask, photometric="minisblack")
    sidecar(path, channels=["mask", "theta", "a", "c", "gamma"], units=LATTICE_UNITS, pixel_size_nm=12.5)
    return path


def test_tiff_pages_are_lattice_parameters_with_units(pages):
    maps = read_stem(pages, reference_nm=(A_NM, C_NM))
    expected = strain_and_rotation(displacement_gradients())
    expected[2, 3] = np.nan
    np.testing.assert_allclose(maps.distortion, expected, atol=1e-15)
    assert maps.pixel_size_nm == 12.5
    region = np.zeros((3, 4), bool)
    region[0, 0] = True
    relative = read_stem(pages, region=region).distortion
    np.testing.assert_allclose(1 + relative[..., 0], (1 + expected[..., 0]) / (1 + expected[0, 0, 0]), rtol=1e-14)
    np.testing.assert_allclose(relative[..., 3], expected[..., 3] - expected[0, 0, 3], atol=1e-15)


def test_tiff_pages_of_pyxem_turn_into_our_convention(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "pyxem.tiff"
    gradient = displacement_gradients()
    tifffile.imwrite(path, np.stack(pyxem_strain(gradient)), photometric="minisblack")
    sidecar(path, channels=["e11", "e22", "e12", "theta"], pixel_size_nm=1)
    np.testing.assert_allclose(read_stem(path).distortion, strain_and_rotation(gradient), atol=2e-9)


def test_a_hyperspy_signal_brings_its_pixel_size(tmp_path):
    hspy = pytest.importorskip("rsciio.hspy")
    path = tmp_path / "strain.hspy"
    expected = strain_and_rotation(displacement_gradients())
    scales = (("", 1.0, "<undefined>", 4), ("y", 0.02, "um", 3), ("x", 0.02, "um", 4))
    axes = [
        {"name": name, "scale": scale, "offset": 0.0, "units": units, "size": size, "navigate": not number}
        for number, (name, scale, units, size) in enumerate(scales)
    ]
    signal = {
        "data": np.moveaxis(expected, -1, 0).copy(),
        "axes": [axis | {"_type": "UniformDataAxis", "is_binned": False} for axis in axes],
        "metadata": {"General": {"title": "strain"}, "Signal": {"signal_type": ""}},
        "original_metadata": {},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "hyperspy", "package_version": "2.0"},
        "tmp_parameters": {},
        "learning_results": {},
        "models": {},
    }
    hspy.file_writer(str(path), signal)
    units = {"gamma": "rad", "theta": "rad"}
    sidecar(path, channels=["eps_aa", "eps_cc", "gamma", "theta"], units=units)
    maps = read_stem(path)
    np.testing.assert_array_equal(maps.distortion, expected)
    assert maps.pixel_size_nm == pytest.approx(20)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"channels": ["a", "c", "gamma"]}, "channels must name the 5 pages"),
        ({"channels": ["a", "b", "c", "gamma", "theta"]}, "channels must be a, c, gamma, theta or eps_aa"),
        ({"units": LATTICE_UNITS | {"theta": "grad"}}, "units of theta has units 'grad'"),
        ({"units": {}}, "units of a has no units attribute"),
        ({"units": "nm"}, "units must be an object"),
        ({"pixel_size_nm": "12"}, "pixel_size_nm must be a number, got '12'"),
        ({"pixel_size": 12}, "pixel_size is not a known key"),
    ],
)
def test_what_is_wrong_in_a_sidecar_is_named(pages, entries, message):
    given = {"channels": ["mask", "theta", "a", "c", "gamma"], "units": LATTICE_UNITS, "pixel_size_nm": 12.5}
    sidecar(pages, **(given | entries))
    with pytest.raises(InputError) as error:
        read_stem(pages, reference_nm=(A_NM, C_NM))
    assert message in str(error.value)
    assert "lattice.json" in str(error.value)


def test_lattice_parameters_need_a_reference_and_a_pixel_size(pages):
    with pytest.raises(InputError, match="give reference_nm"):
        read_stem(pages)
    sidecar(pages, channels=["mask", "theta", "a", "c", "gamma"], units=LATTICE_UNITS)
    with pytest.raises(InputError, match="pixel_size_nm is missing"):
        read_stem(pages, reference_nm=(A_NM, C_NM))


def test_a_tiff_file_without_a_sidecar_or_cut_short_is_refused(pages):
    content = pages.read_bytes()
    pages.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a readable TIFF file"):
        read_stem(pages, reference_nm=(A_NM, C_NM))
    pages.write_bytes(content)
    pages.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"lattice\.json is missing beside it"):
        read_stem(pages, reference_nm=(A_NM, C_NM))
