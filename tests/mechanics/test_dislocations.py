"""Fields against closed forms, equilibrium, circuits and symmetry; the convolution against sums of lines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import assert_adjoint
from chemomech.errors import ConvergenceError, InputError
from chemomech.mechanics.dislocations import DensityField, StraightDislocation, rotate_stiffness
from chemomech.mechanics.stiffness import LIFEPO4, OLIVINE

MU, NU = 50.0, 0.3
MISFIT = np.array([0.0, 0.0, 0.474])  # system D of olivine


def isotropic(mu=MU, nu=NU):
    stiffness = np.diag([2 * mu] * 3 + [mu] * 3)
    stiffness[:3, :3] += 2 * mu * nu / (1 - 2 * nu)
    return stiffness


def hexagonal(c11, c33, c44, c12, c13):
    """Transversely isotropic about axis 3."""
    stiffness = np.diag([c11, c11, c33, c44, c44, (c11 - c12) / 2])
    stiffness[0, 1] = stiffness[1, 0] = c12
    stiffness[:2, 2] = stiffness[2, :2] = c13
    return stiffness


def triclinic(seed):
    """A random stiffness without symmetry whose eigenvalues lie between 20 and 300 GPa."""
    random = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(random.standard_normal((6, 6)))
    stiffness = vectors * random.uniform(20, 300, 6) @ vectors.T
    return (stiffness + stiffness.T) / 2


def random_dislocation(seed):
    random = np.random.default_rng(seed)
    frame, _ = np.linalg.qr(random.standard_normal((3, 3)))
    frame *= np.linalg.det(frame)
    return StraightDislocation(triclinic(seed + 1), random.standard_normal(3), frame)


def circle(n, radius=1.0, centre=(0.0, 0.0)):
    angle = 2 * np.pi * np.arange(n) / n
    unit = np.column_stack([np.cos(angle), np.sin(angle)])
    return centre + radius * unit, 2 * np.pi * radius / n * np.column_stack([-unit[:, 1], unit[:, 0]]), unit


def random_points(n=200, seed=0):
    return np.random.default_rng(seed).uniform(-30, 30, (n, 2))


def isotropic_displacement(points, burgers, nu=NU):
    """Edges along x and y and a screw (Hirth & Lothe 1982, chapter 3), up to a constant."""

    x, y = points.T
    angle = np.arctan(y / x)

    def edge(x, y):
        r2 = x**2 + y**2
        along = angle + x * y / (2 * (1 - nu) * r2)
        across = -((1 - 2 * nu) * np.log(r2) + (x**2 - y**2) / r2) / (4 * (1 - nu))
        return along, across

    along_x, across_x = edge(x, y)
    along_y, across_y = edge(y, -x)  # seen in axes turned by a quarter
    b = np.asarray(burgers) / (2 * np.pi)
    return np.column_stack([b[0] * along_x - b[1] * across_y, b[0] * across_x + b[1] * along_y, b[2] * angle])


def isotropic_distortion(points, burgers, nu=NU):
    """The derivatives by a complex step, which has no rounding error of subtraction."""
    steps = 1e-30j * np.eye(2)
    return np.stack([isotropic_displacement(points + step, burgers, nu).imag / 1e-30 for step in steps], -1)


def close(a, b, tolerance):
    """Largest difference, in units of the largest entry of b."""
    return np.abs(a - b).max() <= tolerance * np.abs(b).max()


BURGERS = pytest.mark.parametrize("burgers", [(0.5, 0, 0), (0, 0.3, 0), (0, 0, 0.4), (0.2, -0.3, 0.4)])


@BURGERS
@pytest.mark.parametrize("nu", [-0.5, 0.0, 0.3, 0.499])
def test_isotropic_fields_are_the_closed_forms(burgers, nu):
    """All six roots are equal to i there; twelve digits are left of sixteen."""
    line = StraightDislocation(isotropic(nu=nu), np.array(burgers, dtype=float), np.eye(3))
    points = random_points()
    assert close(line.distortion(points), isotropic_distortion(points, burgers, nu), 1e-12)
    difference = line.displacement(points) - isotropic_displacement(points, burgers, nu)
    # Where x < 0 the arctangent is on another branch.
    turns = np.where(points[:, 0] < 0, np.sign(points[:, 1]) / 2, 0)[:, None] * burgers
    assert np.ptp(difference - turns, axis=0).max() < 1e-12


def test_isotropic_energy_factors():
    """mu for a screw, mu / (1 - nu) for an edge, and their mean by the squared cosine for a mixed line."""

    def factor(*b):
        return StraightDislocation(isotropic(), np.array(b, dtype=float), np.eye(3)).energy_factor_GPa

    assert factor(0, 0, 0.3) == pytest.approx(MU, rel=1e-13)
    assert factor(0.3, 0, 0) == pytest.approx(MU / (1 - NU), rel=1e-13)
    assert factor(0.3, 0, 0.4) == pytest.approx(0.36 * MU / (1 - NU) + 0.64 * MU, rel=1e-13)


@pytest.mark.parametrize("size", [1e-6, 1e-8, 1e-10, 1e-12, 1e-14])
def test_the_isotropic_limit_is_continuous(size):
    """A stiffness changed by a fraction changes the field by about as much, however close the roots come."""
    burgers = np.array([0.2, -0.3, 0.4])
    stiffness = isotropic() + size * triclinic(0)
    points = random_points()
    line = StraightDislocation(stiffness, burgers, np.eye(3))
    assert close(line.distortion(points), isotropic_distortion(points, burgers), 100 * size + 1e-12)


@BURGERS
def test_along_a_hexagonal_axis_the_plane_is_isotropic(burgers):
    """In the basal plane mu = C66 and nu = C12 / (C11 + C12); the screw sees C44 alone."""
    c11, c33, c44, c12, c13 = 162.4, 180.7, 46.7, 92.0, 69.0  # titanium, GPa
    line = StraightDislocation(hexagonal(c11, c33, c44, c12, c13), np.array(burgers, dtype=float), np.eye(3))
    points = random_points()
    assert close(line.distortion(points), isotropic_distortion(points, burgers, c12 / (c11 + c12)), 1e-12)
    edge, screw = (c11**2 - c12**2) / (2 * c11), c44
    b2 = np.square(burgers)
    assert line.energy_factor_GPa == pytest.approx((b2[:2].sum() * edge + b2[2] * screw) / b2.sum(), rel=1e-13)


def stroh_matrix(line):
    """[[N1, N2], [N3, N1^T]] from the tensor itself."""
    voigt = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    tensor = line.stiffness_GPa[voigt[:, :, None, None], voigt]
    tensor = np.einsum("ai,bj,ck,dl,ijkl->abcd", *[line.frame] * 4, tensor)
    q, r, t = tensor[:, 0, :, 0], tensor[:, 0, :, 1], tensor[:, 1, :, 1]
    inverse = np.linalg.inv(t)
    return np.block([[-inverse @ r.T, inverse], [r @ inverse @ r.T - q, -r @ inverse]])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_fields_equal_the_sum_over_eigenvectors(seed):
    """Stroh's own form (Ting 1996, eq. 5.3), whose roots are distinct for a random crystal."""
    line = random_dislocation(seed)
    roots, vectors = np.linalg.eig(stroh_matrix(line))
    side = np.sign(roots.imag)
    jump = np.append(line.burgers_in_frame_nm, [0, 0, 0])
    weights = side * np.linalg.solve(vectors, jump) / (2j * np.pi)
    points = random_points()
    slopes = 1 / (points[:, :1] + points[:, 1:] * roots) * weights
    expected = np.stack([slopes @ vectors[:3].T, (slopes * roots) @ vectors[:3].T], -1)
    # Eigenvectors lose digits when two roots come close.
    assert close(line.distortion(points), expected.real, 1e-13 * np.linalg.cond(vectors))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_energy_factor_is_barnett_and_lothes_integral(seed):
    """b L b with L = -(1/pi) int N3 d phi over half a turn of the axes; the trapezoid rule converges geometrically."""
    line = random_dislocation(seed)
    total = np.zeros((3, 3))
    nodes = 1024
    for angle in np.pi * np.arange(nodes) / nodes:
        c, s = np.cos(angle), np.sin(angle)
        turned = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ line.frame
        n3 = stroh_matrix(StraightDislocation(line.stiffness_GPa, line.burgers_nm, turned))[3:, :3]
        # N3 is a matrix in the turned axes; back to the fixed ones.
        back = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        total -= back.T @ n3 @ back / nodes
    b = line.burgers_in_frame_nm
    assert line.energy_factor_GPa == pytest.approx(b @ total @ b / (b @ b), rel=1e-11)


def full_stress(stress):
    return stress[:, np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_circuits_close_by_the_burgers_vector_and_carry_no_force(seed, around):
    """Any crystal, any line: the integral of du along a circle is b around the line and 0 beside it; tractions on a
    circle balance, which holds for every circle only if the stress is in equilibrium (Gauss)."""
    line = random_dislocation(seed)
    centre = (0.3, -0.2) if around else (2.5, 1.0)
    points, steps, normal = circle(2000, 1.0, centre)
    closure = np.einsum("nij,nj->i", line.distortion(points), steps)
    np.testing.assert_allclose(closure, line.burgers_in_frame_nm if around else 0, atol=1e-10)
    stress = full_stress(line.stress(points))[:, :, :2]
    force = np.einsum("nij,nj->i", stress, normal) * 2 * np.pi / len(points)
    np.testing.assert_allclose(force, 0, atol=1e-10 * np.abs(stress).max())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_stress_is_hookes_and_continuous_across_the_cut(seed):
    line = random_dislocation(seed)
    above, below = np.array([[-2.0, 1e-13]]), np.array([[-2.0, -1e-13]])
    assert close(line.stress(above), line.stress(below), 1e-10)
    jump = line.displacement(above) - line.displacement(below)
    np.testing.assert_allclose(jump[0], line.burgers_in_frame_nm, atol=1e-10)
    points = random_points(5)
    gradient = np.zeros((5, 3, 3))
    gradient[:, :, :2] = line.distortion(points)
    strain = gradient + gradient.transpose(0, 2, 1)
    voigt = np.column_stack([strain[:, 0, 0] / 2, strain[:, 1, 1] / 2, strain[:, 2, 2] / 2])
    voigt = np.column_stack([voigt, strain[:, 1, 2], strain[:, 0, 2], strain[:, 0, 1]])
    assert close(line.stress(points), voigt @ rotate_stiffness(line.stiffness_GPa, line.frame).T, 1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_displacement_integrates_the_distortion(seed):
    """Along a straight path that does not meet the cut, by Gauss's rule of forty nodes."""
    line = random_dislocation(seed)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    start, end = np.array([1.0, 0.5]), np.array([0.5, 2.0])
    path = start + (nodes[:, None] + 1) / 2 * (end - start)
    change = np.einsum("n,nij,j->i", weights / 2, line.distortion(path), end - start)
    difference = np.diff(line.displacement(np.array([start, end])), axis=0)[0]
    np.testing.assert_allclose(difference, change, atol=1e-10)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 6.28))
def test_fields_do_not_depend_on_the_axes(seed, angle):
    """Crystal, Burgers vector and line turned together; and the frame turned about the line."""
    line = random_dislocation(seed)
    points = random_points(20)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed + 7).standard_normal((3, 3)))
    rotation *= np.linalg.det(rotation)
    stiffness = rotate_stiffness(line.stiffness_GPa, rotation)
    turned = StraightDislocation(stiffness, rotation @ line.burgers_nm, line.frame @ rotation.T)
    assert close(turned.distortion(points), line.distortion(points), 1e-10)
    assert turned.energy_factor_GPa == pytest.approx(line.energy_factor_GPa, rel=1e-11)
    about = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    seen = StraightDislocation(line.stiffness_GPa, line.burgers_nm, about @ line.frame)
    expected = np.einsum("pi,nij,qj->npq", about, line.distortion(points), about[:2, :2])
    assert close(seen.distortion(points @ about[:2, :2].T), expected, 1e-10)
    assert seen.energy_factor_GPa == pytest.approx(line.energy_factor_GPa, rel=1e-11)


def test_a_twofold_axis_of_the_crystal_leaves_the_image_unchanged():
    """Half a turn about c maps the crystal and [001] on themselves, x and the line on their opposites."""
    line = StraightDislocation(LIFEPO4, MISFIT)
    points = random_points()
    field, mirrored = line.plane_distortion(points), line.plane_distortion(points * [-1, 1])
    # The line's direction is reversed too, which reverses the sign of the field.
    signs = -np.array([[1, -1], [-1, 1]])
    assert close(mirrored, signs * field, 1e-12)


def test_a_strongly_anisotropic_crystal_keeps_twelve_digits():
    """One modulus a thousandth of the others: roots at 0.03 i."""
    stiffness = isotropic()
    stiffness[5, 5] = 0.05
    line = StraightDislocation(stiffness, np.array([0.3, 0.2, 0.1]), np.eye(3))
    points, steps, _ = circle(20000)
    closure = np.einsum("nij,nj->i", line.distortion(points), steps)
    np.testing.assert_allclose(closure, line.burgers_nm, atol=1e-12)


def test_a_softened_core_holds_its_share_of_the_burgers_vector():
    """Inside r the circuit closes by b r^2 / (r^2 + core^2)."""
    line = StraightDislocation(OLIVINE, MISFIT)
    for radius in (0.1, 1.0, 10.0):
        points, steps, _ = circle(400, radius)
        closure = np.einsum("nij,nj->i", line.distortion(points, core_nm=1.5), steps)
        expected = line.burgers_in_frame_nm * radius**2 / (radius**2 + 1.5**2)
        np.testing.assert_allclose(closure, expected, atol=1e-14)
    assert np.all(line.distortion(np.zeros((1, 2)), core_nm=1.5) == 0)
    assert np.isnan(line.distortion(np.zeros((1, 2)))).all()


@pytest.mark.parametrize("n", [1, 7, 16, 33])
def test_lines_add_up(n):
    """Every method is linear in the signs; how many points are asked for together changes no bit (of the stress, which
    is a matrix product of the distortion, a rounding)."""
    line = random_dislocation(3)
    random = np.random.default_rng(n)
    points, lines, signs = random.uniform(-9, 9, (n, 2)), random.uniform(-9, 9, (5, 2)), random.uniform(-1, 1, 5)
    for method in (line.distortion, line.plane_distortion, line.stress, line.displacement):
        total = method(points, lines_nm=lines, signs=signs)
        singly = sum(sign * method(points - at) for at, sign in zip(lines, signs, strict=True))
        assert close(total, singly, 1e-13)
        alone = np.concatenate([method(point[None], lines_nm=lines, signs=signs) for point in points])
        assert close(alone, total, 1e-14 if method == line.stress else 0)


def test_no_points_and_no_lines_are_no_field():
    line = StraightDislocation(OLIVINE, MISFIT)
    assert line.distortion(np.zeros((0, 2))).shape == (0, 3, 2)
    assert np.all(line.stress(random_points(9), lines_nm=np.zeros((0, 2))) == 0)


# The density on pixels.


def direct_average(line, offset, parts):
    """Mean over a unit pixel of the field of unit density on another, both divided into parts^2: lines at the
    centres of sub-pixels, weighted by how many pairs of sub-pixels are that far apart."""
    t = (np.arange(1 - parts, parts)) / parts
    weight = (1 - np.abs(t)) / parts
    grid = np.stack(np.meshgrid(t, t), -1).reshape(-1, 2) + offset
    weights = np.outer(weight, weight).ravel()
    core = np.all(np.abs(grid) < 1e-9, axis=1)  # a sub-pixel's own field averages to zero
    return np.einsum("n,nij->ij", weights[~core], line.plane_distortion(grid[~core]))


@pytest.mark.parametrize("offset", [(0, 0), (0, 1), (1, 1), (-1, 2), (3, 0), (2, 9), (17, -5)])
def test_a_pixel_is_the_sum_over_its_parts(offset):
    """Sums over 40^2 and 80^2 parts differ from the integral by a multiple of the square of a part; one step of
    Richardson's extrapolation leaves 1e-8 beside the core."""
    line = StraightDislocation(OLIVINE, MISFIT)
    h, ny, nx = 7.0, 40, 40
    density = np.zeros((ny, nx))
    density[20, 20] = 1
    row, column = 20 + offset[0], 20 + offset[1]
    measured = DensityField(line, (ny, nx), h).distortion(density)[row, column] / h
    coarse, fine = (direct_average(line, np.array(offset[::-1]), parts) for parts in (40, 80))
    np.testing.assert_allclose(measured, (4 * fine - coarse) / 3, atol=2e-8)


@pytest.mark.parametrize("line", [StraightDislocation(OLIVINE, MISFIT), random_dislocation(5), random_dislocation(6)])
def test_every_offset_of_the_kernel_is_converged(line):
    """Against Gauss's rule of 60 nodes on each quarter of the hat, for offsets away from the core."""
    shape = (90, 80)
    density = np.zeros(shape)
    density[0, 40] = 1
    field = DensityField(line, shape, 1.0).distortion(density)
    t, w = np.polynomial.legendre.leggauss(60)
    t, w = (t + 1) / 2, w / 2
    nodes, weights = np.append(t, -t), np.append(w * (1 - t), w * (1 - t))
    shifts = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    for row, column in [(3, 40), (3, 44), (8, 32), (9, 40), (12, 49), (16, 41), (17, 40), (33, 40), (65, 3), (89, 79)]:
        offset = np.array([[column - 40.0, row]])
        exact = line.plane_distortion(offset, lines_nm=shifts, signs=np.outer(weights, weights).ravel())
        # The transforms add rounding of the largest entries of the kernel.
        np.testing.assert_allclose(field[row, column], exact[0], atol=1e-10 * np.abs(exact).max() + 1e-14)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 10**6))
def test_the_adjoint_is_exact(ny, nx, seed):
    random = np.random.default_rng(seed)
    field = DensityField(StraightDislocation(OLIVINE, random.standard_normal(3)), (ny, nx), 5.0)
    density, values = random.standard_normal((ny, nx)), random.standard_normal((ny, nx, 2, 2))
    assert_adjoint(field.distortion, field.adjoint, density, values, rtol=1e-12)


def test_the_curl_of_the_distortion_is_the_burgers_density():
    """rho b_c = d beta_yy/dx - d beta_yx/dy and rho b_a = d beta_xy/dx - d beta_xx/dy, to second order in the pixel."""
    burgers = np.array([0.3, 0.0, 0.474])
    errors = []
    for n in (32, 64, 128):
        h = 256 / n
        y, x = (np.mgrid[0:n, 0:n] + 0.5) * h - 128
        density = np.exp(-(x**2 + 2 * y**2 + x * y) / (2 * 30**2))
        beta = DensityField(StraightDislocation(OLIVINE, burgers), (n, n), h).distortion(density)
        d_dx, d_dy = np.gradient(beta, h, axis=1), np.gradient(beta, h, axis=0)
        inside = (slice(1, -1), slice(1, -1))
        along_c = (d_dx[..., 1, 1] - d_dy[..., 1, 0])[inside] - (density * burgers[2])[inside]
        along_a = (d_dx[..., 0, 1] - d_dy[..., 0, 0])[inside] - (density * burgers[0])[inside]
        errors.append(max(np.abs(along_c).max(), np.abs(along_a).max()))
    assert errors[-1] < 0.01 * burgers[2]
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 2, atol=0.15)


def test_far_from_a_patch_the_field_is_that_of_all_its_lines_together():
    """An odd kernel has no error of first order in the size of a patch: 1.5 pixels at a distance of 40 leave 3e-3."""
    line = StraightDislocation(OLIVINE, MISFIT)
    density = np.zeros((81, 81))
    density[39:42, 39:42] = 0.02
    field = DensityField(line, (81, 81), 4.0).distortion(density)
    together = 9 * 0.02 * 4.0**2 * line.plane_distortion(np.array([[160.0, 0.0]]))[0]
    np.testing.assert_allclose(field[40, 80], together, atol=4e-3 * np.abs(together).max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stiffness_GPa": np.eye(3)}, r"stiffness_GPa must have shape \(6, 6\)"),
        ({"stiffness_GPa": np.triu(np.ones((6, 6)) + 6 * np.eye(6))}, "symmetric, got C12 = 1 but C21 = 0"),
        ({"stiffness_GPa": np.diag([1.0, 1, 1, 1, 1, -1])}, "positive definite; its least eigenvalue is -1 GPa"),
        ({"stiffness_GPa": np.full((6, 6), np.nan)}, "stiffness_GPa must be finite"),
        ({"burgers_nm": np.zeros(3)}, "burgers_nm must be finite and not zero"),
        ({"burgers_nm": np.ones(2)}, r"burgers_nm must have shape \(3\)"),
        ({"frame": np.eye(3)[::-1]}, "right-handed"),
        ({"frame": 2 * np.eye(3)}, "orthonormal"),
    ],
)
def test_what_is_no_dislocation_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        StraightDislocation(**({"stiffness_GPa": OLIVINE, "burgers_nm": MISFIT} | change))


def test_a_crystal_too_anisotropic_for_the_series_is_an_error():
    """A shear modulus a millionth of the others leaves roots at 0.001 i, and fields as sharp as that in angle."""
    stiffness = isotropic()
    stiffness[5, 5] = 5e-5
    line = StraightDislocation(stiffness, np.array([0.3, 0.2, 0.1]), np.eye(3))
    with pytest.raises(ConvergenceError, match="Fourier series of the displacement"):
        line.displacement(random_points())
    with pytest.raises(ConvergenceError, match="mean field of a pixel"):
        DensityField(line, (5, 5), 1.0)


def test_wrong_arguments_are_refused():
    line = StraightDislocation(OLIVINE, MISFIT)
    with pytest.raises(InputError, match="points_nm must have shape"):
        line.distortion(np.zeros((3, 3)))
    with pytest.raises(InputError, match="signs must have shape"):
        line.stress(np.zeros((3, 2)), signs=np.ones(2))
    with pytest.raises(InputError, match="core_nm must not be negative"):
        line.distortion(np.zeros((3, 2)), core_nm=-1.0)
    with pytest.raises(InputError, match="shape must be two positive integers"):
        DensityField(line, (0, 3), 1.0)
    with pytest.raises(InputError, match="pixel_size_nm must be positive"):
        DensityField(line, (3, 3), 0.0)
    field = DensityField(line, (3, 4), 1.0)
    with pytest.raises(InputError, match=r"density_per_nm2 must have shape \(3, 4\)"):
        field.distortion(np.zeros((4, 3)))
    with pytest.raises(InputError, match=r"values must have shape \(3, 4, 2, 2\)"):
        field.adjoint(np.zeros((3, 4, 4)))
    with pytest.raises(InputError, match="density_per_nm2 must be finite; outside a particle it is 0"):
        field.distortion(np.full((3, 4), np.nan))
