"""`chemomech demo`: the whole pipeline on a synthetic experiment with a known law."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from chemomech.cli.learn import summarise

log = logging.getLogger(__name__)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the results.")] = Path(
        "chemomech-demo"
    ),
) -> None:
    """Make a synthetic experiment with a known law and learn the law back.

    Leaves maps.h5, what `learn` leaves, and the error of the law against the noise of the data in OUT.
    """
    from chemomech.io.correlative import read_stack, write_stack
    from chemomech.io.eigenstrain import write_result
    from chemomech.io.files import output_folder
    from chemomech.learn.eigenstrain import learn_eigenstrain
    from chemomech.learn.twins import TWIN_LAW, expansion_error, make_experiment, noise_robustness
    from chemomech.report.eigenstrain import write_report
    from chemomech.report.robustness import plot_noise_robustness, plot_truth
    from chemomech.report.style import figure_of

    with output_folder(output) as folder:
        stack = folder / "maps.h5"
        write_stack(stack, make_experiment())
        result = learn_eigenstrain(read_stack(stack))
        robustness = noise_robustness()
        write_result(folder, result)
        extra = [
            ("The law these synthetic maps were made with (dotted) and the one learned back.", plot_truth(result)),
            (
                "Error of df/dX learned back from five synthetic particles against the noise of their maps "
                "(composition noise as given; strain and rotation noise 5 % of it). The data come from finite "
                "differences, the inversion uses finite elements.",
                plot_noise_robustness(robustness),
            ),
        ]
        write_report(
            folder,
            result,
            inputs=[stack],
            options={"data": "synthetic", "order": "auto", "boundary": result.boundary, "misfit": result.misfit},
            extra_figures=[(caption, figure_of(axes)) for caption, axes in extra],
        )
    summarise(result, output)
    along_a, along_c = 100 * expansion_error(result.laws["M1"], TWIN_LAW)
    log.info(
        "df/dX differs from the true law by %.1f %% (a) and %.1f %% (c), root mean square over X = 0..1",
        along_a,
        along_c,
    )
