"""A simulation's state in checkpoints, its steps in log.csv, its instants in frames."""

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from chemomech.arrays import Bool, Float
from chemomech.errors import InputError
from chemomech.io.checkpoint import Checkpoint
from chemomech.io.files import atomic_path
from chemomech.io.vtkhdf import write_frame
from chemomech.mechanics.voxel import Equilibrium
from chemomech.phasefield.node_grid import NodeGrid
from chemomech.phasefield.void import Instant, StepRecord

LOG = "log.csv"
#: ParaView takes six components for those of a symmetric tensor, aa, bb, cc, ab, bc, ac; ours are Voigt's.
_TENSOR, _HALF_SHEAR = [0, 1, 2, 5, 3, 4], np.array([1, 1, 1, 0.5, 0.5, 0.5])
#: What of an instant is one number, or a tuple of them.
_NUMBERS = ("step", "time_s", "next_length_s", "lengths_s", "energy_aJ", "mean_composition")


def pack(instant: Instant, grid: NodeGrid, solid: Bool, about: dict[str, Any]) -> Checkpoint:
    """An instant to the last bit, and what a restart must know about the run."""
    of_nodes = {
        "potential": (instant.potential,),
        "compositions": instant.compositions,
        "elastic_potentials": instant.elastic_potentials,
    }
    of_corners = {name: tuple(map(grid.at_corners, several)) for name, several in of_nodes.items()}
    of_corners["displacements"] = instant.displacements
    numbers = {name: getattr(instant, name) for name in _NUMBERS}
    corners = {f"{name}_{i}": each for name, several in of_corners.items() for i, each in enumerate(several)}
    return Checkpoint(numbers | about, {"solid": solid}, corners)


def unpack(checkpoint: Checkpoint, grid: NodeGrid) -> Instant:
    """The instant that `pack` packed."""
    corners = checkpoint.corners
    own = tuple(slice(n) for n in grid.box.nodes)

    def several(name: str) -> tuple[Float, ...]:
        return tuple(corners[f"{name}_{i}"] for i in range(3) if f"{name}_{i}" in corners)

    def of_nodes(name: str) -> tuple[Float, ...]:
        return tuple(grid.of_nodes(each[own]) for each in several(name))

    numbers = {name: checkpoint.state[name] for name in _NUMBERS}
    return Instant(
        **numbers | {"lengths_s": tuple(numbers["lengths_s"])},
        compositions=of_nodes("compositions"),
        potential=of_nodes("potential")[0],
        elastic_potentials=of_nodes("elastic_potentials"),
        displacements=several("displacements"),
    )


class Log:
    """log.csv: one line a step, handed to the system when the step is done.

    Parameters
    ----------
    folder : where it stands.
    records : it begins with these.

    Raises
    ------
    InputError : it cannot be written.
    """

    def __init__(self, folder: Path, records: Sequence[StepRecord]) -> None:
        self.path = folder / LOG
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(StepRecord))
            writer.writerows(_row(record) for record in records)
        self._file = self.path.open("a", newline="")

    def append(self, record: StepRecord) -> None:
        try:
            csv.writer(self._file).writerow(_row(record))
            self._file.flush()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from error

    def close(self) -> None:
        try:
            try:
                os.fsync(self._file.fileno())
            finally:
                self._file.close()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from error

    def settle(self) -> None:
        """Wait until what was appended is on the disk: a checkpoint must not be ahead of it."""
        os.fsync(self._file.fileno())


def _row(record: StepRecord) -> Sequence[str]:
    return [repr(value) for value in asdict(record).values()]


def read_log(folder: Path) -> list[StepRecord]:
    """The steps in log.csv; a line cut short by the end of a process ends them."""
    path = folder / LOG
    kinds = get_type_hints(StepRecord)
    records = []
    try:
        with path.open(newline="") as file:
            lines = iter(csv.reader(file))
            next(lines, None)
            for line in lines:
                try:
                    values = {name: kind(text) for (name, kind), text in zip(kinds.items(), line, strict=True)}
                except ValueError:
                    break
                records.append(StepRecord(**values))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return records


def write_instant(path: Path, grid: NodeGrid, solid: Bool, instant: Instant, elastic: Equilibrium | None) -> None:
    """One frame: composition and displacement at the nodes, strain and stress tensors of the voxels."""
    point, cell = {"composition": grid.at_corners(instant.compositions[0])}, {"solid": solid.astype(float)}
    if elastic is not None:
        point["displacement_nm"] = elastic.displacement_nm
        cell["elastic_strain"] = elastic.elastic_strain[..., _TENSOR] * _HALF_SHEAR
        cell["stress_GPa"] = elastic.stress_GPa[..., _TENSOR]
    write_frame(path, grid.box, solid, grid.spacing_nm, point, cell)
