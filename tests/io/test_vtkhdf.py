"""Frames: the layout of VTKHDF image data, x fastest."""

import json

import h5py
import numpy as np

from chemomech.io.void import write_instant
from chemomech.io.vtkhdf import write_frame, write_series
from chemomech.mechanics.box import Box
from chemomech.mechanics.voxel import Equilibrium
from chemomech.phasefield.node_grid import node_grid
from chemomech.phasefield.void import Instant


def test_layout(tmp_path):
    solid = np.ones((2, 3, 4), bool)
    solid[0, 1, 2] = False
    points = np.arange(3 * 4 * 5.0).reshape(3, 4, 5)
    strain = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    box = Box((2, 3, 4), (False, False, False))
    write_frame(tmp_path / "f.vtkhdf", box, solid, np.array([1.0, 2.0, 3.0]), {"X": points}, {"strain": strain})
    with h5py.File(tmp_path / "f.vtkhdf") as file:
        group = file["VTKHDF"]
        assert group.attrs["Type"] == b"ImageData"
        assert group.attrs["WholeExtent"].tolist() == [0, 2, 0, 3, 0, 4]
        assert group.attrs["Spacing"].tolist() == [1, 2, 3]
        assert group["PointData/X"].shape == (5, 4, 3)
        assert group["PointData/X"][4, 1, 2] == points[2, 1, 4]
        np.testing.assert_array_equal(group["CellData/strain"][3, 2, 1], strain[1, 2, 3].astype(np.float32))
        hidden = group["CellData/vtkGhostType"][...]
        assert hidden.sum() == 32
        assert hidden[2, 1, 0] == 32


def test_series(tmp_path):
    write_series(tmp_path / "frames.series", {"a.vtkhdf": 0.0, "b.vtkhdf": 1.5})
    content = json.loads((tmp_path / "frames.series").read_text())
    assert content["files"] == [{"name": "a.vtkhdf", "time": 0.0}, {"name": "b.vtkhdf", "time": 1.5}]


def test_strains_are_tensors_in_the_order_of_paraview(tmp_path):
    """A shear ab alone: XY of ParaView, and half of Voigt's engineering shear."""
    solid = np.ones((2, 2, 2), bool)
    grid = node_grid(solid, np.ones(3), Box(solid.shape, (False, False, False)))
    field = grid.field(0.5)
    instant = Instant(0, 0.0, 1.0, (), (field,), field, (field,), (), 0.0, 0.5)
    voigt = np.zeros((2, 2, 2, 6))
    voigt[..., 5] = 0.02
    elastic = Equilibrium(0.0, 0.0, np.zeros((3, 3, 3, 3)), voigt, 50 * voigt, 0)
    write_instant(tmp_path / "f.vtkhdf", grid, solid, instant, elastic)
    with h5py.File(tmp_path / "f.vtkhdf") as file:
        strain, stress = (file[f"VTKHDF/CellData/{name}"][0, 0, 0] for name in ("elastic_strain", "stress_GPa"))
    np.testing.assert_allclose(strain, [0, 0, 0, 0.01, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(stress, [0, 0, 0, 1.0, 0, 0], rtol=1e-6)
