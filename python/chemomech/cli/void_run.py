"""One run of `chemomech void`: from the configuration to the last checkpoint."""

import hashlib
import json
import logging
import math
import shutil
import signal
import time
from pathlib import Path
from types import FrameType

import numpy as np

from chemomech import _core
from chemomech.arrays import Bool, Float
from chemomech.errors import InputError
from chemomech.io.checkpoint import checkpoints, read_checkpoint, write_checkpoint
from chemomech.io.files import writable
from chemomech.io.solid import read_composition
from chemomech.io.void import Log, pack, unpack, write_instant
from chemomech.io.void_config import (
    Initial,
    eigenstrain_of,
    free_energy_of,
    read_config,
    solid_of,
    stiffness_of,
)
from chemomech.io.vtkhdf import write_series
from chemomech.mechanics.box import Box
from chemomech.mechanics.voxel import Equilibrium, VoxelBody
from chemomech.phasefield.cahn_hilliard import CahnHilliard, Transport
from chemomech.phasefield.coherency import Coherency
from chemomech.phasefield.free_energy import RegularSolution
from chemomech.phasefield.node_grid import NodeGrid, node_grid
from chemomech.phasefield.void import StepRecord, VoidSimulation
from chemomech.progress import progress_in_time
from chemomech.report.void import Particle

log = logging.getLogger(__name__)

#: Cells across an interface below which its energy depends on where it lies on the grid.
_CELLS_ACROSS = 4
#: Without a terminal a line is written at least this often.
_SILENCE_S = 30.0


class VoidRun:
    """A simulation in a folder, fresh or continued.

    Parameters
    ----------
    config_path : chemomech-void/1.
    folder : for the results.
    restart : go on from the last checkpoint in it.

    Raises
    ------
    InputError : a configuration that cannot be used; a folder that holds a run already, or none to go on from.
    """

    def __init__(self, config_path: Path, folder: Path, *, restart: bool) -> None:
        self.config = read_config(config_path)
        self.folder = folder
        if not restart and checkpoints(folder):
            raise InputError(f"{folder}: holds a run already; go on with --restart, or name another folder")
        writable(folder / "log.csv")
        self.warnings: list[str] = []
        solid = solid_of(self.config.domain)
        self.simulation, self.solid = self._assemble(solid)
        self.grid = self.simulation.grid
        self._physics = self._fingerprint()
        self._elastic: Equilibrium | None = None
        self._frames: dict[str, float] = {}
        if restart and not folder.is_dir():
            raise InputError(f"{folder}: there is no run to go on with")
        for pattern in (".checkpoint-*", ".log.csv.*", "frames/.frame*"):  # left by a process that was killed
            for unfinished in folder.glob(pattern):
                shutil.rmtree(unfinished, ignore_errors=True)
        if restart and checkpoints(folder):
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
        grid = node_grid(solid, spacing, config.domain.periodic)
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
            body = VoxelBody(solid, spacing, stiffness, share=share, periodic=config.domain.periodic)
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
        nx, ny, nz = solid.shape
        pieces, count = Box((nx, ny, nz), self.config.domain.periodic).label(solid, np.ones((3, 3, 3)))
        if count == 1 or self.config.domain.islands == "keep":
            return solid
        sizes = np.bincount(pieces.ravel())[1:]
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
        for axis, h, kappa in zip("abc", spacing, gradient, strict=True):
            width = (rich - poor) * math.sqrt(kappa / (2 * (top - foot)))
            if h * _CELLS_ACROSS > width:
                self._warn(
                    f"an interface is {width:.3g} nm wide along {axis}, where a voxel of {h:g} nm is too coarse: its "
                    f"energy will depend on where it lies; take {width / _CELLS_ACROSS:.2g} nm or less"
                )

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        log.warning("warning: %s", text)

    def _begin(self) -> None:
        composition = initial_composition(
            self.config.initial, self.simulation.grid, self.solid, free_energy_of(self.config.material)
        )
        (self.folder / "frames").mkdir(parents=True, exist_ok=True)
        self.now, record, self._elastic = self.simulation.begin(composition)
        self.log = Log(self.folder, keep=None)
        self.log.append(record)
        self._frame()
        self._checkpoint()
        threads = _core.build_info()["threads"]
        share = 100 * self.solid.mean()
        log.info("%d x %d x %d voxels, %.3g %% solid; threads: %d", *self.solid.shape, share, threads)

    def _resume(self) -> None:
        arrays = read_checkpoint(self.folder)
        if str(arrays.pop("physics")) != self._physics:
            raise InputError(
                f"{self.folder}: was begun with another configuration; only time.end_s, time.relaxed and output may "
                "change before a restart"
            )
        threads = int(arrays.pop("threads"))
        if threads != _core.build_info()["threads"]:
            self._warn(f"begun with {threads} threads: results will differ from one uninterrupted run by rounding")
        self._frames = dict(zip(arrays.pop("frame_names").tolist(), arrays.pop("frame_times").tolist(), strict=True))
        self.now = unpack(arrays)
        self.log = Log(self.folder, keep=self.now.step)
        log.info("going on from step %d, t = %.4g s", self.now.step, self.now.time_s)

    def _fingerprint(self) -> str:
        """Of what decides every step."""
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
        whole = f"{physics} {config.time.tolerance}".encode() + law.tobytes() + np.packbits(self.solid).tobytes()
        return hashlib.sha256(whole).hexdigest()

    def to_the_end(self) -> bool:
        """Run until the end or a signal; whether the end was reached. There is a checkpoint in either case."""
        stop: list[int] = []

        def note(number: int, frame: FrameType | None) -> None:
            if stop:  # the second time it is meant at once
                raise SystemExit(128 + number)
            stop.append(number)
            log.info("ending after this step, with a checkpoint")

        former = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._run(stop)
        finally:
            self.log.close()
            for number, handler in former.items():
                signal.signal(number, handler)
        if stop and not self._is_over():
            log.info("stopped at t = %.4g s; go on with --restart", self.now.time_s)
            return False
        return True

    def _is_over(self) -> bool:
        ended = self.now.time_s >= self.config.time.end_s
        return ended or (self.now.step > 0 and self.log.records[-1].motion < self.config.time.relaxed)

    def _run(self, stop: list[int]) -> None:
        every = self.config.output.checkpoint_steps
        with progress_in_time("phase field") as show:
            begun = said = time.monotonic()
            while not self._is_over() and not stop:
                until = min(self._next_frame(), self.config.time.end_s)
                self.now, record, self._elastic = self.simulation.advance(self.now, until)
                self.log.append(record)
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
        write_series(self.folder / "frames" / "frames.vtkhdf.series", self._frames)

    def _checkpoint(self) -> None:
        arrays = pack(self.now) | {
            "physics": np.array(self._physics),
            "threads": np.array(_core.build_info()["threads"]),
            "frame_names": np.array(list(self._frames), dtype=str),
            "frame_times": np.array(list(self._frames.values())),
        }
        self.log.settle()
        write_checkpoint(self.folder, self.now.step, arrays)

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
        """What the report shows."""
        composition = self.grid.cell_means(self.now.compositions[0])
        coherency = self.simulation.coherency
        if coherency is None:
            return Particle(self.solid, self.grid.spacing_nm, composition, None, None, None)
        elastic = self._elastic or self.simulation.elastic_state(self.now)
        stiffness = coherency.body.stiffness_GPa.mean(axis=0)
        return Particle(self.solid, self.grid.spacing_nm, composition, elastic, coherency.eigenstrain, stiffness)


def initial_composition(initial: Initial, grid: NodeGrid, solid: Bool, law: RegularSolution) -> Float:
    """Compositions of the nodes (nodes...).

    Raises
    ------
    InputError : compositions outside (0, 1), or a mean between which there are no two phases.
    """
    random = np.random.default_rng(initial.seed)
    amplitude = initial.noise if initial.noise is not None else 0.0 if initial.file else 0.01
    # The same along b, where lithium evens itself out within microseconds and gradients cost most.
    nx, ny, nz = grid.box.nodes
    noise = amplitude * np.broadcast_to(random.uniform(-1, 1, (nx, 1, nz)), (nx, ny, nz))
    noise = noise - (noise * grid.mass[grid.box.owned]).sum() / grid.volume
    if initial.file is not None:
        cells = read_composition(initial.file, initial.dataset, solid.shape)
        total = grid.gather(np.where(solid, cells, 0.0))[grid.box.owned]
        number = grid.gather(solid.astype(float))[grid.box.owned]
        base = np.divide(total, number, out=np.full(total.shape, 0.5), where=number > 0)
    elif initial.boundary_normal is not None:
        base = _two_phases(initial, grid, law)
    else:
        base = np.full(grid.box.nodes, initial.mean)
    composition = base + noise
    exists = grid.exists[grid.box.owned]
    outside = exists & ~((composition > 0) & (composition < 1))
    if outside.any():
        values = composition[exists]
        raise InputError(
            f"initial: {outside.sum()} of {exists.sum()} nodes have a composition outside 0 < X < 1, from "
            f"{values.min():.4g} to {values.max():.4g}; less noise, or another mean"
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
    along = sum(
        (np.arange(n) * h * component).reshape([-1 if axis == i else 1 for i in range(3)])
        for axis, (n, h, component) in enumerate(zip(grid.box.nodes, grid.spacing_nm, normal, strict=True))
    )
    mass = grid.mass[grid.box.owned]
    reach = 10 * initial.boundary_width_nm
    low, high = float(np.min(along)) - reach, float(np.max(along)) + reach
    for _ in range(100):
        middle = (low + high) / 2
        field = poor + (rich - poor) * (1 + np.tanh(2 * (along - middle) / initial.boundary_width_nm)) / 2
        if (field * mass).sum() > initial.mean * mass.sum():
            low = middle
        else:
            high = middle
    return np.asarray(np.broadcast_to(field, grid.box.nodes))


def _state(record: StepRecord) -> str:
    return (
        f"step {record.step}, t = {record.time_s:.4g} s, energy {record.energy_aJ:.6g} aJ, "
        f"X {record.lowest:.4f} to {record.highest:.4f}"
    )
