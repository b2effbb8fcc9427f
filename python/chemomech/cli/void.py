"""`chemomech void`: phase separation of a particle with voids."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from chemomech.errors import InputError
from chemomech.parallel import launch

log = logging.getLogger(__name__)


def void(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to simulate, chemomech-void/1.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the results.")],
    restart: Annotated[bool, typer.Option("--restart", help="Go on from the last checkpoint in OUT.")] = False,
) -> None:
    """Simulate phase separation and coherent strain of a particle with voids.

    Leaves frames for ParaView, log.csv, checkpoints and report.html in OUT. Under mpiexec the particle is cut into a
    box for each rank.
    """
    if ranks := launch.ranks():
        ranks.together(_simulate, config, output, restart)
    else:
        _simulate(None, config, output, restart)


def _simulate(comm: Any, config: Path, output: Path, restart: bool) -> None:
    """On every rank of a communicator, or here alone where it is None."""
    # Imported here so that help, doctor and a mistyped option answer at once.
    from chemomech.cli.void_run import VoidRun
    from chemomech.mechanics.box import Box
    from chemomech.report.void import write_report

    box_of: Callable[..., Box] = Box
    if comm is not None:
        try:
            from chemomech.parallel.grid import cut
        except ImportError as error:
            raise InputError(f"many ranks need PETSc ({error}): python -m pip install 'chemomech[mpi]'") from error
        if comm.Get_rank() > 0:
            logging.disable()  # all say the same
        # Lines along b are relaxed from end to end.
        box_of = partial(cut, comm=comm, uncut=(1,))
    run = VoidRun(config, output, restart=restart, box_of=box_of)
    if not run.to_the_end():
        return
    particle = run.particle()
    if run.box.leads:
        write_report(
            output,
            particle,
            run.records,
            inputs=[config, *run.files],
            settings=run.settings(),
            warnings=run.warnings,
        )
        log.info("report: %s", (output / "report.html").resolve())
