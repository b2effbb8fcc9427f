"""How well a known law comes back (Deng SI, Fig. S5a-c)."""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from chemomech.learn.eigenstrain import EigenstrainResult
from chemomech.learn.twins import TWIN_LAW, NoiseRobustness
from chemomech.report.curves import plot_expansion
from chemomech.report.style import AXIS_COLOUR, INK, STYLE, new_axes


@rc_context(STYLE)
def plot_truth(result: EigenstrainResult) -> Axes:
    """The learned chemical expansion coefficients in % with their bands, and those of the twins' law (dotted)."""
    ax = plot_expansion(result)
    composition = np.linspace(0, 1, 201)
    ax.plot(composition, 100 * TWIN_LAW.derivative(composition), color=INK, linestyle=":", linewidth=1.2, zorder=4)
    return ax


@rc_context(STYLE)
def plot_noise_robustness(robustness: NoiseRobustness, ax: Axes | None = None) -> Axes:
    """Relative error of df/dX in % along a and c against the noise of the composition in %."""
    ax = ax or new_axes(5.2, 3.4)
    for axis, errors, marker in zip("ac", robustness.errors.T, "os", strict=True):
        ax.plot(100 * robustness.levels, 100 * errors, color=AXIS_COLOUR[axis], marker=marker, label=f"along {axis}")
    ax.set(xlabel="Noise of the composition (% of its span)", ylabel=r"Error of d$f$/d$X$, r.m.s. (%)", ylim=(0, None))
    ax.legend()
    return ax
