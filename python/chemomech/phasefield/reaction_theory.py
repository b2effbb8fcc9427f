"""What theory says of a reaction law, to set beside a learned one."""

import numpy as np
from numpy.polynomial import legendre
from scipy.special import erfc

from chemomech.arrays import Float
from chemomech.phasefield.reaction import ReactionLaw

_NEWTON_STEPS = 60


def coupled_ion_electron_transfer(c: Float, reorganisation_kT: float = 8.3, ion: float = 1.0) -> Float:
    """Exchange current of coupled ion-electron transfer, in units of its own constant (Zhao et al. 2023, eq. 3).

    (1 - c) a erfc((lambda - sqrt(1 + sqrt(lambda) + ln(ion / c)^2)) / (2 sqrt(lambda))), a = ion c / (ion + c).

    Parameters
    ----------
    c : lithium fraction; `ion` that of the ions beside the surface; `reorganisation_kT` lambda.
    """
    root = np.sqrt(1 + np.sqrt(reorganisation_kT) + np.log(ion / c) ** 2)
    barrier = (reorganisation_kT - root) / (2 * np.sqrt(reorganisation_kT))
    return np.asarray((1 - c) * ion * c / (ion + c) * erfc(barrier))


def autocatalytic_rate(law: ReactionLaw, c: Float, rate_per_h: float) -> Float:
    """s = dR/dc at fixed potential of a uniform particle that reacts at R (1/h); positive where domains grow.

    R d ln j0/dc + dR/de d mu_h/dc (Zhao et al. 2023, main text; Bazant 2017), without gradients.
    """
    j0, x = law.exchange_current(c), 2 * c - 1
    e = np.zeros_like(c)
    for _ in range(_NEWTON_STEPS):
        forward, backward = j0 * np.exp(-law.alpha * e), j0 * np.exp((1 - law.alpha) * e)
        slope = law.alpha * forward + (1 - law.alpha) * backward
        e = e + np.clip((forward - backward - rate_per_h) / slope, -2, 2)
    log_j0_slope = 2 * legendre.legval(x, legendre.legder(law.log_j0))
    mu_slope = 1 / (c * (1 - c)) + 2 * legendre.legval(x, legendre.legder(law.mu))
    return np.asarray(rate_per_h * log_j0_slope - slope * mu_slope)


def uniformity(composition: Float, noise: float = 0.0) -> Float:
    """Uniformity coefficient of frames (n_t, n_pixels): 1 when all pixels are alike, 0 when each is empty or full.

    1 - variance / (mean (1 - mean)), the variance less that of the noise (Lim et al. 2016; Zhao et al. 2023).
    """
    mean = composition.mean(axis=1)
    return np.asarray(1 - (composition.var(axis=1) - noise**2) / (mean * (1 - mean)))
