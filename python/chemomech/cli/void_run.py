"""One run of `chemomech void`: from the configuration to the last checkpoint."""

import hashlib
import json
import logging
import math
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

from chemomech import _core
from chemomech.arrays import Bool, Float
from chemomech.errors import InputError
from chemomech.io.blocks import remove_unfinished
from chemomech.io.checkpoint import checkpoints, read_checkpoint, write_checkpoint
from chemomech.io.files import writable
from chemomech.io.void import Log, pack, read_log, unpack, write_instant
from chemomech.io.void_config import (
    Initial,
    cells_of,
    eigenstrain_of,
    free_energy_of,
    read_config,
    solid_of,
    stiffness_of,
)
from chemomech.io.volume import read_volume
from chemomech.io.vtkhdf import write_series
from chemomech.mechanics.box import Box
from chemomech.mechanics.voxel import Equilibrium, VoxelBody
from chemomech.phasefield.cahn_hilliard import CahnHilliard, Transport
from chemomech.phasefield.coherency import Coherency
from chemomech.phasefield.free_energy import RegularSolution
from chemomech.phasefield.node_grid import NodeGrid, node_grid
from chemomech.phasefield.void import StepRecord, VoidSimulation
from chemomech.progress import progress_in_time
from chemomech.report.void import Particle, summarise

log = logging.getLogger(__name__)

#: Cells across an interface below which its energy depends on where it lies on the grid.
_CELLS_ACROSS = 4
#: A signal so long after the first is meant at once; a queue's may come twice, from the launcher too.
_MEANT_AGAIN_S = 3.0
#: Without a terminal a line is written at least this often.
_SILENCE_S = 30.0


class VoidRun:
    """A simulation in a folder, fresh or continued, on one process or on each of many.

    Parameters
    ----------
    config_path : chemomech-void/1.
    folder : for the results.
    restart : go on from the last checkpoint in it.
    box_of : of a grid's cells and periodic axes, what of it is computed here.

    Attributes
    ----------
    records : of all steps.

    Raises
    ------
    InputError : a configuration that cannot be used; a folder that holds a run already, or none to go on from.
    """

    def __init__(
        self,
        config_path: Path,
        folder: Path,
        *,
        restart: bool,
        box_of: Callable[[tuple[int, int, int], tuple[bool, bool, bool]], Box] = Box,
    ) -> None:
        self.config = read_config(config_path)
        self.folder = folder
        if not restart and checkpoints(folder):
            raise InputError(f"{folder}: holds a run already; go on with --restart, or name another folder")
        writable(folder / "log.csv")
        self.warnings: list[str] = []
        if restart and not folder.is_dir():
            raise InputError(f"{folder}: there is no run to go on with; leave out --restart")
        self.box = box_of(cells_of(self.config.domain), self.config.domain.periodic)
        self.simulation, self.solid = self._assemble(solid_of(self.config.domain, self.box))
        self.grid = self.simulation.grid
        self._physics = self._fingerprint()
        self._elastic: Equilibrium | None = None
        self._checkpoint_step: int | None = None
        self._frames: dict[str, float] = {}
        if self.box.leads:
            remove_unfinished(folder, "checkpoint-*.h5")
            remove_unfinished(folder / "frames", "frame-*.vtkhdf")
            for unfinished in folder.glob(".log.csv.*"):
                shutil.rmtree(unfinished, ignore_errors=True)
        if restart and self.box.from_first(bool(checkpoints(folder))):
            self._resume()
        else:
            if restart:
                log.info("there is no checkpoint yet: beginning anew")
            self._begin()

    def _assemble(self, solid: Bool) -> tuple[VoidSimulation, Bool]:
        config = self.config
        material, surface = config.material, config.surface
        spacing = np.array(config.domain.spacing_nm)
        solid = self._without_islands(solid)
        law = free_energy_of(material)
        gradient = np.array(material.gradient_eV_nm2) / material.kT_eV
        self._question_resolution(law, gradient, spacing)
        grid = node_grid(solid, spacing, self.box)
        transport = Transport(
            law,
            gradient,
            np.array(material.diffusivity_nm2_per_s),
            exchange_nm_per_s=surface.exchange_per_nm2_s / material.site_density_nm3,
            reservoir_kT=surface.reservoir_eV / material.kT_eV,
        )
        stiffness = stiffness_of(material)
        coherency = None
        if stiffness is not None:
            share = np.zeros(solid.shape) if stiffness.ndim == 3 else None
            body = VoxelBody(solid, spacing, stiffness, share=share, box=self.box)
            kT_per_nm3 = material.kT_eV * material.site_density_nm3
            coherency = Coherency(grid, body, eigenstrain_of(material), kT_per_nm3)
        simulation = VoidSimulation(
            CahnHilliard(grid, transport),
            coherency,
            site_density_nm3=material.site_density_nm3,
            kT_eV=material.kT_eV,
            tolerance=config.time.tolerance,
            wetting_kT_per_nm2=surface.wetting_eV_per_nm2 / material.kT_eV,
        )
        return simulation, solid

    def _without_islands(self, solid: Bool) -> Bool:
        pieces, count = self.box.label(solid, np.ones((3, 3, 3)))
        if count == 1 or self.config.domain.islands == "keep":
            return solid
        sizes = self.box.sum(np.bincount(pieces.ravel(), minlength=count + 1))[1:]
        largest = int(sizes.argmax())
        others = int(sizes.sum() - sizes[largest])
        if self.config.domain.islands == "refuse":
            raise InputError(
                f"domain: the solid is in {count} pieces; beside the largest of {sizes[largest]} voxels there are "
                f'{others} in others. Move the voids, or set domain.islands to "largest" or "keep"'
            )
        self._warn(f"{count - 1} islands with {others} voxels are left out")
        return np.asarray(pieces == largest + 1)

    def _question_resolution(self, law: RegularSolution, gradient: Float, spacing: Float) -> None:
        poor, rich = law.binodal()
        if rich <= poor:
            self._warn(f"omega of {law.omega:.3g} kT separates no phases (2 kT is needed)")
            return
        x = np.array([poor, 0.5])
        foot, top = law.energy(np.clip(x, 1e-12, None))
        coarse: dict[tuple[float, float], list[str]] = {}
        for axis, h, kappa in zip("abc", spacing, gradient, strict=True):
            width = (rich - poor) * math.sqrt(kappa / (2 * (top - foot)))
            if h * _CELLS_ACROSS > width:
                coarse.setdefault((width, h), []).append(axis)
        for (width, h), axes in coarse.items():
            self._warn(
                f"an interface is {width:.3g} nm wide along {' and '.join(axes)}, where a voxel of {h:g} nm is too "
                f"coarse: its energy will depend on where it lies; take {width / _CELLS_ACROSS:.2g} nm or less"
            )

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        log.warning("warning: %s", text)

    def _begin(self) -> None:
        composition = initial_composition(
            self.config.initial, self.simulation.grid, self.solid, free_energy_of(self.config.material)
        )
        self.now, record, self._elastic = self.simulation.begin(composition)
        self.records = [record]
        self._log = Log(self.folder, self.records) if self.box.leads else None
        self._frame()
        self._checkpoint()
        share = 100 * self.box.sum(int(self.solid.sum())) / math.prod(self.box.whole.cells)
        who = f"{self.box.n_boxes} ranks" if self.box.n_boxes > 1 else f"threads: {_core.build_info()['threads']}"
        log.info("%d x %d x %d voxels, %.3g %% solid; %s", *self.box.whole.cells, share, who)

    def _resume(self) -> None:
        found = read_checkpoint(self.folder, self.box)
        other = found.state["physics"] != self._physics or bool((found.cells["solid"] != self.solid).any())
        if self.box.sum(int(other)):
            raise InputError(
                f"{self.folder}: was begun with another configuration; only time.end_s, time.relaxed and output may "
                "change before a restart"
            )
        before = {key: found.state[key] for key in self._processors}
        if before != self._processors:
            self._warn(
                "begun with {ranks} ranks of {threads} threads: results will differ from one uninterrupted run by "
                "rounding".format(**before)
            )
        self._frames = dict(found.state["frames"])
        self.now = unpack(found, self.grid)
        written = read_log(self.folder) if self.box.leads else []
        self.records = self.box.from_first([record for record in written if record.step <= self.now.step])
        self._log = Log(self.folder, self.records) if self.box.leads else None
        log.info("going on from step %d, t = %.4g s", self.now.step, self.now.time_s)
        if self._is_over():
            log.info("the run has come to its end; raise time.end_s to go further")

    @property
    def _processors(self) -> dict[str, int]:
        return {"ranks": self.box.n_boxes, "threads": _core.build_info()["threads"]}

    def _fingerprint(self) -> str:
        """Of what decides every step, beside the voxels."""
        # What the files hold counts, not what they are called.
        config = self.config.model_copy(
            update={
                "domain": self.config.domain.model_copy(update={"file": None}),
                "material": self.config.material.model_copy(update={"expansion_file": None}),
                "initial": self.config.initial.model_copy(update={"file": None}),
            }
        )
        physics = config.model_dump_json(include={"domain", "material", "surface", "initial"})
        law = eigenstrain_of(self.config.material).coefficients
        return hashlib.sha256(f"{physics} {config.time.tolerance}".encode() + law.tobytes()).hexdigest()

    def to_the_end(self) -> bool:
        """Run until the end or a signal, with a checkpoint in either case; whether the end was reached."""
        stop: list[float] = []

        def note(number: int, frame: FrameType | None) -> None:
            stop.append(time.monotonic())
            if len(stop) == 1:
                log.info("ending after this step, with a checkpoint")
            elif stop[-1] - stop[0] > _MEANT_AGAIN_S:
                raise SystemExit(128 + number)

        former = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._run(stop)
        finally:
            if self._log:
                self._log.close()
            for number, handler in former.items():
                signal.signal(number, handler)
        if not self._is_over():
            log.info("stopped at t = %.4g s; go on with --restart", self.now.time_s)
            return False
        return True

    def _is_over(self) -> bool:
        ended = self.now.time_s >= self.config.time.end_s
        return ended or (self.now.step > 0 and self.records[-1].motion < self.config.time.relaxed)

    def _run(self, stop: list[float]) -> None:
        every = self.config.output.checkpoint_steps
        with progress_in_time("phase field") as show:
            begun = said = time.monotonic()
            # A signal may reach ranks at different moments: they stop after the same step.
            while not self._is_over() and not self.box.largest(len(stop)):
                until = min(self._next_frame(), self.config.time.end_s)
                self.now, record, self._elastic = self.simulation.advance(self.now, until)
                self.records.append(record)
                if self._log:
                    self._log.append(record)
                show(self._share(), _state(record))
                # Before the checkpoint of the step: no restart can then miss the frame.
                if record.time_s == until or self._is_over():
                    self._frame()
                    log.info("%s", _state(record))
                    said = time.monotonic()
                elif time.monotonic() - said > _SILENCE_S:
                    said = time.monotonic()
                    left = (said - begun) * (1 / max(self._share(), 1e-3) - 1)
                    log.info("%s, %.0f min left", _state(record), left / 60)
                if record.step % every == 0:
                    self._checkpoint()
        if self._is_over() and self.now.time_s < self.config.time.end_s:
            log.info("relaxed: nothing would move by %.3g while lithium crosses the particle", self.config.time.relaxed)
        self._checkpoint()

    @property
    def _first_frame_s(self) -> float:
        return self.config.output.first_frame_s or self.config.time.end_s / 1e3

    def _next_frame(self) -> float:
        """Times of frames are powers of ten with equal steps between them."""
        first = self._first_frame_s
        per_decade = self.config.output.frames_per_decade
        count = 0
        while (moment := first * 10 ** (count / per_decade)) <= self.now.time_s:
            count += 1
        return moment

    def _share(self) -> float:
        """Steps lengthen with time, so that decades count, as far as frames are taken."""
        first = self._first_frame_s
        done = math.log1p(self.now.time_s / first) / math.log1p(self.config.time.end_s / first)
        return min(done, 1.0)

    def _frame(self) -> None:
        name = f"frame-{len(self._frames):05d}.vtkhdf"
        write_instant(self.folder / "frames" / name, self.grid, self.solid, self.now, self._elastic)
        self._frames[name] = self.now.time_s
        if self.box.leads:
            write_series(self.folder / "frames" / "frames.vtkhdf.series", self._frames)

    def _checkpoint(self) -> None:
        if self._checkpoint_step == self.now.step:  # the last step may have one already
            return
        self._checkpoint_step = self.now.step
        about = {"physics": self._physics, **self._processors, "frames": self._frames}
        if self._log:
            self._log.settle()
        write_checkpoint(self.folder, self.now.step, self.box, pack(self.now, self.grid, self.solid, about))

    @property
    def files(self) -> list[Path]:
        """Files that the configuration names."""
        config = self.config
        named = (config.domain.file, config.material.expansion_file, config.initial.file)
        return [path for path in named if path is not None]

    def settings(self) -> dict[str, str]:
        """Every key of the configuration that has a value, defaults included."""
        return {
            f"{table}.{key}": json.dumps(value)
            for table, keys in self.config.model_dump(mode="json", exclude={"schema_"}).items()
            for key, value in keys.items()
            if value is not None
        }

    def particle(self) -> Particle:
        """What the report shows; all ranks call together."""
        composition = self.grid.cell_means(self.now.compositions[0])
        elastic = self._elastic or self.simulation.elastic_state(self.now)
        spacing, coherency = self.grid.spacing_nm, self.simulation.coherency
        return summarise(self.box, self.solid, spacing, composition, elastic, coherency)


def initial_composition(initial: Initial, grid: NodeGrid, solid: Bool, law: RegularSolution) -> Float:
    """Compositions of the nodes (nodes...).

    Raises
    ------
    InputError : compositions outside (0, 1), or a mean between which there are no two phases.
    """
    random = np.random.default_rng(initial.seed)
    amplitude = initial.noise if initial.noise is not None else 0.0 if initial.file else 0.01
    # The same along b, where lithium evens itself out within microseconds and gradients cost most.
    box = grid.box
    (x, _, z), (nx, _, nz) = box.node_window, box.whole.nodes
    columns = random.uniform(-1, 1, (nx, 1, nz))[x, :, z]
    noise = amplitude * np.broadcast_to(columns, box.nodes)
    noise = noise - box.sum(float((noise * grid.mass[box.owned]).sum())) / grid.volume
    if initial.file is not None:
        cells = read_volume(initial.file, initial.dataset, box).astype(float)
        total = grid.gather(np.where(solid, cells, 0.0))[grid.box.owned]
        number = grid.gather(solid.astype(float))[grid.box.owned]
        base = np.divide(total, number, out=np.full(total.shape, 0.5), where=number > 0)
    elif initial.boundary_normal is not None:
        base = _two_phases(initial, grid, law)
    else:
        base = np.full(grid.box.nodes, initial.mean)
    composition = base + noise
    exists = grid.exists[box.owned]
    n_outside = box.sum(int((exists & ~((composition > 0) & (composition < 1))).sum()))
    if n_outside:
        lowest, highest = grid.extremes(grid.of_nodes(composition))
        raise InputError(
            f"initial: {n_outside} of {box.sum(int(exists.sum()))} nodes have a composition outside 0 < X < 1, from "
            f"{lowest:.4g} to {highest:.4g}; take less noise"
        )
    return np.asarray(composition)


def _two_phases(initial: Initial, grid: NodeGrid, law: RegularSolution) -> Float:
    """Phases in equilibrium on both sides of a plane that is placed so that the mean comes out."""
    assert initial.boundary_normal is not None
    poor, rich = law.binodal()
    if poor == rich:
        raise InputError(f"initial.boundary_normal: omega of {law.omega:.3g} kT separates no phases; leave it out")
    if not poor < initial.mean < rich:
        raise InputError(f"initial.mean must lie between the phases, {poor:.4g} and {rich:.4g}, got {initial.mean}")
    normal = np.array(initial.boundary_normal)
    if not normal.any():
        raise InputError("initial.boundary_normal must not be zero")
    normal = normal / np.linalg.norm(normal)
    box = grid.box
    axes = enumerate(zip(box.start, box.nodes, grid.spacing_nm, normal, strict=True))
    along = sum(
        (np.arange(start, start + n) * h * component).reshape([-1 if axis == i else 1 for i in range(3)])
        for axis, (start, n, h, component) in axes
    )
    mass = grid.mass[box.owned]
    reach = 10 * initial.boundary_width_nm
    low, high = box.smallest(float(np.min(along))) - reach, box.largest(float(np.max(along))) + reach
    for _ in range(100):
        middle = (low + high) / 2
        field = poor + (rich - poor) * (1 + np.tanh(2 * (along - middle) / initial.boundary_width_nm)) / 2
        if box.sum(float((field * mass).sum())) > initial.mean * grid.volume:
            low = middle
        else:
            high = middle
    return np.asarray(np.broadcast_to(field, grid.box.nodes))


def _state(record: StepRecord) -> str:
    return (
        f"step {record.step}, t = {record.time_s:.4g} s, energy {record.energy_aJ:.6g} aJ, "
        f"X {record.lowest:.4f} to {record.highest:.4f}"
    )
