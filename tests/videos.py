"""Synthetic videos of reacting particles, by the package's own forward model on finer cells than learning uses."""

import h5py
import numpy as np

from chemomech.learn.random_field import field_modes
from chemomech.phasefield.reaction import MeanRate, ReactionLaw, cell_mesh, react

GRADIENT_NM2 = 467.0
BINODAL = 0.0185
#: A regular solution of 4.13 kT, whose binodal is that, and an exchange current with its maximum at c = 0.36.
LAW = ReactionLaw(np.array([0.0, -np.log(1 / BINODAL - 1) / (1 - 2 * BINODAL)]), np.array([2.0, -0.5, -0.6]))


def film(mask, log_k, rate_per_h, seed, noise, n_frames=6, law=LAW):
    """Times (h) and noisy frames (n_t, n_pixels) of one half-cycle between 10 and 90 % lithium."""
    random = np.random.default_rng(seed)
    mesh = cell_mesh(mask, 50.0, GRADIENT_NM2, 8)
    field = field_modes(mesh.pixel_position_px, 2.0, 0.99).at(mesh.position_px)
    start = 0.1 if rate_per_h > 0 else 0.9
    initial = start + 0.01 * field @ random.standard_normal(field.shape[1])
    time_h = np.linspace(0, 0.78 / abs(rate_per_h), n_frames)
    rate = MeanRate(np.array([0.0]), np.array([rate_per_h]))
    frames = react(mesh, law, log_k, initial, time_h, rate, gradient_nm2=GRADIENT_NM2).frames()
    return time_h, frames + noise * random.standard_normal(frames.shape)


def write_video(path, shapes, noise, spread=0.4, seed=0, half_cycles=None, law=LAW, binodal=BINODAL):
    """A reaction-video/1 file of elliptical particles; returns ln k of each.

    Each has a discharge and a charge, the last ones no charge where there are fewer `half_cycles`. `binodal` is that of
    the law.
    """
    random = np.random.default_rng(seed)
    truth = {}
    with h5py.File(path, "w") as file:
        file.attrs.update(
            schema="reaction-video/1", site_density_nm3=13.76, kT_eV=0.0257, alpha=0.5, noise_sigma=noise,
            mechanics="off", boundary="no_flux", binodal=binodal, kappa_eV_per_nm=GRADIENT_NM2 * 13.76 * 0.0257,
        )  # fmt: skip
        for i, (ny, nx) in enumerate(shapes):
            y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
            mask = x**2 + y**2 < 1.1
            modes = field_modes(np.argwhere(mask).astype(float), 2.0, 0.99).pixels
            log_k = spread * modes @ random.standard_normal(modes.shape[1])
            group = file.create_group(f"particles/P{i + 1}")
            group.attrs["pixel_size_nm"] = 50.0
            group["mask"] = mask
            truth[f"P{i + 1}"] = log_k
            both = half_cycles is None or i < half_cycles - len(shapes)
            for k, (mode, rate) in enumerate((("discharge", 1.6), ("charge", -1.1))[: 1 + both]):
                time_h, frames = film(mask, log_k, rate, 1000 * seed + 10 * i + k, noise, law=law)
                half = group.create_group(f"half_cycles/{k}")
                half.attrs["mode"] = mode
                half["time_s"] = 3600 * time_h
                maps = np.full((len(frames), *mask.shape), np.nan)
                maps[:, mask] = frames
                half["li_fraction"] = maps
    return truth
