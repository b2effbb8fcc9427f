"""Homogeneous free energies of a solid solution, as values."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from chemomech.arrays import Float


class FreeEnergy(Protocol):
    """What a phase field asks of a free energy per site.

    Attributes
    ----------
    lowest, highest : the compositions between which it is defined; infinite where it has no limits.
    """

    @property
    def lowest(self) -> float: ...

    @property
    def highest(self) -> float: ...

    def energy(self, composition: Float) -> Float:
        """kT per site."""

    def potential(self, composition: Float) -> Float:
        """Its derivative, the chemical potential, kT."""

    def curvature(self, composition: Float) -> Float:
        """Its second derivative, kT."""

    def mobility(self, composition: Float) -> Float:
        """Mobility over D / kT, 1."""


@dataclass(frozen=True)
class RegularSolution:
    """X ln X + (1 - X) ln (1 - X) + omega X (1 - X), with mobility D X (1 - X) / kT (Deng SI, eqs 3.3 and 3.6).

    Attributes
    ----------
    omega : interaction Omega / kT; phases separate above 2.

    >>> RegularSolution(3.0).potential(np.array([0.5])).tolist()
    [0.0]
    """

    omega: float

    lowest: ClassVar[float] = 0.0
    highest: ClassVar[float] = 1.0

    def energy(self, composition: Float) -> Float:
        x = composition
        return np.asarray(x * np.log(x) + (1 - x) * np.log1p(-x) + self.omega * x * (1 - x))

    def potential(self, composition: Float) -> Float:
        return np.asarray(np.log(composition / (1 - composition)) + self.omega * (1 - 2 * composition))

    def curvature(self, composition: Float) -> Float:
        return np.asarray(1 / (composition * (1 - composition)) - 2 * self.omega)

    def mobility(self, composition: Float) -> Float:
        return composition * (1 - composition)

    def binodal(self) -> tuple[float, float]:
        """Compositions of the two phases in equilibrium; both 0.5 at or below omega = 2.

        >>> RegularSolution(1.0).binodal()
        (0.5, 0.5)
        """
        if self.omega <= 2:
            return 0.5, 0.5
        # The common tangent is level: x = 1 / (1 + exp(omega (1 - 2 x))), a contraction towards the poor phase.
        poor = 0.0
        for _ in range(200):
            poor = 1 / (1 + float(np.exp(self.omega * (1 - 2 * poor))))
        return poor, 1 - poor
