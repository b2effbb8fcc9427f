"""Exact non-negative least squares against scipy, one pixel at a time."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls as scipy_nnls

from chemomech.errors import InputError
from chemomech.observe import nnls as module
from chemomech.observe.nnls import nnls, prepare, solve


def by_scipy(references, data):
    """(n, k), pixel by pixel."""
    return np.array([scipy_nnls(references, pixel)[0] for pixel in np.asarray(data, dtype=float)])


def random_references(random, m, k, kind):
    """Independent columns, or with one that is zero, a multiple, a sum, or nearly a copy of others."""
    references = random.random((m, k)) if random.random() < 0.5 else random.standard_normal((m, k))
    if kind == "zero":
        references[:, random.integers(k)] = 0
    elif kind == "multiple" and k > 1:
        references[:, -1] = 3 * random.random() * references[:, 0]
    elif kind == "sum" and k > 2:
        references[:, -1] = references[:, 0] + 0.3 * references[:, 1]
    elif kind == "near copy" and k > 1:
        references[:, -1] = references[:, 0] + 10 ** -random.uniform(1, 5) * random.standard_normal(m)
    return references


def random_data(random, references, n):
    """Mixtures on and off the bounds with little or much noise or noise alone; one pixel zero, one negative."""
    m, k = references.shape
    mixtures = np.maximum(random.standard_normal((n, k)), 0) @ references.T
    data = mixtures + 10 ** random.uniform(-6, 0.5) * random.standard_normal((n, m))
    data[0] = 0
    data[1] = -np.abs(data[1])
    data[2] = random.standard_normal(m)
    return data * 10 ** random.uniform(-6, 6)


def condition(references):
    """Of the unit columns that are not zero; infinite with more of them than rows."""
    norms = np.linalg.norm(references, axis=0)
    unit = references[:, norms > 0] / norms[norms > 0]
    return 1.0 if unit.size == 0 else np.linalg.cond(unit) if len(unit) >= unit.shape[1] else np.inf


def test_it_equals_scipy_on_a_hundred_thousand_problems():
    """To 1e-9 of the largest number of a pixel.

    The fitted data are compared always, the coefficients where they are unique and rounding (eps times the condition
    number squared) leaves them nine digits: below a condition number of 1000. Collinear columns have many minimisers,
    which share one fit.
    """
    random = np.random.default_rng(0)
    kinds = ("independent", "independent", "zero", "multiple", "sum", "near copy")
    pixels, worst_fit, worst_x, compared = 50, 0.0, 0.0, 0
    for i in range(2000):
        references = random_references(random, random.integers(2, 121), random.integers(1, 7), kinds[i % 6])
        data = random_data(random, references, pixels)
        x, expected = nnls(references, data), by_scipy(references, data)
        assert x.min() >= 0
        scale = np.abs(data).max(axis=1, keepdims=True).clip(min=1e-300)
        worst_fit = max(worst_fit, np.max(np.abs((x - expected) @ references.T) / scale))
        if condition(references) < 1000:
            # Pixels whose solution is zero are compared with the coefficients of the others.
            size = np.maximum(expected.max(axis=1, keepdims=True), 1e-6 * expected.max()).clip(min=1e-300)
            worst_x = max(worst_x, np.max(np.abs(x - expected) / size))
            compared += pixels
    assert worst_fit < 1e-9
    assert worst_x < 1e-9
    assert compared > 50_000


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32), m=st.integers(1, 12), k=st.integers(0, 8), shape=st.lists(st.integers(0, 4), max_size=4)
)
def test_the_optimality_conditions_hold_for_any_shape(seed, m, k, shape):
    """Karush-Kuhn-Tucker: no gradient points into the cone, and none is left along a coefficient in use."""
    random = np.random.default_rng(seed)
    references, data = random.integers(-2, 3, (m, k)).astype(float), random.integers(-3, 4, (*shape, m)).astype(float)
    x = nnls(references, data)
    assert x.shape == (*shape, k)
    gradient = (data - x @ references.T) @ references
    tolerance = 1e-11 * max(1.0, np.abs(references).max(initial=0) ** 2 * np.abs(data).max(initial=0)) * m
    assert (x >= 0).all()
    assert (gradient <= tolerance).all()
    assert np.abs(gradient[x > 0]).max(initial=0) <= tolerance


@pytest.mark.parametrize("m", [9, 19])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f8", np.int16, np.float16])
def test_every_memory_order_gives_the_same(dtype, m):
    """The order of sums may differ, so to 1e-12; 1100 pixels in rows of 275 end blocks in all places."""
    random = np.random.default_rng(1)
    references = random.random((m, 3))
    cube = (100 * random.random((m, 4, 275))).astype(dtype)
    pixels = np.moveaxis(cube, 0, -1)
    expected = by_scipy(references, pixels.reshape(-1, m)).reshape(4, 275, 3)
    padded = np.zeros((m, 6, 300), dtype)
    padded[:, 1:5, 3:278] = cube
    fortran = np.asfortranarray(pixels)
    layouts = {
        "energy-major": pixels,
        "pixel-major": np.ascontiguousarray(pixels),
        "cropped": np.moveaxis(padded[:, 1:5, 3:278], 0, -1),
        "Fortran": fortran,
        "transposed": np.ascontiguousarray(pixels.transpose(1, 0, 2)).transpose(1, 0, 2),
        "energy between": np.moveaxis(np.ascontiguousarray(np.moveaxis(cube, 0, 1)), 1, -1),
        "reversed": np.ascontiguousarray(pixels[::-1, :, ::-1])[::-1, :, ::-1],
        "every second": np.moveaxis(np.repeat(np.repeat(cube, 2, axis=2), 2, axis=0)[::2, :, ::2], 0, -1),
        "four axes": np.moveaxis(cube.reshape(m, 2, 2, 275)[:, :, ::-1], 0, -1),
    }
    for name, layout in layouts.items():
        x = nnls(references, layout)
        want = expected.reshape(2, 2, 275, 3)[:, ::-1] if name == "four axes" else expected
        np.testing.assert_allclose(x, want, rtol=1e-12, atol=1e-10, err_msg=name)


def test_broadcast_and_read_only_data():
    data = np.broadcast_to(np.array([1.0, 3.0, 2.0]), (5, 7, 3))
    np.testing.assert_allclose(nnls([[1, 0], [1, 1], [0, 1]], data), np.broadcast_to([1.0, 2.0], (5, 7, 2)), atol=1e-14)
    constant = np.broadcast_to(2.0, (4, 3))
    np.testing.assert_allclose(nnls(np.ones((3, 1)), constant), np.full((4, 1), 2.0))


@pytest.mark.parametrize("k", [1, 3, 4, 6, 9])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_datum_spoils_its_pixel_only(k, bad):
    random = np.random.default_rng(2)
    references, data = random.random((20, k)), random.random((40, 20))
    data[17, 5] = bad
    x = nnls(references, data)
    assert np.isnan(x[17]).all()
    good = np.arange(40) != 17
    np.testing.assert_allclose(x[good], by_scipy(references, data[good]), atol=1e-11)
    references[:, 0] = 0
    assert np.isnan(nnls(references, data)[17]).all()


@pytest.mark.parametrize("k", [8, 20, 70])
def test_many_references(k):
    """Pivoting up to 62 references, the active set method of one pixel beyond; coefficients of order 1."""
    random = np.random.default_rng(3)
    references = random.standard_normal((100, k)) + 0.3
    data = random_data(random, references, 60)
    scale = np.abs(data).max()
    np.testing.assert_allclose(nnls(references, data) / scale, by_scipy(references, data) / scale, atol=1e-11)


def test_the_result_does_not_depend_on_threads(monkeypatch):
    random = np.random.default_rng(4)
    references, data = random.random((5, 3)), random.random((5, 200_000))
    several = nnls(references, data.T)
    monkeypatch.setattr(module._core, "build_info", lambda: {"threads": 1})
    np.testing.assert_array_equal(several, nnls(references, data.T))


def test_data_are_not_copied():
    """The peak beyond the data is the coefficients (2 of 40 numbers a pixel) and the work of the blocks."""
    data = np.ones((40, 256, 512), np.float32)
    references = np.random.default_rng(5).random((40, 2))
    nnls(references, np.moveaxis(data[:, :2], 0, -1))
    tracemalloc.start()
    nnls(references, np.moveaxis(data, 0, -1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 8 * 256 * 512 + 1e6


@pytest.mark.parametrize("k", [2, 4, 5])
def test_weights_and_free_columns(k):
    """sqrt(W) on both sides, and a free column is the difference of two constrained ones."""
    random = np.random.default_rng(6)
    references, free = random.random((15, k)), np.column_stack([np.ones(15), np.linspace(-1, 1, 15)])
    weights = random.random(15)
    weights[4] = 0
    data = random_data(random, references, 50) + free @ [0.4, -0.7]
    solution = solve(prepare(references, weights=weights, free=free), data)
    root = np.sqrt(weights)
    doubled = root[:, None] * np.column_stack([references, free, -free])
    expected = by_scipy(doubled, data * root)
    scale = np.abs(data).max()
    np.testing.assert_allclose(solution.coefficients.T / scale, expected[:, :k] / scale, atol=1e-11)
    np.testing.assert_allclose(
        solution.free.T / scale, (expected[:, k : k + 2] - expected[:, k + 2 :]) / scale, atol=1e-11
    )
    residual = np.sum((expected @ doubled.T - data * root) ** 2, axis=1)
    np.testing.assert_allclose(solution.residual, residual, rtol=1e-9, atol=1e-13 * scale**2)
    np.testing.assert_allclose(solution.total, np.sum((data * root) ** 2, axis=1), rtol=1e-12)


def test_an_energy_without_weight_is_not_read():
    data = np.array([1.0, np.nan, 2.0])
    solution = solve(prepare(np.eye(3)[:, [0, 2]], weights=[1, 0, 1]), data)
    np.testing.assert_allclose(solution.coefficients, [1, 2])


def test_fewer_energies_than_references():
    """Many minimisers, one fit: here it is exact where the data lie in the cone."""
    references = np.array([[1.0, 0, 1, 2], [0, 1, 1, 1]])
    x = nnls(references, [[3.0, 2.0], [-1.0, 2.0]])
    np.testing.assert_allclose(x @ references.T, [[3.0, 2.0], [0.0, 2.0]], atol=1e-14)


@pytest.mark.parametrize(
    ("references", "data", "message"),
    [
        (np.ones(3), np.ones(3), r"references must have shape \(any, any\), got \(3,\)"),
        (
            np.ones((3, 2)),
            np.ones((4, 5)),
            r"data must have shape \(\.\.\., 3\) for references of shape \(3, k\), got \(4, 5\)",
        ),
        (np.full((3, 1), np.nan), np.ones(3), "references have 3 values that are not finite"),
        (np.ones((3, 1)), np.ones(3, complex), "data must be real numbers, got complex128"),
    ],
)
def test_bad_input(references, data, message):
    with pytest.raises(InputError, match=message):
        nnls(references, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1, -1, 1]}, "weights must be >= 0 and not all 0, got -1 to 1"),
        ({"weights": [0, 0, 0]}, "weights must be >= 0 and not all 0"),
        ({"weights": [1, 1]}, r"weights must have shape \(3\), got \(2,\)"),
        ({"free": np.ones((3, 2))}, "2 free columns cannot be told apart at 3 energies"),
    ],
)
def test_bad_preparation(options, message):
    with pytest.raises(InputError, match=message):
        prepare(np.ones((3, 1)), **options)
