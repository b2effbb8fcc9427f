"""Units at the edge: everything inside is nm, s, GPa and rad; a reader converts here and nowhere else."""

from chemomech.errors import InputError

#: nm^2: densities are per nm^2 inside and per um^2 at the edge.
SQUARE_UM = 1e6
#: 1 eV = 0.1602176634 aJ, and 1 aJ / nm^3 = 1 GPa.
AJ_AN_EV = 0.1602176634

_SCALE: dict[str, dict[str, float]] = {
    "length": {"nm": 1.0, "angstrom": 0.1, "pm": 1e-3, "um": 1e3},
    "angle": {"rad": 1.0, "mrad": 1e-3, "deg": 0.017453292519943295},
    "fraction": {"1": 1.0, "%": 0.01},
}


def to_internal(unit: str, *, quantity: str, where: str) -> float:
    """Factor from a stored unit to the internal one (nm, rad, 1).

    Parameters
    ----------
    unit : the text of a `units` attribute.
    quantity : "length", "angle" or "fraction".
    where : file and dataset, for the message.

    Raises
    ------
    InputError : the unit is not known for this quantity.

    >>> to_internal("angstrom", quantity="length", where="maps.h5")
    0.1
    """
    known = _SCALE[quantity]
    if unit not in known:
        raise InputError(f"{where} has units {unit!r}; a {quantity} is stored in one of {', '.join(known)}")
    return known[unit]
