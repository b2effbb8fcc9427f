"""`chemomech learn`: the composition-eigenstrain law from aligned maps."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from chemomech.errors import InputError
from chemomech.units import SQUARE_UM

if TYPE_CHECKING:
    from chemomech.learn.eigenstrain import EigenstrainResult

log = logging.getLogger(__name__)


def learn(
    maps: Annotated[Path, typer.Argument(metavar="MAPS.h5", help="Aligned maps, correlative-stack/1.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the results.")],
    order: Annotated[str, typer.Option(metavar="N|auto", help="Legendre order of the law.")] = "auto",
    test: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Keep a particle out of the fit; repeat for several.")
    ] = None,
    boundary: Annotated[
        Literal["free", "dirichlet"], typer.Option(help="Traction-free edges, or the measured displacement.")
    ] = "free",
    misfit: Annotated[
        Literal["strain", "displacement"], typer.Option(help="What is compared with the image.")
    ] = "strain",
    models: Annotated[str, typer.Option(metavar="M0,M1,M2", help="Models to fit.")] = "M0,M1",
) -> None:
    """Learn the composition-eigenstrain law from aligned maps; under mpiexec, on many processes.

    A run that is stopped (Ctrl-C, SIGTERM) or killed leaves what it has done in OUT/.unfinished; the next with the same
    options goes on from there.
    Leaves result.json, result.h5, report.html and figures/ in OUT; those of an earlier run are replaced.
    """
    # Imported here so that help, doctor and a mistyped option answer at once.
    from chemomech.cli.unfinished import until_finished
    from chemomech.io.correlative import read_stack
    from chemomech.io.eigenstrain import write_result
    from chemomech.io.files import output_folder
    from chemomech.learn.eigenstrain import learn_eigenstrain
    from chemomech.parallel.launch import tasks
    from chemomech.report.eigenstrain import write_report
    from chemomech.tasks import remembered

    unfinished = output / ".unfinished"
    with output_folder(output) as folder, until_finished(unfinished):
        particles = read_stack(maps)
        result = learn_eigenstrain(
            particles,
            order=_order(order),
            test=test or (),
            boundary=boundary,
            misfit=misfit,
            models=[model.strip() for model in models.split(",")],
            tasks=remembered(tasks(), unfinished),
        )
        write_result(folder, result)
        options = {"order": order, "boundary": boundary, "misfit": misfit, "models": models}
        if test:
            options["test"] = ", ".join(test)
        write_report(folder, result, inputs=[maps], options=options, tasks=tasks())
    summarise(result, output)


def summarise(result: "EigenstrainResult", output: Path) -> None:
    """Log the law in a line for each axis, the warnings, and where the report is."""
    law = result.laws[result.main]
    for i, axis in enumerate("ac"):
        slope, band = law.derivative(0.5)[i], law.derivative_band(0.5)[i]
        log.info(
            "%s, order %d: d eps_%s/dX = %+.5f +- %.5f (95 %%) at X = 0.5",
            result.main,
            law.order,
            axis * 2,
            slope,
            band,
        )
    if result.dislocations:
        found = result.dislocations
        log.info(
            "M2: dislocations %s, mean density %.0f per um^2 (noise alone: %.0f)",
            f"with b = {found.burgers}" if found.burgers else "not needed",
            SQUARE_UM * found.mean_abs_density_per_nm2,
            SQUARE_UM * found.mean_abs_of_noise_per_nm2,
        )
    for warning in result.warnings:
        log.warning("warning: %s", warning)
    log.info("report: %s", (output / "report.html").resolve())


def _order(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--order must be auto or a positive integer, got {text!r}") from None
