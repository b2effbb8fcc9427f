"""Write video.h5: two particles of LiFePO4 that are discharged and charged, as our own model reacts, with noise."""

from pathlib import Path

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter

from chemomech.phasefield.reaction import MeanRate, ReactionLaw, cell_mesh, react

SITES_PER_NM3, KT_EV, KAPPA_EV_PER_NM = 13.76, 0.0257, 165.0
GRADIENT_NM2 = KAPPA_EV_PER_NM / (SITES_PER_NM3 * KT_EV)  # kappa / (c_s kT)
PIXEL_NM, NOISE, BINODAL = 50.0, 0.05, 0.0185
# A regular solution of 4.13 kT, which has this binodal, and j0 of 7.4 / h at c = 1/2, largest at c = 0.36.
LAW = ReactionLaw(mu=np.array([0.0, -4.126]), log_j0=np.array([1.7, -0.5, -0.6]))

random = np.random.default_rng(7)


def rough(mask, spread):
    """A field (n_pixels,) correlated over about two pixels."""
    field = gaussian_filter(random.standard_normal(mask.shape), 1.4)[mask]
    return spread * (field - field.mean()) / field.std()


path = Path(__file__).with_name("video.h5")
with h5py.File(path, "w") as file:
    file.attrs.update(
        schema="reaction-video/1", site_density_nm3=SITES_PER_NM3, kappa_eV_per_nm=KAPPA_EV_PER_NM, kT_eV=KT_EV,
        alpha=0.5, noise_sigma=NOISE, mechanics="off", boundary="no_flux", binodal=BINODAL,
    )  # fmt: skip
    for name, ny, nx in (("A", 9, 13), ("B", 11, 10)):
        y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
        mask = x**2 + y**2 < 1.1
        mesh = cell_mesh(mask, PIXEL_NM, GRADIENT_NM2, refinement=6)
        log_k = rough(mask, 0.4)
        particle = file.create_group(f"particles/{name}")
        particle.attrs["pixel_size_nm"] = PIXEL_NM
        particle["mask"] = mask
        for i, (mode, start, rate_per_h) in enumerate((("discharge", 0.1, 1.6), ("charge", 0.9, -1.1))):
            time_h = np.linspace(0, 0.78 / abs(rate_per_h), 6)
            initial = start + rough(mask, 0.01)[mesh.pixel]
            rate = MeanRate(np.array([0.0]), np.array([rate_per_h]))
            frames = react(mesh, LAW, log_k, initial, time_h, rate, gradient_nm2=GRADIENT_NM2).frames()
            li_fraction = np.full((len(time_h), ny, nx), np.nan)
            li_fraction[:, mask] = frames + NOISE * random.standard_normal(frames.shape)
            half_cycle = particle.create_group(f"half_cycles/{i}")
            half_cycle.attrs["mode"] = mode
            half_cycle["time_s"] = 3600 * time_h
            half_cycle["li_fraction"] = li_fraction
print(f"{path}: 2 particles, 4 half-cycles")
