"""Figure of the law's error against the noise of the data (Deng SI, Fig. S5a-c)."""

from matplotlib.figure import Figure

from chemomech.learn.twins import NoiseRobustness


def plot_noise_robustness(robustness: NoiseRobustness) -> Figure:
    """Relative error of df/dX along a and c against the noise level, one curve each."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for axis, errors, colour, marker in zip("ac", robustness.errors.T, ("#0072B2", "#D55E00"), "os", strict=True):
        axes.plot(100 * robustness.levels, 100 * errors, color=colour, marker=marker, label=f"along {axis}")
    axes.set(xlabel="noise of composition (% of its span)", ylabel="error of df/dX, root mean square (%)", ylim=(0, None))
    axes.legend(frameon=False)
    return figure
