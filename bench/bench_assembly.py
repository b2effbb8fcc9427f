"""Assembly of plane elasticity on quadratic triangles, beside scikit-fem and NGSolve, one thread each.

The three assemble the same matrix: straight-sided 6-node triangles on a pixel mesh, constant plane-stress stiffness.
Everyone's numeric phase is timed with its symbolic one already done (ours: the pattern; NGSolve: the matrix graph of a
bilinear form assembled before; scikit-fem has none to reuse but its basis). The answers are compared first.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before anything loads OpenMP

import argparse
import sys

import numpy as np
import scipy.sparse as sparse

from chemomech import _core
from chemomech.mechanics.mesh import Mesh, pixel_mesh
from harness import finish, median_seconds

STIFFNESS = np.array([[150.0, 40.0, 0.0], [40.0, 130.0, 0.0], [0.0, 0.0, 45.0]])  # GPa, orthotropic


def numeric_seconds(mesh: Mesh) -> tuple[_core.Pattern, np.ndarray, float]:
    """Our pattern, the values of the matrix, and the time of one numeric phase."""
    pattern = _core.Pattern(mesh.triangles, len(mesh.nodes))
    values = np.empty((pattern.n_blocks, 2, 2))
    seconds = median_seconds(
        lambda: _core.assemble_stiffness(pattern, mesh.nodes, STIFFNESS, out=values),
        at_least=15,
        budget_s=1.5,
    )
    return pattern, values, seconds


def triad_GB_per_s() -> float:
    """Bandwidth of a = b + c on arrays far larger than the caches: two reads, a write and the fetch before it."""
    a, b, c = np.ones((3, 1 << 24))
    return 4 * a.nbytes / median_seconds(lambda: np.add(b, c, out=a), at_least=9, budget_s=0.5) / 1e9


def scikit_fem(mesh: Mesh, rounds: int):
    """Its matrix, the (node, component) of each of its unknowns, and the time of one assembly."""
    import skfem

    coarse = mesh.vertex_mesh
    basis = skfem.Basis(
        skfem.MeshTri(coarse.nodes.T.copy(), coarse.triangles.T.astype(np.int64).copy()),
        skfem.ElementVector(skfem.ElementTriP2()),
        intorder=2,
    )

    @skfem.BilinearForm
    def energy(u, v, _):
        (ux, uy), (vx, vy) = u.grad
        (px, py), (qx, qy) = v.grad
        shear = STIFFNESS[2, 2] * (uy + vx) * (py + qx)
        return (
            (STIFFNESS[0, 0] * ux + STIFFNESS[0, 1] * vy) * px
            + (STIFFNESS[1, 0] * ux + STIFFNESS[1, 1] * vy) * qy
            + shear
        )

    seconds = median_seconds(lambda: energy.assemble(basis), at_least=rounds, budget_s=0)
    component = np.zeros(basis.N, dtype=int)
    component[np.concatenate([basis.nodal_dofs[1], basis.facet_dofs[1]])] = 1
    return energy.assemble(basis).tocsr(), basis.doflocs.T, component, seconds


def ngsolve(mesh: Mesh, rounds: int):
    """Its matrix, the place and component of each of its unknowns, and the time of one assembly."""
    import ngsolve as ng
    from netgen.meshing import Element1D, Element2D, FaceDescriptor, MeshPoint, Pnt
    from netgen.meshing import Mesh as NetgenMesh

    coarse = mesh.vertex_mesh
    netgen_mesh = NetgenMesh(dim=2)
    points = [netgen_mesh.Add(MeshPoint(Pnt(x, y, 0))) for x, y in coarse.nodes.tolist()]
    face = netgen_mesh.Add(FaceDescriptor(bc=1, domin=1, surfnr=1))
    for triangle in coarse.triangles.tolist():
        netgen_mesh.Add(Element2D(face, [points[i] for i in triangle]))
    on_boundary = np.isin(coarse.midsides, mesh.boundary)
    for a, b in coarse.parents[on_boundary].tolist():
        netgen_mesh.Add(Element1D([points[a], points[b]], index=1))
    ng_mesh = ng.Mesh(netgen_mesh)

    space = ng.VectorH1(ng_mesh, order=2)
    u, v = space.TnT()

    def strain(w):
        grad = ng.Grad(w)
        return ng.CF((grad[0, 0], grad[1, 1], grad[0, 1] + grad[1, 0]))

    form = ng.BilinearForm(space, symmetric=False)
    tensor = ng.CF(tuple(STIFFNESS.ravel()), dims=(3, 3))
    form += ((tensor * strain(u)) * strain(v) * ng.dx).Compile()
    seconds = median_seconds(form.Assemble, at_least=rounds, budget_s=0)
    return ng, ng_mesh, space, form, seconds


def quadratic_fields(nodes: np.ndarray) -> list[np.ndarray]:
    """Displacements (n, 2) that every quadratic space contains exactly."""
    x, y = (nodes / np.abs(nodes).max()).T
    return [np.column_stack([x * y + x, y**2 - x]), np.column_stack([x**2, x * y - y**2 + 0.5 * x])]


def energies_of_ngsolve(ng, space, form, scale: float) -> np.ndarray:
    """u . K v for the fields of `quadratic_fields`, written as NGSolve's own coordinate functions."""
    x, y = ng.x / scale, ng.y / scale
    vectors = []
    for field in (ng.CF((x * y + x, y**2 - x)), ng.CF((x**2, x * y - y**2 + 0.5 * x))):
        function = ng.GridFunction(space)
        function.Set(field)
        vectors.append(function.vec.FV().NumPy().copy())
    rows, columns, values = form.mat.CSR()[2], form.mat.CSR()[1], form.mat.CSR()[0]
    matrix = sparse.csr_matrix((np.array(values), np.array(columns), np.array(rows)), shape=(space.ndof,) * 2)
    return np.array([[u @ (matrix @ v) for v in vectors] for u in vectors])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; ends within 45 s")
    rounds = 1 if parser.parse_args().quick else 3

    mesh = pixel_mesh(np.ones((200, 200), dtype=bool), 5.0)
    n = len(mesh.triangles)
    symbolic = median_seconds(lambda: _core.Pattern(mesh.triangles, len(mesh.nodes)), at_least=5)
    pattern, values, numeric = numeric_seconds(mesh)
    # The same kernel where the matrix (0.9 MB) stays in the second-level cache: what instructions alone cost.
    small = pixel_mesh(np.ones((28, 28), dtype=bool), 5.0)
    in_cache = numeric_seconds(small)[2] * n / len(small.triangles)
    ours = sparse.bsr_matrix((values, pattern.indices, pattern.indptr))
    scale = np.abs(mesh.nodes).max()
    fields = [field.ravel() for field in quadratic_fields(mesh.nodes)]
    energies = np.array([[u @ (ours @ v) for v in fields] for u in fields])

    their_matrix, places, component, skfem_seconds = scikit_fem(mesh, rounds)
    # Entry by entry, the unknowns matched by place and component.
    theirs = np.lexsort([component, *np.round(places, 6).T])
    order = np.lexsort([np.tile([0, 1], len(mesh.nodes)), *np.round(np.repeat(mesh.nodes, 2, axis=0), 6).T])
    difference = np.abs(their_matrix[theirs][:, theirs] - ours.tocsr()[order][:, order]).max() / np.abs(values).max()

    ng, _, space, form, ng_seconds = ngsolve(mesh, 3 + rounds)
    their_energies = energies_of_ngsolve(ng, space, form, scale)
    energy_difference = np.abs(their_energies - energies).max() / np.abs(energies).max()

    print(f"{n} quadratic triangles, {2 * len(mesh.nodes)} unknowns, one thread each\n")
    print(f"same matrix as scikit-fem, entry by entry:   {difference:.1e} of the largest entry")
    print(f"same energies of quadratic fields as NGSolve: {energy_difference:.1e}\n")
    if not (difference < 1e-12 and energy_difference < 1e-9):
        print("the matrices differ", file=sys.stderr)
        return 1

    print(f"{'':24}{'ms':>10}{'elements/s':>14}{'times ours':>12}")
    for name, seconds in (
        ("chemomech, numeric", numeric),
        ("chemomech, symbolic", symbolic),
        ("NGSolve", ng_seconds),
        ("scikit-fem", skfem_seconds),
    ):
        print(f"{name:24}{1e3 * seconds:10.2f}{n / seconds:14.2e}{seconds / numeric:12.1f}")

    # The least that must move: every block is fetched and written once (a store fetches its line), the scatter map and
    # the vertex numbers are read once; coordinates stay in cache.
    traffic = 2 * values.nbytes + 4 * n * (30 + 6)
    bandwidth = triad_GB_per_s()
    achieved = traffic / numeric / 1e9
    print(
        f"\nleast traffic {traffic / n:.0f} bytes an element: {achieved:.1f} GB/s, "
        f"{100 * achieved / bandwidth:.0f} % of a triad's {bandwidth:.1f} GB/s in this run"
    )
    print(
        f"in cache the same kernel does {n / in_cache:.2e} elements/s: "
        f"{100 * in_cache / numeric:.0f} % of the time is instructions (about 30 block updates an element), "
        f"{100 * (1 - in_cache / numeric):.0f} % is waiting for memory"
    )
    finish(
        "assembly",
        {
            "elements_per_s_core": n / numeric,
            "x_scikit_fem": skfem_seconds / numeric,
            "x_ngsolve": ng_seconds / numeric,
            "symbolic_over_numeric": symbolic / numeric,
            "bandwidth_fraction": achieved / bandwidth,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
