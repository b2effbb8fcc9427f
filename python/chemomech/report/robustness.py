"""The error of the learned law against the noise of the data (Deng SI, Fig. S5a-c)."""

from matplotlib import rc_context
from matplotlib.axes import Axes

from chemomech.learn.twins import NoiseRobustness
from chemomech.report.style import AXIS_COLOUR, STYLE, new_axes


@rc_context(STYLE)
def plot_noise_robustness(robustness: NoiseRobustness, ax: Axes | None = None) -> Axes:
    """Relative error of df/dX in % along a and c against the noise of the composition in %."""
    ax = ax or new_axes(5.2, 3.4)
    for axis, errors, marker in zip("ac", robustness.errors.T, "os", strict=True):
        ax.plot(100 * robustness.levels, 100 * errors, color=AXIS_COLOUR[axis], marker=marker, label=f"along {axis}")
    ax.set(xlabel="Noise of the composition (% of its span)", ylabel=r"Error of d$f$/d$X$, r.m.s. (%)", ylim=(0, None))
    ax.legend()
    return ax
