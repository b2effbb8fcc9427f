"""`chemomech contrast`: contrast factors and the energy factor of a dislocation."""

import json
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chemomech.errors import InputError

if TYPE_CHECKING:
    from chemomech.arrays import Float

_CONSTANTS = ("c11", "c22", "c33", "c44", "c55", "c66", "c12", "c13", "c23")


def contrast(
    cell: Annotated[
        tuple[float, float, float], typer.Option(metavar="A B C", help="Lattice parameters of the orthogonal cell.")
    ],
    stiffness: Annotated[
        Path, typer.Option(metavar="FILE.toml", help="stiffness_GPa, 6 x 6, or nine constants; see above.")
    ],
    burgers: Annotated[str, typer.Option(metavar='"u v w"', help='Burgers vector; fractions as in "1/2 1/2 0".')],
    plane: Annotated[str, typer.Option(metavar='"h k l"', help="Glide plane.")],
    line: Annotated[str, typer.Option(metavar='"u v w"', help="Direction of the line, in the plane.")],
    hkl: Annotated[list[str], typer.Option(metavar='"h k l"', help="Reflection; repeat for several.")],
    single: Annotated[
        bool, typer.Option("--single", help="This reflection alone, not the mean over (+-h, +-k, +-l).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Contrast factors of reflections and the energy factor K of a dislocation.

    FILE.toml holds the stiffness in GPa, in crystal axes, Voigt order aa, bb, cc, bc, ac, ab with engineering shears:
    stiffness_GPa = [[...], ...], six rows of six, or the nine constants c11, c22, c33, c44, c55, c66, c12, c13 and c23
    of an orthorhombic crystal, one a line, as in c11 = 138.9.
    """
    from chemomech.mechanics.contrast import contrast_factor, energy_factor

    matrix = _read_stiffness(stiffness)
    b, n, t = _triple(burgers, "--burgers"), _triple(plane, "--plane"), _triple(line, "--line")
    factors = {}
    for text in hkl:
        indices = _triple(text, "--hkl")
        label = " ".join(f"{index:g}" for index in indices)
        factors[label] = contrast_factor(cell, matrix, burgers=b, plane=n, line=t, hkl=indices, powder=not single)
    energy = energy_factor(cell, matrix, burgers=b, plane=n, line=t)
    if as_json:
        print(json.dumps({"contrast": factors, "energy_factor_GPa": energy}))
        return
    print(f"{'reflection':12}{'contrast factor':>16}")
    for label, factor in factors.items():
        print(f"{label:12}{factor:16.6f}")
    print(f"\nenergy factor K {energy:.4f} GPa")


def _triple(text: str, option: str) -> tuple[float, float, float]:
    try:
        u, v, w = (float(Fraction(part)) for part in text.split())
    except (ValueError, ZeroDivisionError):
        raise InputError(f'{option} must be three numbers such as "1/2 1/2 0", got {text!r}') from None
    return u, v, w


def _read_stiffness(path: Path) -> "Float":
    import numpy as np

    from chemomech.mechanics.dislocations import require_positive_definite
    from chemomech.mechanics.stiffness import orthorhombic

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not a TOML file ({error})") from None
    try:
        if "stiffness_GPa" in content:
            matrix = np.array(content["stiffness_GPa"], dtype=float)
        else:
            missing = [name for name in _CONSTANTS if name not in content]
            if missing:
                raise InputError(f"neither stiffness_GPa nor all nine constants; {', '.join(missing)} missing")
            matrix = orthorhombic(**{name: float(content[name]) for name in _CONSTANTS})
        require_positive_definite(matrix)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (TypeError, ValueError):
        raise InputError(f"{path}: stiffness_GPa must be six rows of six numbers, a constant one number") from None
    return matrix
