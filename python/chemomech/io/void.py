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
from chemomech.io.files import atomic_path
from chemomech.io.vtkhdf import write_frame
from chemomech.mechanics.voxel import Equilibrium
from chemomech.phasefield.node_grid import NodeGrid
from chemomech.phasefield.void import Instant, StepRecord

LOG = "log.csv"
#: ParaView takes six components for those of a symmetric tensor, aa, bb, cc, ab, bc, ac; ours are Voigt's.
_TENSOR, _HALF_SHEAR = [0, 1, 2, 5, 3, 4], np.array([1, 1, 1, 0.5, 0.5, 0.5])
_MANY = ("compositions", "elastic_potentials", "displacements")


def pack(instant: Instant) -> dict[str, Any]:
    """The state as arrays for `io.checkpoint`, to the last bit."""
    arrays: dict[str, Any] = {}
    for field in fields(instant):
        value = getattr(instant, field.name)
        if field.name in _MANY:
            arrays.update({f"{field.name}_{i}": each for i, each in enumerate(value)})
        else:
            arrays[field.name] = np.array(value)
    return arrays


def unpack(arrays: dict[str, Any]) -> Instant:
    """The state that `pack` packed."""

    def several(name: str) -> tuple[Float, ...]:
        return tuple(arrays[f"{name}_{i}"] for i in range(3) if f"{name}_{i}" in arrays)

    return Instant(
        step=int(arrays["step"]),
        time_s=float(arrays["time_s"]),
        next_length_s=float(arrays["next_length_s"]),
        lengths_s=tuple(arrays["lengths_s"].tolist()),
        compositions=several("compositions"),
        potential=arrays["potential"],
        elastic_potentials=several("elastic_potentials"),
        displacements=several("displacements"),
        energy_aJ=float(arrays["energy_aJ"]),
        mean_composition=float(arrays["mean_composition"]),
    )


class Log:
    """log.csv: one line a step, handed to the system when the step is done.

    Parameters
    ----------
    folder : where it stands.
    keep : the last step of an earlier run that is kept; None for a new log.

    Raises
    ------
    InputError : it cannot be written.
    """

    def __init__(self, folder: Path, keep: int | None) -> None:
        self.path = folder / LOG
        self.records: list[StepRecord] = [] if keep is None else [r for r in read_log(folder) if r.step <= keep]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(StepRecord))
            writer.writerows(_row(record) for record in self.records)
        self._file = self.path.open("a", newline="")

    def append(self, record: StepRecord) -> None:
        self.records.append(record)
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
    nodes = instant.compositions[0][tuple(slice(1, n + 2) for n in grid.box.cells)]
    point, cell = {"composition": nodes}, {"solid": solid.astype(float)}
    if elastic is not None:
        point["displacement_nm"] = elastic.displacement_nm
        cell["elastic_strain"] = elastic.elastic_strain[..., _TENSOR] * _HALF_SHEAR
        cell["stress_GPa"] = elastic.stress_GPa[..., _TENSOR]
    write_frame(path, solid, grid.spacing_nm, point, cell)
