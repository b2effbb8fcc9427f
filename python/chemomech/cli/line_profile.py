"""`chemomech line-profile`: dislocation densities from the shape of powder diffraction peaks."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from chemomech.errors import InputError

log = logging.getLogger(__name__)


def line_profile(
    peaks: Annotated[Path, typer.Argument(metavar="PEAKS.h5", help="Diffraction peaks, line-profile-peaks/1.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the results.")],
) -> None:
    """Find dislocation densities and slip systems from the shape of diffraction peaks.

    Leaves result.json and report.html in OUT; those of an earlier run are replaced.
    """
    # Imported here so that help, doctor and a mistyped option answer at once.
    from chemomech.io.files import output_folder
    from chemomech.io.line_profile import read_peaks, write_result
    from chemomech.learn.line_profile import analyse_powder
    from chemomech.report.line_profile import write_report

    with output_folder(output) as folder:
        powder = read_peaks(peaks)
        try:
            result = analyse_powder(powder)
        except InputError as error:
            raise InputError(f"{peaks}: {error}") from error
        write_result(folder, result)
        write_report(folder, result, inputs=[peaks])
    for name, peak in result.peaks.items():
        log.info(
            "%s: rho* = %.3g (M2), %.3g (M4) +- %.2g 1/um^2",
            name,
            1e6 * peak.M2.density_per_nm2,
            1e6 * peak.M4.density_per_nm2,
            1e6 * peak.density_error,
        )
    for warning in result.warnings:
        log.warning("warning: %s", warning)
    log.info("report: %s", (output / "report.html").resolve())
