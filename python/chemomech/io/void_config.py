"""Configuration of `void`: a TOML file whose keys carry their units, and what it asks for."""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.polynomial import Polynomial, legendre
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chemomech.arrays import Bool, Float
from chemomech.errors import InputError
from chemomech.io.volume import read_volume, volume_shape
from chemomech.mechanics.box import Box
from chemomech.mechanics.stiffness import FEPO4, LIFEPO4, OLIVINE
from chemomech.phasefield.coherency import Eigenstrain
from chemomech.phasefield.free_energy import RegularSolution

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Lengths = tuple[Positive, Positive, Positive]
Point = tuple[Finite, Finite, Finite]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sphere(_Table):
    """A ball."""

    centre_nm: Point
    radius_nm: Positive


class Domain(_Table):
    """The solid: axes a, b, c."""

    shape: Literal["box", "platelet", "spheres", "file"] = "box"
    size_nm: Lengths | None = None
    spacing_nm: Lengths
    spheres: tuple[Sphere, ...] = ()
    voids: tuple[Sphere, ...] = ()
    file: Path | None = None
    dataset: str | None = None
    periodic: tuple[bool, bool, bool] = (False, False, False)
    islands: Literal["refuse", "keep", "largest"] = "refuse"

    @model_validator(mode="after")
    def _complete(self) -> "Domain":
        for key, shape in (("file", "file"), ("dataset", "file"), ("spheres", "spheres")):
            if getattr(self, key) and self.shape != shape:
                raise ValueError(f'the key {key} goes with shape = "{shape}", not with "{self.shape}"')
        if self.shape == "file" and self.file is None:
            raise ValueError('shape = "file" needs the key file')
        if self.shape == "file" and self.size_nm is not None:
            raise ValueError("size_nm is that of the file; leave it out")
        if self.shape != "file" and self.size_nm is None:
            raise ValueError(f'shape = "{self.shape}" needs the key size_nm')
        if self.shape == "spheres" and not self.spheres:
            raise ValueError('shape = "spheres" needs tables [[domain.spheres]]')
        if self.periodic[1]:
            raise ValueError("periodic along b is not possible: lines along b are solved from end to end")
        return self


class LinearStrain(_Table):
    """Chemical expansion along the axes, d eps / dX."""

    a: Finite
    b: Finite
    c: Finite


class Material(_Table):
    """The crystal; values of LiFePO4 by default (Deng SI, Table S1 and section III)."""

    site_density_nm3: Positive = 13.76
    kT_eV: Positive = 0.0257
    omega_eV: Finite = 0.11308
    gradient_eV_nm2: Lengths = (13.4, 1340.0, 13.4)
    diffusivity_nm2_per_s: Lengths = (1.0, 1e5, 1.0)
    stiffness: Literal["mean", "mixed", "none"] = "mean"
    stiffness_GPa: tuple[tuple[Finite, ...], ...] | None = None
    expansion: LinearStrain = LinearStrain(a=0.05, b=0.0346, c=-0.02)
    expansion_file: Path | None = None
    expansion_model: Literal["M0", "M1", "M2"] = "M1"

    @model_validator(mode="after")
    def _one_stiffness(self) -> "Material":
        if self.stiffness_GPa is not None and "stiffness" in self.model_fields_set:
            raise ValueError("give stiffness or stiffness_GPa, not both")
        return self


class SurfaceTable(_Table):
    """What the surface does: neutral and closed by default."""

    wetting_eV_per_nm2: Finite = 0.0
    exchange_per_nm2_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    reservoir_eV: Finite = 0.0


class Initial(_Table):
    """The composition at the beginning."""

    mean: Annotated[float, Field(gt=0, lt=1)] = 0.5
    noise: Annotated[float, Field(ge=0, le=0.5)] | None = None  # 0 with a file, else 0.01
    seed: int = 0
    boundary_normal: Point | None = None
    boundary_width_nm: Positive = 15.0
    file: Path | None = None
    dataset: str | None = None


class Time(_Table):
    """How long and how exactly."""

    end_s: Positive
    tolerance: Annotated[float, Field(gt=0, lt=0.1)] = 2e-3
    relaxed: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Output(_Table):
    """What is left in the output folder."""

    first_frame_s: Positive | None = None
    frames_per_decade: Annotated[int, Field(ge=1, le=1000)] = 4
    checkpoint_steps: Annotated[int, Field(ge=1)] = 20


class VoidConfig(_Table):
    """A whole configuration, schema chemomech-void/1."""

    schema_: Literal["chemomech-void/1"] = Field(alias="schema")
    domain: Domain
    material: Material = Material()
    surface: SurfaceTable = SurfaceTable()
    initial: Initial = Initial()
    time: Time
    output: Output = Output()


def read_config(path: Path) -> VoidConfig:
    """Read and check a configuration; paths in it are relative to its folder.

    Raises
    ------
    InputError : the file cannot be read, is not TOML, or a key is unknown, missing or wrong; the message names it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}") from error
    try:
        config = VoidConfig.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_explained(error)}") from error
    return _beside(config, path.parent)


def _explained(error: ValidationError) -> str:
    # A key that is not known explains one that is missing, not the other way round.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    if first["type"] == "extra_forbidden":
        known = _keys_beside(first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        return f"the key {key} is not known" + (
            f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
        )
    if first["type"] == "missing":
        return f"the key {key} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "tuple_type":
        message = "must be a list, as [1.0, 2.0, 3.0] along a, b, c"
    where = f"{key}: " if key else ""
    got = first["input"]
    shown = "" if isinstance(got, dict | BaseModel) else f", got {got!r}"
    return f"{where}{message[0].lower()}{message[1:]}{shown}"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    table: Any = VoidConfig
    for part in location[:-1]:
        if isinstance(part, str) and isinstance(table, type) and issubclass(table, BaseModel):
            field = table.model_fields.get(part)
            table = field.annotation if field else None
            if getattr(table, "__args__", None):
                table = table.__args__[0]
    if isinstance(table, type) and issubclass(table, BaseModel):
        return [field.alias or name for name, field in table.model_fields.items()]
    return []


def _beside(config: VoidConfig, folder: Path) -> VoidConfig:
    def moved(table: Any, *keys: str) -> Any:
        given = {key: folder / getattr(table, key) for key in keys if getattr(table, key) is not None}
        return table.model_copy(update=given)

    return config.model_copy(
        update={
            "domain": moved(config.domain, "file"),
            "material": moved(config.material, "expansion_file"),
            "initial": moved(config.initial, "file"),
        }
    )


def cells_of(domain: Domain) -> tuple[int, int, int]:
    """Voxels along the axes of a domain.

    Raises
    ------
    InputError : a size that is no multiple of the spacing, or a file that cannot be used.
    """
    if domain.shape == "file":
        assert domain.file is not None
        return volume_shape(domain.file, domain.dataset)
    assert domain.size_nm is not None
    spacing, extent = np.array(domain.spacing_nm), np.array(domain.size_nm)
    cells = np.round(extent / spacing).astype(int)
    if cells.min() < 1:
        raise InputError(f"domain.spacing_nm of {spacing.tolist()} is longer than size_nm of {extent.tolist()}")
    if np.abs(cells * spacing - extent).max() > 1e-6 * extent.max():
        raise InputError(
            f"domain.size_nm of {extent.tolist()} is no multiple of spacing_nm {spacing.tolist()}; the nearest is "
            f"{(cells * spacing).tolist()}"
        )
    nx, ny, nz = cells.tolist()
    return nx, ny, nz


def solid_of(domain: Domain, box: Box) -> Bool:
    """The voxels (nx, ny, nz) of a box of the domain.

    Raises
    ------
    InputError : no voxel is left anywhere, or a file that cannot be used.
    """
    if domain.shape == "file":
        assert domain.file is not None
        solid = np.asarray(read_volume(domain.file, domain.dataset, box) != 0)
    else:
        solid = np.ones(box.cells, dtype=bool)
    axes = zip(box.start, box.cells, domain.spacing_nm, strict=True)
    centres = [(np.arange(start, start + n, dtype=float) + 0.5) * h for start, n, h in axes]
    if domain.shape == "platelet":
        extents = zip(centres, box.whole.cells, domain.spacing_nm, strict=True)
        relative = [2 * x / (n * h) - 1 for x, n, h in extents]
        solid &= relative[0][:, None, None] ** 2 + relative[2] ** 2 <= 1
    if domain.shape == "spheres":
        solid = np.zeros_like(solid)
        for ball in domain.spheres:
            solid |= _ball(ball, centres)
    for number, ball in enumerate(domain.voids, start=1):
        void = _ball(ball, centres)
        if not box.sum(int(void.sum())):
            extent = np.multiply(box.whole.cells, domain.spacing_nm).tolist()
            raise InputError(
                f"domain.voids: void {number} at {list(ball.centre_nm)} nm with radius {ball.radius_nm:g} nm takes no "
                f"voxel of a domain of {extent} nm"
            )
        solid &= ~void
    if not box.sum(int(solid.sum())):
        raise InputError("domain: no solid voxel is left")
    return solid


def _ball(ball: Sphere, centres: list[Float]) -> Bool:
    x, y, z = ((axis - middle) ** 2 for axis, middle in zip(centres, ball.centre_nm, strict=True))
    return np.asarray(x[:, None, None] + y[:, None] + z < ball.radius_nm**2)


def free_energy_of(material: Material) -> RegularSolution:
    return RegularSolution(material.omega_eV / material.kT_eV)


def stiffness_of(material: Material) -> Float | None:
    """(6, 6) GPa, (2, 6, 6) of FePO4 and LiFePO4, or None without elasticity."""
    if material.stiffness_GPa is not None:
        given = np.array(material.stiffness_GPa, dtype=float) if _is_square(material.stiffness_GPa) else None
        if given is None or given.shape != (6, 6):
            raise InputError("material.stiffness_GPa must have six rows of six numbers")
        return given
    return {"mean": OLIVINE, "mixed": np.stack([FEPO4, LIFEPO4]), "none": None}[material.stiffness]


def _is_square(rows: tuple[tuple[float, ...], ...]) -> bool:
    return all(len(row) == len(rows) for row in rows)


def eigenstrain_of(material: Material) -> Eigenstrain:
    """The law along a, b and c; a and c from a result.json of `learn` where one is named."""
    given = material.expansion
    linear = np.array([[given.a], [given.b], [given.c]])
    if material.expansion_file is None:
        return Eigenstrain(linear)
    path = material.expansion_file
    try:
        law = json.loads(path.read_text(encoding="utf-8"))["laws"][material.expansion_model]
        learned = [np.array(law[axis]["legendre"], dtype=float) for axis in ("a", "c")]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: holds no law {material.expansion_model} of `chemomech learn` ({error})") from error
    powers = [_in_powers(coefficients) for coefficients in learned]
    columns = np.zeros((3, max(len(series) for series in powers)))
    columns[0, : len(powers[0])], columns[2, : len(powers[1])] = powers
    columns[1, 0] = given.b
    return Eigenstrain(columns)


def _in_powers(coefficients: Float) -> Float:
    """Of (X - 1), from 1, of a series in L_n(2 X - 1) - L_n(1), n from 1."""
    series = legendre.leg2poly([0.0, *coefficients])
    shifted = Polynomial(series)(Polynomial([1.0, 2.0]))  # 2 X - 1 = 1 + 2 (X - 1)
    return np.asarray(shifted.coef[1:])
