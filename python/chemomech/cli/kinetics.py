"""`chemomech kinetics`: free energy, exchange current and local rate constants from videos."""

import logging
from pathlib import Path
from typing import Annotated

import typer

log = logging.getLogger(__name__)


def kinetics(
    video: Annotated[Path, typer.Argument(metavar="VIDEO.h5", help="Videos of particles, reaction-video/1.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the results.")],
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML with rho_2 and posterior_samples.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out particles and half-cycles that cannot be used.")
    ] = False,
) -> None:
    """Learn reaction kinetics from videos of the lithium fraction; under mpiexec, on many processes.

    A run that is stopped (Ctrl-C, SIGTERM) or killed leaves its search in OUT/.unfinished; the next with the same video
    and settings goes on from there.
    Leaves result.json, result.h5, report.html and videos/ in OUT; those of an earlier run are replaced.
    """
    # Imported here so that help, doctor and a mistyped option answer at once.
    import numpy as np

    from chemomech.cli.unfinished import until_finished
    from chemomech.io.files import output_folder
    from chemomech.io.kinetics import read_settings, write_result
    from chemomech.io.video import read_video
    from chemomech.learn.kinetics import learn_kinetics
    from chemomech.observe.video import MINUTES_AN_HOUR
    from chemomech.parallel.launch import tasks_on
    from chemomech.report.kinetics import write_report
    from chemomech.report.kinetics_video import write_videos

    unfinished = output / ".unfinished"
    with output_folder(output) as folder, until_finished(unfinished):
        settings = read_settings(config) if config else None
        films = read_video(video, skip_bad=skip_bad)
        halves = [half for particle in films.particles.values() for half in particle.half_cycles]
        minutes = [MINUTES_AN_HOUR * float(np.ptp(half.time_h)) for half in halves]
        found = (len(films.particles), len(halves), min(minutes), max(minutes))
        log.info("%d particles, %d half-cycles of %.3g to %.3g min", *found)
        result = learn_kinetics(films, settings, tasks=tasks_on(), unfinished=unfinished)
        write_result(folder, result)
        write_report(folder, result, inputs=[video])
        write_videos(folder, result)
    log.info(
        "the model meets the frames within %.4f RMS at a noise of %.4f; the search ended: %s",
        result.rmse,
        result.noise,
        result.reason,
    )
    for warning in result.warnings:
        log.warning("warning: %s", warning)
    log.info("report: %s", (output / "report.html").resolve())
