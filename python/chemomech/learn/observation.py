"""What an eigenstrain field would show under the microscope, and the transpose of that map.

Under model M0 (`DirectRegression`) the measured strain is the eigenstrain; under model M1 (`Equilibrium`) it is the
strain of a body in elastic equilibrium. M1 can be compared with the image in two views: the strain, whose noise is
independent from pixel to pixel, and the displacement integrated from strain and rotation (Deng SI, eq. 2.7), which
averages noise over the particle. Model M2 (`dislocation_density.DislocatedEquilibrium`) compares the distortion, strain
and rotation, and counts the field of random dislocations among its noise. Everything is linear in the eigenstrain.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import scipy.sparse as sp

from chemomech.arrays import Float, Int
from chemomech.mechanics.mesh import Mesh, pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress, RigidModes
from chemomech.observe.maps import CorrelativeMaps
from chemomech.observe.strain import InverseGradient

Boundary = Literal["free", "dirichlet"]
#: What model M1 may be fitted to.
Misfit = Literal["strain", "displacement"]
View = Literal[Misfit, "distortion"]


class Observation(Protocol):
    """One particle's data and the linear map from an eigenstrain to what it predicts for them.

    Attributes
    ----------
    data : by view, (n_pixels, n_channels) what is left for the eigenstrain to explain: three strains (aa, cc, 2 ac),
        two displacements (nm), or the four channels of the distortion.
    """

    data: dict[View, Float]

    def respond(self, eigenstrain: Float) -> dict[View, Float]:
        """Prediction (n_pixels, n_channels, k) in each view for eigenstrains (n_pixels, 3, k)."""

    def weigh(self, view: View, vectors: Float) -> Float:
        """W times (n_pixels, n_channels, k): W, symmetric, defines the misfit y^T W y.

        In strain and distortion it is the inverse covariance of what the eigenstrain leaves; in displacement it is 1.
        """

    def transpose(self, view: View, vectors: Float) -> tuple[Float, Float]:
        """Transposes, on weighed (n_pixels, n_channels, k), of `respond` and of the map from channels to `data`.

        Returns
        -------
        (n_pixels, 3, k) and (n_pixels, 4, k)
        """

    def hidden_transpose(self, view: View, vectors: Float) -> Float:
        """Transpose, to (n_hidden, k), of the map from hidden sources of unit variance to the data."""


class DirectRegression:
    """Model M0: every pixel strains freely.

    Parameters
    ----------
    maps : the measured particle.
    deviation : (n_pixels, 4) noise of its channels.
    """

    def __init__(self, maps: CorrelativeMaps, deviation: Float) -> None:
        self.data: dict[View, Float] = {"strain": maps.distortion[maps.mask][:, :3]}
        self._weight = 1 / deviation[:, :3, None] ** 2

    def respond(self, eigenstrain: Float) -> dict[View, Float]:
        return {"strain": eigenstrain}

    def weigh(self, view: View, vectors: Float) -> Float:
        return self._weight * vectors

    def transpose(self, view: View, vectors: Float) -> tuple[Float, Float]:
        return vectors, _with_rotation(vectors)

    def hidden_transpose(self, view: View, vectors: Float) -> Float:
        return np.empty((0, vectors.shape[2]))


class Equilibrium:
    """Model M1: the particle is in elastic equilibrium, traction-free or held at the measured displacement.

    Parameters
    ----------
    maps : the measured particle.
    deviation : (n_pixels, 4) noise of its channels; it weights the strains, and the integration where it was given
        per pixel.
    stiffness_GPa : (3, 3) plane stress.
    boundary : "free" or "dirichlet".
    views : the views to compare; the displacement costs an integration.
    """

    def __init__(
        self,
        maps: CorrelativeMaps,
        deviation: Float,
        stiffness_GPa: Float,
        boundary: Boundary,
        views: Sequence[View],
    ) -> None:
        mesh = pixel_mesh(maps.mask, maps.pixel_size_nm)
        self._body = PlaneStress(mesh, stiffness_GPa, held="boundary" if boundary == "dirichlet" else None)
        self._centres = mesh.centres
        self._weight = 1 / deviation[:, :3, None] ** 2
        distortion = maps.distortion[maps.mask]
        self.data: dict[View, Float] = {"strain": distortion[:, :3]}
        self._edge: MeasuredEdge | None = None
        self._rigid: RigidModes | None = None
        if boundary == "free" and "displacement" not in views:
            return
        self._integral = InverseGradient(maps.mask, maps.pixel_size_nm, deviation if maps.uncertainty else None)
        if "displacement" in views:
            self.data["displacement"] = self._integral.displacement(distortion)
        if boundary == "dirichlet":
            self._edge = MeasuredEdge(self._body, self._integral)
            moved = self._body.lift(self._edge.displacement(distortion)[..., None])
            for view, values in self._seen(moved).items():
                self.data[view] = self.data[view] - values[..., 0]
        else:
            # A free body floats: data and prediction are compared up to the rigid motion of each component.
            self._rigid = RigidModes(mesh.nodes[mesh.centres], mesh.component)
            self.data["displacement"] = self._rigid.remove(self.data["displacement"][..., None])[..., 0]

    def respond(self, eigenstrain: Float) -> dict[View, Float]:
        return self._seen(self._body.displacement(self._body.eigenstrain_loads(eigenstrain)))

    def weigh(self, view: View, vectors: Float) -> Float:
        return self._weight * vectors if view == "strain" else vectors

    def transpose(self, view: View, vectors: Float) -> tuple[Float, Float]:
        if view == "strain":
            loads, channels = self._body.strain_transpose(vectors), _with_rotation(vectors)
        else:
            vectors = self._rigid.remove(vectors) if self._rigid else vectors
            loads = np.zeros((len(self._body.mesh.nodes), 2, vectors.shape[2]))
            loads[self._centres] = vectors
            channels = self._integral.transpose(vectors)
        eigenstrain = self._body.eigenstrain_loads_transpose(self._body.displacement(loads))
        if self._edge:
            channels = channels - self._edge.transpose(self._body.lift_transpose(loads))
        return eigenstrain, channels

    def hidden_transpose(self, view: View, vectors: Float) -> Float:
        return np.empty((0, vectors.shape[2]))

    def _seen(self, displacement: Float) -> dict[View, Float]:
        seen: dict[View, Float] = {"strain": self._body.strain(displacement)}
        if "displacement" in self.data:
            centres = displacement[self._centres]
            seen["displacement"] = self._rigid.remove(centres) if self._rigid else centres
        return seen


class MeasuredEdge:
    """Displacement of a body's held nodes, extrapolated from the adjoining pixel centres along the measured gradient.

    Parameters
    ----------
    body : held at its boundary.
    integral : from the distortion to the displacement of pixel centres.
    """

    def __init__(self, body: PlaneStress, integral: InverseGradient) -> None:
        self._integral = integral
        touching = _touching(body.mesh, body.held)
        distance = body.mesh.nodes[body.held[touching.row]] - body.mesh.nodes[body.mesh.centres[touching.col]]
        self._mean = touching.tocsr()
        self._mean_x, self._mean_y = (
            sp.csr_array((touching.data * along, (touching.row, touching.col)), shape=touching.shape)
            for along in distance.T
        )

    def displacement(self, distortion: Float) -> Float:
        """Displacement (n_held, 2), nm, of a distortion (n_pixels, 4)."""
        aa, cc, shear, rotation = distortion.T
        centre = self._integral.displacement(distortion)
        u = self._mean @ centre[:, 0] + self._mean_x @ aa + self._mean_y @ (shear / 2 - rotation)
        v = self._mean @ centre[:, 1] + self._mean_x @ (shear / 2 + rotation) + self._mean_y @ cc
        return np.column_stack([u, v])

    def transpose(self, vectors: Float) -> Float:
        """Transpose of `displacement`: (n_held, 2, k) to (n_pixels, 4, k)."""
        u, v = vectors[:, 0], vectors[:, 1]
        centre = np.stack([self._mean.T @ u, self._mean.T @ v], axis=1)
        across, along = self._mean_y.T @ u, self._mean_x.T @ v
        direct = [self._mean_x.T @ u, self._mean_y.T @ v, (across + along) / 2, along - across]
        return np.asarray(self._integral.transpose(centre) + np.stack(direct, axis=1))


def _touching(mesh: Mesh, nodes: Int) -> sp.coo_array:
    """Row-normalised incidence (n_selected, n_cells): which cells a node belongs to."""
    shape = (len(mesh.nodes), mesh.n_cells)
    corners = (mesh.triangles.ravel(), np.repeat(mesh.cells, mesh.triangles.shape[1]))
    touches = (sp.csr_array((np.ones(mesh.triangles.size), corners), shape=shape) > 0).astype(float)[nodes]
    return sp.coo_array(sp.diags_array(1 / touches.sum(axis=1)) @ touches)


def _with_rotation(strain: Float) -> Float:
    """Append a channel of zeros for the rotation, which the strain does not read."""
    return np.concatenate([strain, np.zeros_like(strain[:, :1])], axis=1)
