"""reaction-video/1: what is read, and what is refused in one line that names the file and the group."""

import h5py
import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.io.video import read_video

ATTRIBUTES = {
    "schema": "reaction-video/1",
    "site_density_nm3": 13.76,
    "kappa_eV_per_nm": 165.12,
    "kT_eV": 0.0257,
    "alpha": 0.5,
    "noise_sigma": 0.07,
    "mechanics": "off",
    "boundary": "no_flux",
    "binodal": 0.0127,
}


@pytest.fixture
def path(tmp_path):
    """Two particles: a discharge and a charge, a discharge."""
    path = tmp_path / "video.h5"
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update(ATTRIBUTES)
        for name, modes in (("A", ("discharge", "charge")), ("B", ("discharge",))):
            group = file.create_group(f"particles/{name}")
            group.attrs["pixel_size_nm"] = 50.0
            mask = np.zeros((6, 8), dtype=bool)
            mask[1:5, 1:7] = True
            group["mask"] = mask
            for i, mode in enumerate(modes):
                half = group.create_group(f"half_cycles/{i}")
                half.attrs["mode"] = mode
                half["time_s"] = np.array([0.0, 600.0, 1200.0])
                mean = np.array([0.1, 0.5, 0.9])[:: 1 if mode == "discharge" else -1, None, None]
                half["li_fraction"] = np.where(mask, mean + 0.07 * random.standard_normal((3, 6, 8)), np.nan)
    return path


def test_reads_in_hours_and_square_nanometres(path):
    video = read_video(path)
    assert list(video.particles) == ["A", "B"]
    assert video.gradient_nm2 == pytest.approx(165.12 / (13.76 * 0.0257))
    charge = video.particles["A"].half_cycles[1]
    assert charge.mode == "charge"
    np.testing.assert_allclose(charge.time_h, [0, 1 / 6, 1 / 3])
    assert charge.li_fraction.shape == (3, 24)
    assert video.n_pixels == 48


def test_binodal_may_be_absent(path):
    with h5py.File(path, "a") as file:
        del file.attrs["binodal"]
    assert read_video(path).binodal is None


def replace(group, key, values):
    del group[key]
    group[key] = values


BROKEN = {
    "times": (
        lambda f: replace(f["particles/B/half_cycles/0"], "time_s", [0.0, 600.0, 600.0]),
        r"/particles/B/half_cycles/0/time_s must increase, but frame 2 at 600 s follows one at 600 s",
    ),
    "range": (
        lambda f: f["particles/B/half_cycles/0/li_fraction"].__setitem__((1, 2, 3), 1.7),
        r"/particles/B/half_cycles/0/li_fraction is 1.7 in frame 1 at row 2, column 3, outside -0.5..1.5",
    ),
    "nan": (
        lambda f: f["particles/B/half_cycles/0/li_fraction"].__setitem__((1, 2, 3), np.nan),
        r"/particles/B/half_cycles/0/li_fraction, frame 1 is not finite at 1 of 24 pixels",
    ),
    "single frame": (
        lambda f: [
            replace(f["particles/B/half_cycles/0"], "li_fraction", np.full((1, 6, 8), 0.1)),
            replace(f["particles/B/half_cycles/0"], "time_s", [0.0]),
        ],
        r"/particles/B/half_cycles/0 has a single frame",
    ),
    "empty": (
        lambda f: [
            replace(f["particles/B/half_cycles/0"], "li_fraction", np.zeros((0, 6, 8))),
            replace(f["particles/B/half_cycles/0"], "time_s", np.zeros(0)),
        ],
        r"/particles/B/half_cycles/0 is empty",
    ),
    "no half-cycles": (
        lambda f: f["particles/B"].__delitem__("half_cycles"),
        r"/particles/B/half_cycles is missing or empty",
    ),
    "mask": (
        lambda f: f["particles/B/mask"].__setitem__((slice(None), 4), False),
        r"/particles/B/mask has 2 pieces that share no pixel edge",
    ),
    "rate of zero": (
        lambda f: replace(f["particles/B/half_cycles/0"], "li_fraction", np.full((3, 6, 8), 0.4)),
        r"/particles/B/half_cycles/0: the mean lithium fraction changes by 0 from .* a rate of zero",
    ),
    "mode": (
        lambda f: f["particles/B/half_cycles/0"].attrs.__setitem__("mode", "rest"),
        r"/particles/B/half_cycles/0: mode must be charge or discharge, got 'rest'",
    ),
    "wrong way": (
        lambda f: f["particles/B/half_cycles/0"].attrs.__setitem__("mode", "charge"),
        r"/particles/B/half_cycles/0: mode is charge, but the mean lithium fraction goes from",
    ),
    "missing mode": (
        lambda f: f["particles/B/half_cycles/0"].attrs.__delitem__("mode"),
        r"/particles/B/half_cycles/0 has no attribute mode",
    ),
    "missing pixel size": (
        lambda f: f["particles/B"].attrs.__delitem__("pixel_size_nm"),
        r"/particles/B has no attribute pixel_size_nm",
    ),
    "pixel size in um": (
        lambda f: f["particles/B"].attrs.__setitem__("pixel_size_nm", 0.05),
        r"/particles/B: interfaces of .* = 21.6 nm do not fit pixels of 0.05 nm and a particle of 0.3 nm",
    ),
    "pixel size in pm": (
        lambda f: f["particles/B"].attrs.__setitem__("pixel_size_nm", 50e3),
        r"/particles/B: interfaces of .* = 21.6 nm do not fit pixels of 50000 nm",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_refuses(path, kind):
    spoil, message = BROKEN[kind]
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(InputError, match=message) as refusal:
        read_video(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)
    video = read_video(path, skip_bad=True)
    assert list(video.particles) == ["A"]
    assert len(video.skipped) >= 1


@pytest.mark.parametrize("key", [key for key in ATTRIBUTES if key != "binodal"])
def test_refuses_a_missing_attribute(path, key):
    with h5py.File(path, "a") as file:
        del file.attrs[key]
    with pytest.raises(InputError, match="schema is missing" if key == "schema" else f"/ has no attribute {key}"):
        read_video(path, skip_bad=True)


@pytest.mark.parametrize(("key", "value"), [("mechanics", "perhaps"), ("boundary", "periodic"), ("noise_sigma", 0.0)])
def test_refuses_what_the_model_lacks(path, key, value):
    with h5py.File(path, "a") as file:
        file.attrs[key] = value
    with pytest.raises(InputError, match=f"{key} must be"):
        read_video(path)


def test_all_bad_is_an_error(path):
    with h5py.File(path, "a") as file:
        for group in file["particles"].values():
            del group["mask"]
    with pytest.raises(InputError, match="no particle can be used"):
        read_video(path, skip_bad=True)


def test_stress_and_held_edges_are_read(path):
    """Without a misfit of its own the file has that of LiFePO4; c_s kT is 0.0567 GPa."""
    with h5py.File(path, "a") as file:
        file.attrs.update(mechanics="on", boundary="dirichlet_data")
    video = read_video(path)
    assert video.boundary == "dirichlet_data"
    assert video.coherency.energy_density_GPa == pytest.approx(0.0567, rel=2e-3)
    np.testing.assert_allclose(video.coherency.misfit, [0.05, -0.02, 0])
    with h5py.File(path, "a") as file:
        file.attrs["misfit_strain"] = [0.03, 0.01, 0.0]
    np.testing.assert_allclose(read_video(path).coherency.misfit, [0.03, 0.01, 0])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("misfit_strain", [0.1, 0.2], "misfit_strain must hold 3 finite numbers"),
        ("stiffness_GPa", "lfp.toml", "stiffness_GPa must hold 6 x 6 finite numbers, got 'lfp.toml'"),
        ("stiffness_GPa", -np.eye(6), "stiffness_GPa must be symmetric and positive definite"),
    ],
)
def test_refuses_impossible_elasticity(path, key, value, message):
    with h5py.File(path, "a") as file:
        file.attrs.update(mechanics="on")
        file.attrs[key] = value
    with pytest.raises(InputError, match=message):
        read_video(path)


def test_external_map_is_read_and_checked(path):
    with h5py.File(path, "a") as file:
        file["particles/A/external_map"] = np.arange(48.0).reshape(6, 8)
    assert read_video(path).particles["A"].external.shape == (24,)
    assert read_video(path).particles["B"].external is None
    with h5py.File(path, "a") as file:
        file["particles/A/external_map"][2, 3] = np.nan
    with pytest.raises(InputError, match="/particles/A/external_map is not finite at 1 of 24 pixels"):
        read_video(path)
