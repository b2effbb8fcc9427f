"""Diffraction peaks of known dislocation density and size: numerical transforms of their Fourier coefficients.

Nothing here is shared with the package: `wilkens_peak` transforms the exact function of Wilkens, not its expansion, and
`simulated_peak` the coefficients that another group's program gave for dislocations at known places.
"""

from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

#: Borbely's lpa-xrd, screw dislocations in a cubic crystal: `shared/reference/line_profile` beside the project.
SIMULATED = Path(__file__).parents[2] / "shared" / "reference" / "line_profile"


def wilkens_function(eta):
    """f*(eta) (Wilkens 1970, in "Fundamental Aspects of Dislocation Theory", vol. II, NBS, p. 1195)."""
    v = np.linspace(0, 1, 4001)
    ratio = np.divide(np.arcsin(v), v, out=np.ones_like(v), where=v > 0)
    integral = np.concatenate([[0], np.cumsum((ratio[1:] + ratio[:-1]) / 2 * np.diff(v))])
    e = np.clip(eta, 1e-12, 1)
    near = (
        -np.log(e) + 7 / 4 - np.log(2) + 512 / (90 * np.pi * e)
        + 2 / np.pi * (1 - 1 / (4 * e**2)) * np.interp(e, v, integral)
        - (769 / (180 * e) + 41 * e / 90 + e**3 / 45) * np.sqrt(1 - e**2) / np.pi
        - (11 / (12 * e**2) + 7 / 2 + e**2 / 3) * np.arcsin(e) / np.pi + e**2 / 6
    )  # fmt: skip
    series = -np.log(e) + 7 / 4 - np.log(2) + e**2 / 6 - 32 * e**3 / (225 * np.pi)  # near 0 the sum above cancels
    h = np.maximum(eta, 1)
    far = 512 / (90 * np.pi * h) - (11 / 24 + np.log(2 * h) / 4) / h**2
    return np.where(eta > 1, far, np.where(e < 0.05, series, near))


def wilkens_peak(q, density, cutoff_nm, size_nm=np.inf, step_nm=0.02, n=1 << 19):
    """I(q) of the area 1: A(L) = exp(-rho* L^2 f*(L/Re) - L/epsilon_F), transformed."""
    length = np.arange(n // 2 + 1) * step_nm
    exponent = -density * length**2 * wilkens_function(np.maximum(length, 1e-9) / cutoff_nm) - length / size_nm
    intensity = np.fft.fftshift(np.fft.irfft(np.exp(exponent), n)) * n * step_nm
    return np.interp(q, np.fft.fftshift(np.fft.fftfreq(n, step_nm)), intensity)


def counted(intensity, q, *, top, background, seed):
    """Photons: Poisson numbers about a profile with `top` counts in its maximum and a sloping background."""
    mean = top * intensity / intensity.max() + background * (1 + 0.3 * q / q.max())
    return np.random.default_rng(seed).poisson(mean).astype(float)


def simulated_peak(path, order, *, half_widths=20, points=801):
    """q, intensity and true rho* (1/nm^2) of one order of reflection of a simulated crystal.

    A(L) is tabulated every 5 nm. Between and below, ln|A|/L^2, which is linear in ln L near 0, is interpolated, so that
    the profile is not folded at 0.1 1/nm; beyond 150 nm the coefficients, by then noise, are tapered off.
    """
    header = [line.split("#")[0].split() for line in path.read_text().splitlines()[:11]]
    density, burgers, contrast, cell = float(header[1][0]), header[3], float(header[5][0]), float(header[6][0])
    gb2 = (order * 2 / cell) ** 2 * sum(float(u) ** 2 for u in burgers) * (cell / 2) ** 2  # b = 1/2 <110>, g = 200
    true = np.pi / 2 * gb2 * contrast * density * 1e-18
    table = np.genfromtxt(path, skip_header=12)
    length, first = table[:, 0], 1 + 4 * (order - 1)
    coefficient = table[:, first] + 1j * table[:, first + 2]
    coefficient = coefficient * np.exp(-1j * np.angle(coefficient[0]) / length[0] * length)  # the mean strain
    n = np.argmax(np.abs(coefficient) < 0.3) + 1
    x = np.log(length[:n])
    slope = CubicSpline(x, np.log(np.abs(coefficient[:n])) / length[:n] ** 2)
    phase = CubicSpline([0, *length[:n]], [0, *np.unwrap(np.angle(coefficient[:n]))])
    fine = np.arange(0.25, 250, 0.25)
    values = CubicSpline([0, *length], [1, *coefficient])(fine)
    near = fine <= length[n - 1]
    at = np.log(fine[near])
    below = slope(x[0]) + (slope(x[1]) - slope(x[0])) / (x[1] - x[0]) * (at - x[0])
    values[near] = np.exp(np.where(at < x[0], below, slope(at)) * fine[near] ** 2 + 1j * phase(fine[near]))
    values = values * np.where(fine > 150, np.cos(np.pi / 2 * np.clip((fine - 150) / 100, 0, 1)) ** 2, 1)
    reach = min(half_widths * true**0.5, 0.6)
    q = np.linspace(-reach, reach, points)
    intensity = 0.25 * (1 + 2 * np.real(np.exp(-2j * np.pi * np.outer(q, fine)) @ values))
    return q, np.maximum(intensity, 0), true
