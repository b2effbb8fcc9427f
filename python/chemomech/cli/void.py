"""`chemomech void`: phase separation of a particle with voids."""

import logging
from pathlib import Path
from typing import Annotated

import typer

log = logging.getLogger(__name__)


def void(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to simulate, chemomech-void/1.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the results.")],
    restart: Annotated[bool, typer.Option("--restart", help="Go on from the last checkpoint in OUT.")] = False,
) -> None:
    """Simulate phase separation and coherent strain of a particle with voids.

    Leaves frames for ParaView, log.csv, checkpoints and report.html in OUT.
    """
    # Imported here so that help, doctor and a mistyped option answer at once.
    from chemomech.cli.void_run import VoidRun
    from chemomech.report.void import write_report

    run = VoidRun(config, output, restart=restart)
    if run.to_the_end():
        write_report(
            output,
            run.particle(),
            run.log.records,
            inputs=[config, *run.files],
            settings=run.settings(),
            warnings=run.warnings,
        )
        log.info("report: %s", (output / "report.html").resolve())
