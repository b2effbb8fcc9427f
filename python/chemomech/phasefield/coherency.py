"""Coherent elasticity of a phase field: what a composition does to a solid, and what the solid answers.

The displacement follows the composition at once: it minimises E = 1/2 int (eps - eps0(X)) : C : (eps - eps0(X)), and
the chemical potential gains dE/dX = -sigma : eps0'(X) per volume (Deng SI, eqs 3.4 and 3.7). Compositions are at nodes,
eigenstrains at voxels, of the mean over their corners; the potential of a node is the exact derivative of the discrete
energy, so that a descent in X is one. Where the stiffness follows the composition too, its part of the derivative is
taken of mean strains, which converges with the grid.
"""

from dataclasses import dataclass

import numpy as np

from chemomech.arrays import Float, require_shape
from chemomech.mechanics.voxel import Equilibrium, VoxelBody
from chemomech.phasefield.node_grid import NodeGrid
from chemomech.units import EV_PER_AJ


@dataclass(frozen=True, eq=False)
class Eigenstrain:
    """Stress-free strain along the crystal axes, eps_i(X) = sum over k of coefficients[i, k] (X - 1)^(k + 1).

    Attributes
    ----------
    coefficients : (3, order), rows a, b, c.

    >>> Eigenstrain(np.array([[0.05], [0.0346], [-0.02]]))(np.array([0.0])).tolist()
    [[-0.05, -0.0346, 0.02, 0.0, 0.0, 0.0]]
    """

    coefficients: Float

    def __post_init__(self) -> None:
        require_shape(self.coefficients, "coefficients", (3, None))

    def __call__(self, composition: Float) -> Float:
        """(..., 6), Voigt with engineering shears, 0 in LiFePO4."""
        return self._series(composition, self.coefficients, 1)

    def derivative(self, composition: Float) -> Float:
        """d eps / dX, (..., 6)."""
        powers = np.arange(1, self.coefficients.shape[1] + 1)
        return self._series(composition, self.coefficients * powers, 0)

    @staticmethod
    def _series(composition: Float, coefficients: Float, lowest: int) -> Float:
        strain = np.zeros((*composition.shape, 6))
        shifted = composition - 1
        power = shifted**lowest
        for column in coefficients.T:
            for axis in range(3):
                strain[..., axis] += column[axis] * power
            power = power * shifted
        return strain


@dataclass(frozen=True, eq=False)
class Coherent:
    """Equilibrium at one composition.

    Attributes
    ----------
    potential_kT : (X, Y, Z) at the nodes.
    elastic : displacement, strains, stresses and energy of the voxels.
    """

    potential_kT: Float
    elastic: Equilibrium


class Coherency:
    """The elastic side of a phase field.

    Parameters
    ----------
    grid : nodes of the body.
    body : its voxels.
    eigenstrain : its law.
    kT_per_nm3 : kT times sites per volume, eV/nm^3.
    """

    def __init__(self, grid: NodeGrid, body: VoxelBody, eigenstrain: Eigenstrain, kT_per_nm3: float) -> None:
        self.grid, self.body, self.eigenstrain = grid, body, eigenstrain
        self._kT = EV_PER_AJ / kT_per_nm3  # of 1 GPa
        self.mixed = len(body.stiffness_GPa) == 2

    @property
    def stiffness_kT(self) -> float:
        """The largest eps0' : C : eps0' between X = 0 and 1: no composition is held back harder by the lattice."""
        slopes = self.eigenstrain.derivative(np.linspace(0, 1, 101))
        return float(np.einsum("ni,mij,nj->nm", slopes, self.body.stiffness_GPa, slopes).max()) * self._kT

    def relax(self, composition: Float, start: Float | None, rtol: float) -> Coherent:
        """Equilibrium at the composition (X, Y, Z), halo filled, from a displacement near it."""
        means = self.grid.cell_means(composition)
        if self.mixed:
            self.body.mix(np.where(self.body.solid, np.clip(means, 0.0, 1.0), 0.0))
        state = self.body.equilibrium(self.eigenstrain(means), rtol=rtol, start=start)
        per_volume = -np.einsum("...i,...i", state.stress_GPa[..., :3], self.eigenstrain.derivative(means)[..., :3])
        if self.mixed:
            softening = self.body.stiffness_GPa[1] - self.body.stiffness_GPa[0]
            per_volume += 0.5 * np.einsum("...i,ij,...j", state.elastic_strain, softening, state.elastic_strain)
        voxel = float(np.prod(self.grid.spacing_nm))
        forces = self.grid.gather(np.where(self.body.solid, per_volume * voxel, 0.0))
        return Coherent(self.grid.per_volume(forces) * self._kT, state)
