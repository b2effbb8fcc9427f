"""`chemomech compose`: from spectra and lattice maps to aligned maps."""

import logging
from pathlib import Path
from typing import Annotated

import numpy.typing as npt
import typer

log = logging.getLogger(__name__)


def compose(
    raw: Annotated[Path, typer.Argument(metavar="RAW.h5", help="Spectra and lattice maps, correlative-raw/1.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MAPS.h5", help="File for the aligned maps.")],
) -> None:
    """Fit the composition to X-ray spectra and align it with the lattice maps.

    Leaves aligned maps (correlative-stack/1) that `learn` reads, and beside them a page of the same name, MAPS.html.
    """
    from chemomech.errors import InputError
    from chemomech.io.correlative import write_stack
    from chemomech.io.files import atomic_path, writable
    from chemomech.io.raw import read_raw
    from chemomech.observe.composition import compose_particle
    from chemomech.progress import progress
    from chemomech.report.composition import doubts, write_report

    page = output.with_suffix(".html")
    if page == output:
        raise InputError(f"{output}: the page takes this name; give the maps another ending, such as .h5")
    writable(output)
    references, particles = read_raw(raw)
    composed = []
    with progress("particles", len(particles)) as advance:
        for particle in particles:
            composed.append(compose_particle(particle, references))
            advance()
    attributes: dict[str, dict[str, npt.ArrayLike]] = {
        each.maps.name: {
            "registration_matrix": each.registration.matrix,
            "registration_translation_nm": each.registration.translation_nm,
            "registration_score": each.registration.score,
        }
        for each in composed
    }
    with atomic_path(page) as temporary:
        write_report(temporary, composed, inputs=[raw])
        write_stack(output, [each.maps for each in composed], attributes)
    for each in composed:
        shift, score = each.registration.translation_nm, each.registration.score
        log.info("%s: shifted by %+.0f, %+.0f nm, correlation %.3f", each.maps.name, *shift, score)
    for doubt in doubts(composed):
        log.warning("warning: %s", doubt)
    log.info("maps: %s", output.resolve())
    log.info("report: %s", page.resolve())
