"""The slip systems of olivine LiFePO4 and FePO4 that Deng et al. consider (Deng SI, Tables S2 and S3)."""

from dataclasses import dataclass

import numpy as np

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.mechanics.contrast import energy_factor

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class SlipSystem:
    """Burgers vector and line as directions uvw, glide plane as hkl, in the setting a > b > c (Pnma).

    `label` is the letter of Deng SI, Table S3; systems that the table does not name have none.
    """

    label: str
    burgers: Triple
    plane: Triple
    line: Triple

    def burgers_nm(self, cell_nm: Triple) -> Float:
        """Burgers vector (3,) along a, b, c, nm."""
        return np.multiply(self.burgers, cell_nm)

    def character(self, cell_nm: Triple) -> str:
        """screw, edge or mixed: the Burgers vector is parallel to the line, at right angles, or neither."""
        b, line = self.burgers_nm(cell_nm), np.multiply(self.line, cell_nm)
        cosine = abs(b @ line) / (np.linalg.norm(b) * np.linalg.norm(line))
        if cosine > 1 - 1e-12:
            return "screw"
        return "edge" if cosine < 1e-12 else "mixed"

    def line_energy_nJ_per_m(self, cell_nm: Triple, stiffness_GPa: Float) -> float:
        """K b^2, the energy per length but for ln(R / r0) / (4 pi). 1 GPa nm^2 = 1 nJ/m."""
        b = self.burgers_nm(cell_nm)
        return float(b @ b) * energy_factor(
            cell_nm, stiffness_GPa, burgers=self.burgers, plane=self.plane, line=self.line
        )


_HALF_BC, _HALF_AC, _HALF_AB = (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)
_A, _B, _C = (1, 0, 0), (0, 1, 0), (0, 0, 1)

#: All 26 systems of Deng SI, Table S3, in its order.
SLIP_SYSTEMS = (
    SlipSystem("", _B, (1, 0, 0), _B),
    SlipSystem("A", _B, (1, 0, 0), _C),
    SlipSystem("B", _B, (1, 0, 0), (0, 1, 1)),
    SlipSystem("C", _B, (1, 0, 0), (0, 2, 1)),
    SlipSystem("", _C, (1, 0, 0), _C),
    SlipSystem("D", _C, (1, 0, 0), _B),
    SlipSystem("", _HALF_BC, (1, 0, 0), (0, 1, 1)),
    SlipSystem("E", _HALF_BC, (1, 0, 0), (0, 1, -1)),
    SlipSystem("F", _HALF_BC, (1, 0, 0), _B),
    SlipSystem("", _C, (0, 1, 0), _C),
    SlipSystem("G", _C, (0, 1, 0), _A),
    SlipSystem("", _A, (0, 1, 0), _A),
    SlipSystem("", _A, (0, 1, 0), _C),
    SlipSystem("", _HALF_AC, (0, 1, 0), (1, 0, 1)),
    SlipSystem("H", _HALF_AC, (0, 1, 0), (-1, 0, 1)),
    SlipSystem("", _B, (0, 0, 1), _B),
    SlipSystem("I", _B, (0, 0, 1), _A),
    SlipSystem("J", _B, (0, 0, 1), (1, 1, 0)),
    SlipSystem("K", _B, (0, 0, 1), (1, 2, 0)),
    SlipSystem("", _A, (0, 0, 1), _A),
    SlipSystem("", _A, (0, 0, 1), _B),
    SlipSystem("", _HALF_AB, (0, 0, 1), (1, 1, 0)),
    SlipSystem("L", _HALF_AB, (0, 0, 1), (1, -1, 0)),
    SlipSystem("M", _HALF_AB, (0, 0, 1), _B),
    SlipSystem("N", _HALF_BC, (0, -1, 1), _A),
    SlipSystem("O", _HALF_AB, (-1, 1, 0), _C),
)


def candidates(cell_nm: Triple, stiffness_GPa: Float, *, most_nJ_per_m: float = 30.0) -> tuple[SlipSystem, ...]:
    """The systems that may relieve misfit: edge or mixed, with K b^2 up to `most_nJ_per_m`.

    The energies of Table S3 have a gap between 27.0 (system A) and 67.5 nJ/m; any limit in it leaves the 15 systems of
    Table S2, A to O, for LiFePO4 and for FePO4.

    Parameters
    ----------
    cell_nm : lattice parameters a, b, c, nm.
    stiffness_GPa : (6, 6) Voigt, engineering shears, crystal axes.

    Raises
    ------
    InputError : no system is left, or the cell or the stiffness cannot be used.
    """
    kept = tuple(
        system
        for system in SLIP_SYSTEMS
        if system.character(cell_nm) != "screw" and system.line_energy_nJ_per_m(cell_nm, stiffness_GPa) <= most_nJ_per_m
    )
    if not kept:
        raise InputError(f"no slip system has K b^2 up to {most_nJ_per_m:g} nJ/m; is the cell in nm?")
    return kept


def is_allowed_in_pnma(hkl: tuple[int, int, int]) -> bool:
    """Whether the space group lets a reflection be: 0kl needs k + l even, hk0 needs h even, 0k0 and 00l follow.

    (International Tables for Crystallography A, space group 62.)

    >>> is_allowed_in_pnma((1, 0, 1)), is_allowed_in_pnma((1, 0, 0))
    (True, False)
    """
    h, k, l = hkl  # noqa: E741
    return not (h == 0 and (k + l) % 2) and not (l == 0 and h % 2)
