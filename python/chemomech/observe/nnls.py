"""Exact non-negative least squares of every pixel of a stack, in one pass over the data.

A QR factorisation of the references turns each pixel's m numbers into k: minimising |A x - y| over x >= 0 is minimising
|T x - d| with A = Q T and d = Q^T y. Orthogonal columns keep the accuracy that normal equations lose. What is left is
small and is solved exactly:

- For every set S of references let z(S) hold, for a reference in S, its coefficient in the unconstrained fit with S
  and, for one outside, its gradient T_j^T (d - T_S x_S). Both are linear in d: z(S) = M(S) d. S is the minimiser's set
  of positive coefficients exactly when z(S) is positive on S and nowhere else (Karush-Kuhn-Tucker; Lawson & Hanson
  1974, ch. 23). No tolerance enters.
- Up to 4 references all 2^k matrices M(S) are made once and tried on blocks of pixels.
- Above that, the signs of z(S) are the next S (block principal pivoting: Judice & Pires 1994; Kim & Park 2011) and the
  matrices are shared between pixels.
- Where references are nearly collinear, fewer than they need, or pivoting cycles, each pixel is solved by the active
  set method of Lawson & Hanson on a QR factorisation that grows with its set.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Thread
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from chemomech import _core
from chemomech.arrays import Float, require_shape
from chemomech.errors import InputError

#: Above this condition number of the unit-scaled references the matrices M(S), accurate to eps cond^2, are not used.
_WELL_CONDITIONED = 300.0
_ENUMERATED = 4
#: Sets are bits of an int64 while pivoting.
_PIVOTED = 62
#: A column whose part outside the span of others is smaller than this part of it is one of their combinations.
_DEPENDENT = 100 * np.finfo(np.float64).eps
#: Pixels whose small problems are solved together: the nine rows of a block (18 kB) stay in the first-level cache.
_BLOCK = 256
_ROW = _BLOCK + 8
#: Pixels projected together, a multiple of the block. Rows of work arrays are a line longer: at multiples of 4 kB they
#: would compete for the same places in the cache.
_SPAN = 4096
_PITCH = _SPAN + 8
#: From so many energies on a sum over those of one pixel, neighbours in memory, is faster than a copy of many pixels.
_DIRECT = 16
#: Other pixels that are not neighbours in memory are copied in groups of this many and at most so many energies: the
#: copy (0.5 MB) stays in the second-level cache.
_GROUP = 256
_GROUP_PITCH = _GROUP + 8
_GROUP_ENERGIES = 256
_NO_FLOAT64, _NO_FLOAT32 = np.empty(0), np.empty(0, np.float32)
#: Pixels of one task; a multiple of the spans, so that no result depends on the number of threads.
_TASK = 1 << 16
#: Bytes of a slab that must be converted before it can be read.
_SLAB = 1 << 25

_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(*, entry: bool = False) -> Callable[[_F], _F]:
    """Sums may be reordered and contracted; NaN and infinity keep their meaning.

    What only kernels call needs no wrappers of its own and is kept on disk inside its caller.
    """
    options: dict[str, Any] = {"cache": True} if entry else {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    options |= {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    return cast(Callable[[_F], _F], numba.njit(**options))


@dataclass(frozen=True)
class Problem:
    """References prepared for any number of pixels (see `prepare`).

    Attributes
    ----------
    n_energies, n_references, n_free : m, k and f, the number of columns without a sign constraint.
    rows : (m',) the energies with weight; weights : (m',) theirs.
    columns : (k',) the references that are not zero at these; scale : (k',) their weighted norms.
    rotation : (r, m') rows of Q^T sqrt(W); those of the free columns come first.
    triangle : (r, f + k') T of the free columns and of the references in `columns`.
    unit : (r - f, k') T of the references once the free columns are taken out, in units of `scale`.
    condition : of `unit`; inf when references depend on each other or on the free columns.
    sets : (2^k',) the sets to enumerate as bits, larger ones first; empty where another method is used.
    tables : (2^k', 4, 4) M(S) for them, coefficients in the references' own scale, padded with zeros.
    """

    n_energies: int
    n_references: int
    n_free: int
    rows: npt.NDArray[np.int64]
    weights: Float
    columns: npt.NDArray[np.int64]
    scale: Float
    rotation: Float
    triangle: Float
    unit: Float
    condition: float
    sets: npt.NDArray[np.int64]
    tables: Float


@dataclass(frozen=True)
class Solution:
    """Of every pixel, laid out in memory as the data are.

    Attributes
    ----------
    coefficients : (k, ...) >= 0, NaN where a datum is not finite.
    free : (f, ...) coefficients of the columns without constraint.
    residual, total : (...) weighted sums of squares of data - fit and of the data.
    """

    coefficients: Float
    free: Float
    residual: Float
    total: Float


def prepare(references: npt.ArrayLike, *, weights: npt.ArrayLike | None = None, free: Float | None = None) -> Problem:
    """Factor the references once.

    Parameters
    ----------
    references : (m, k), one column a reference; zero and collinear columns are allowed.
    weights : (m,) of the squared residuals, >= 0; where 0 the data are not read. None: all 1.
    free : (m, f) further columns whose coefficients may have any sign.

    Raises
    ------
    InputError : shapes that do not fit, values that are not finite, no positive weight, dependent free columns.
    """
    columns = np.asarray(references, dtype=np.float64)
    require_shape(columns, "references", (None, None))
    m = len(columns)
    free = np.empty((m, 0)) if free is None else np.asarray(free, dtype=np.float64)
    require_shape(free, "free columns", (m, None))
    weight = np.ones(m) if weights is None else np.asarray(weights, dtype=np.float64)
    require_shape(weight, "weights", (m,))
    for name, values in (("references", columns), ("free columns", free), ("weights", weight)):
        if not np.isfinite(values).all():
            raise InputError(f"{name} have {np.sum(~np.isfinite(values))} values that are not finite")
    if m and (weight.min() < 0 or weight.max() == 0):
        raise InputError(f"weights must be >= 0 and not all 0, got {weight.min():g} to {weight.max():g}")

    rows = np.flatnonzero(weight > 0).astype(np.int64)
    root = np.sqrt(weight[rows, None])
    norms = np.linalg.norm(root * columns[rows], axis=0)
    used = np.flatnonzero(norms > 0).astype(np.int64)
    f, scale = free.shape[1], norms[used]
    # Unit columns: the scale of a reference must not decide what is nearly collinear.
    orthogonal, triangle = np.linalg.qr(root * np.hstack([free[rows], columns[np.ix_(rows, used)] / scale]))
    if not triangle.size:  # a row of zeros, through which data that are not finite still show
        orthogonal, triangle = np.zeros((len(rows), 1)), np.zeros((1, 0))
    free_norms = np.linalg.norm(root * free[rows], axis=0)
    if len(triangle) < f or (np.abs(np.diag(triangle)[:f]) <= 1e-10 * free_norms).any():
        raise InputError(f"{f} free columns cannot be told apart at {len(rows)} energies; take fewer")
    unit = triangle[f:, f:].copy()
    condition = _condition(unit)
    triangle[:, f:] *= scale
    sets, tables = (
        _tables(unit, scale)
        if condition <= _WELL_CONDITIONED
        else (np.empty(0, np.int64), np.empty((0, _ENUMERATED, _ENUMERATED)))
    )
    return Problem(
        n_energies=m,
        n_references=columns.shape[1],
        n_free=f,
        rows=rows,
        weights=weight[rows],
        columns=used,
        scale=scale,
        rotation=np.ascontiguousarray((root * orthogonal).T),
        triangle=triangle,
        unit=unit,
        condition=condition,
        sets=sets,
        tables=tables,
    )


def _condition(unit: Float) -> float:
    """Condition number of the columns; inf when there are more of them than rows, 1 for none."""
    if unit.shape[0] < unit.shape[1]:
        return math.inf
    if unit.shape[1] == 0:
        return 1.0
    singular = np.linalg.svd(unit, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf


def _tables(unit: Float, scale: Float) -> tuple[npt.NDArray[np.int64], Float]:
    """Sets and matrices of `Problem`; none when there are no references or too many to enumerate."""
    k = len(scale)
    if not 0 < k <= _ENUMERATED:
        return np.empty(0, np.int64), np.empty((0, _ENUMERATED, _ENUMERATED))
    sets = np.array(sorted(range(1 << k), key=lambda subset: -subset.bit_count()), np.int64)
    tables = np.zeros((1 << k, _ENUMERATED, _ENUMERATED))
    for size in range(k + 1):  # all sets of one size at a time
        subsets = sets[np.bitwise_count(sets) == size]
        member = (subsets[:, None] >> np.arange(k) & 1).astype(np.bool_)
        inside = np.nonzero(member)[1].reshape(len(subsets), size)
        outside = np.nonzero(~member)[1].reshape(len(subsets), k - size)
        q, r = np.linalg.qr(unit.T[inside].swapaxes(1, 2))
        q_transposed = q.swapaxes(1, 2)
        tables[subsets[:, None], inside, :k] = np.linalg.solve(r, q_transposed)
        tables[subsets[:, None], outside, :k] = unit.T[outside] @ (np.eye(k) - q @ q_transposed)
    tables[:, :k] /= scale[:, None]  # signs, all that matters of the gradients, stay
    return sets, tables


def solve(problem: Problem, data: npt.NDArray[Any], *, detail: bool = True) -> Solution:
    """Fit every pixel.

    Parameters
    ----------
    problem : of `prepare`.
    data : (..., m) any memory order; float64 and float32 are read where they lie, other types in slabs. All sums are
        float64.
    detail : False leaves `free`, `residual` and `total` empty and saves their time.

    Raises
    ------
    InputError : the last axis is not m, or the data are not real numbers.
    """
    if not (np.issubdtype(data.dtype, np.floating) or np.issubdtype(data.dtype, np.integer)):
        raise InputError(f"data must be real numbers, got {data.dtype}")
    k, f = problem.n_references, problem.n_free
    n_rows = k + (f + 2 if detail else 0)

    # Pixel axes from the largest stride to the smallest, all strides positive: the order in which memory is read and
    # results are written, whatever the order of the axes.
    axes = sorted(range(data.ndim - 1), key=lambda axis: -abs(data.strides[axis]))
    flipped = tuple(axis for axis in range(data.ndim) if data.strides[axis] < 0)
    ordered = np.flip(data, flipped).transpose(*axes, -1)
    rows = problem.rows if data.ndim - 1 not in flipped else data.shape[-1] - 1 - problem.rows
    out = np.empty((n_rows, *ordered.shape[:-1]))
    if out.size:
        readable = data.dtype in (np.float64, np.float32) and data.dtype.isnative and data.flags.aligned
        if readable and all(stride % data.itemsize == 0 for stride in data.strides):
            _fit(problem, ordered, rows, out)
        else:
            pixels = ordered.reshape(-1, data.shape[-1]) if ordered.ndim == 1 else ordered
            flat_out = out.reshape(n_rows, *pixels.shape[:-1])
            step = max(1, _SLAB // max(1, 8 * pixels[0].size))
            for start in range(0, len(pixels), step):
                slab = pixels[start : start + step].astype(np.float64, order="K")
                part = np.empty((n_rows, *slab.shape[:-1]))
                _fit(problem, slab, rows, part)
                flat_out[:, start : start + step] = part

    back = np.argsort(axes)
    maps = np.flip(out.transpose(0, *(1 + back)), tuple(1 + axis for axis in flipped if axis < data.ndim - 1))
    if detail:
        return Solution(maps[:k], maps[k : k + f], maps[k + f], maps[k + f + 1])
    return Solution(maps, maps[:0], np.empty(0), np.empty(0))


def nnls(references: npt.ArrayLike, data: npt.ArrayLike) -> Float:
    """Non-negative least squares of every pixel: the x >= 0 that minimises |references x - data|.

    Exact for any number of references. Where collinear references leave x undetermined, one of the minimisers.

    Parameters
    ----------
    references : (m, k), one column a reference spectrum; any unit, that of the coefficients follows.
    data : (..., m) float64 or float32 in any memory order, not copied; a stack (m, ny, nx) is passed as
        ``np.moveaxis(stack, 0, -1)``. Other real types are converted slab by slab.

    Returns
    -------
    (..., k) float64, laid out in memory as the data; NaN where a pixel has a value that is not finite.

    Raises
    ------
    InputError : shapes that do not fit, references that are not finite.

    >>> nnls([[1, 0], [1, 1], [0, 1]], [[1, 3, 2], [-1, 0, 1]])
    array([[1. , 2. ],
           [0. , 0.5]])
    """
    stack = np.asarray(data)
    problem = prepare(references)
    m = problem.n_energies
    if stack.ndim == 0 or stack.shape[-1] != m:
        raise InputError(f"data must have shape (..., {m}) for references of shape ({m}, k), got {stack.shape}")
    return np.moveaxis(solve(problem, stack, detail=False).coefficients, 0, -1)


class _Memory:
    """The memory behind data as a flat array that need not be marked read-only.

    The kernel does not write to it, but Numba would compile it once more for read-only arrays such as memory maps.
    """

    def __init__(self, data: npt.NDArray[Any], length: int) -> None:
        self.owner = data
        address = data.__array_interface__["data"][0]
        self.__array_interface__ = {
            "version": 3, "typestr": data.dtype.str, "shape": (length,), "data": (address, False)
        }  # fmt: skip


def _fit(problem: Problem, data: npt.NDArray[Any], rows: npt.NDArray[np.int64], out: Float) -> None:
    """Fit (..., m) data whose pixel axes have falling positive strides into C-ordered `out` (rows, ...)."""
    item = data.itemsize
    # One flat view of everything between the first and the last element; never longer than the memory behind the data.
    span = 1 + sum((n - 1) * stride // item for n, stride in zip(data.shape, data.strides, strict=True))
    flat = np.asarray(_Memory(data, span))
    offsets = rows * (data.strides[-1] // item)
    flat64, flat32 = (flat, _NO_FLOAT32) if flat.dtype == np.float64 else (_NO_FLOAT64, flat)
    dims = _merged([(n, stride // item) for n, stride in zip(data.shape[:-1], data.strides[:-1], strict=True)])
    outer, (height, row_stride), (width, stride) = dims[:-2], *dims[-2:]
    pixels = height * width
    pivot = problem.condition <= _WELL_CONDITIONED and _ENUMERATED < len(problem.scale) <= _PIVOTED
    tasks = []
    for image, index in enumerate(np.ndindex(*(n for n, _ in outer))):
        origin = sum(i * s for i, (_, s) in zip(index, outer, strict=True))
        cuts = [*range(0, pixels, _TASK), pixels]
        tasks += [(origin, first, last, image * pixels) for first, last in pairwise(cuts)]
    table = out.reshape(len(out), -1)

    remaining = iter(tasks)  # next() of an iterator is atomic
    errors: list[BaseException] = []

    def work() -> None:
        for origin, first, last, target in remaining:
            _fit_pixels(
                flat64, flat32, origin, row_stride, stride, width, offsets, first, last,
                problem.rotation, problem.weights, problem.triangle, problem.n_free, problem.unit, problem.columns,
                problem.scale, problem.sets, problem.tables, pivot, problem.n_references,
                len(out) > problem.n_references, table, target,
            )  # fmt: skip

    def work_aside() -> None:
        try:
            work()
        except BaseException as error:  # raised below, where the caller is
            errors.append(error)

    # The caller works too: of two threads one is there already, and nobody waits for a pool to start.
    helpers = [Thread(target=work_aside) for _ in range(min(_core.build_info()["threads"], len(tasks)) - 1)]
    for helper in helpers:
        helper.start()
    try:
        work()
    finally:
        for helper in helpers:
            helper.join()
    if errors:
        raise errors[0]


def _merged(dims: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(length, stride) of axes, joined where they lie end to end; at least two."""
    merged: list[tuple[int, int]] = []
    for n, stride in dims:
        if n == 1:
            continue
        if merged and merged[-1][1] == n * stride:
            merged[-1] = (merged[-1][0] * n, stride)
        else:
            merged.append((n, stride))
    return [(1, 0)] * (2 - len(merged)) + merged


# The kernels. Pixels run along the last axis of every work array: loops over them are contiguous and vectorised.


@_compiled(entry=True)
def _fit_pixels(
    flat64: Float,  # the data, or empty
    flat32: npt.NDArray[np.float32],  # the data, or empty: one compiled kernel serves both
    origin: int,  # of the image in flat
    row_stride: int,
    stride: int,  # of the next pixel
    width: int,  # pixels in a row
    offsets: npt.NDArray[np.int64],  # (m,) of the energies
    first: int,  # pixels first <= p < last
    last: int,
    rotation: Float,  # (r, m)
    weights: Float,  # (m,)
    whole: Float,  # (r, f + k') T as given
    n_free: int,
    unit: Float,  # (r - f, k')
    columns: npt.NDArray[np.int64],
    scale: Float,
    sets: npt.NDArray[np.int64],
    tables: Float,
    pivot: bool,
    k: int,
    detail: bool,
    out: Float,  # (k [+ f + 2], all pixels)
    target: int,  # of the image in out
) -> None:
    rank = len(rotation)
    small = len(columns)
    single = len(flat32) > 0
    # Energies are evenly spaced in memory and used in order: m that span m places leave none out.
    side_by_side = len(offsets) >= _DIRECT and offsets[-1] - offsets[0] == len(offsets) - 1
    d = np.zeros((rank, _PITCH))
    total = np.zeros(_SPAN)
    settled = np.zeros(_SPAN, np.bool_)
    tile = np.empty(0 if stride == 1 or side_by_side else min(len(offsets), _GROUP_ENERGIES) * _GROUP_PITCH)
    tile_offsets = np.arange(_GROUP_ENERGIES) * _GROUP_PITCH
    x = np.zeros((small, _PITCH))
    one = np.empty(len(unit))
    work = np.zeros(9 * _ROW)
    order = sets.copy()  # of this task alone: results do not depend on the number of threads
    n_slots = 256 if pivot else 0
    slots = np.full(n_slots, -1, np.int64)
    shared = np.empty((n_slots, small, small))
    q, r = np.empty((small, len(unit))), np.empty((small, small))
    members, blocked = np.empty(small, np.int64), np.empty(small, np.bool_)
    coefficients, trial = np.empty(small), np.empty(small)
    rest, across = np.empty(len(unit)), np.empty(small)

    start = first
    while start < last:
        n = min(_SPAN, last - start)
        d[:] = 0
        total[:] = 0
        done = 0
        while done < n:  # a span may run over several rows
            row, column = divmod(start + done, width)
            part = min(n - done, width - column)
            base = origin + row * row_stride + column * stride
            if stride == 1:
                if single:
                    _project_rows(flat32, base, offsets, 0, rotation, weights, detail, d, total, done, part)
                else:
                    _project_rows(flat64, base, offsets, 0, rotation, weights, detail, d, total, done, part)
            elif side_by_side:
                base += offsets[0]
                if single:
                    _project_pixels(flat32, base, stride, rotation, weights, detail, d, total, done, part)
                else:
                    _project_pixels(flat64, base, stride, rotation, weights, detail, d, total, done, part)
            else:
                for here in range(0, part, _GROUP):
                    group = min(part - here, _GROUP)
                    for e0 in range(0, len(offsets), _GROUP_ENERGIES):
                        some = offsets[e0 : min(len(offsets), e0 + _GROUP_ENERGIES)]
                        if single:
                            _gather(flat32, base + here * stride, stride, some, group, tile)
                        else:
                            _gather(flat64, base + here * stride, stride, some, group, tile)
                        copied = tile_offsets[: len(some)]
                        _project_rows(tile, 0, copied, e0, rotation, weights, detail, d, total, done + here, group)
            done += part

        reduced = d[n_free:]
        settled[:n] = False
        if len(sets) > 0:
            for begin in range(0, n, _BLOCK):
                _enumerate(reduced, begin, min(n - begin, _BLOCK), order, tables, work, x, settled)
        for p in range(n):
            if settled[p]:
                continue
            finite = 0.0
            for i in range(len(one)):
                one[i] = reduced[i, p]
                finite += 0 * one[i]
            if finite != 0:
                x[:, p] = np.nan
                continue
            if not (pivot and _pivot(unit, one, slots, shared, q, r, members, coefficients)):
                _lawson_hanson(unit, one, q, r, members, blocked, trial, rest, across, coefficients)
            for i in range(small):
                x[i, p] = coefficients[i] / scale[i]
        _write(d, total, x, whole, n_free, columns, k, detail, n, out, target + start)
        start += n


@_compiled()
def _gather(
    flat: npt.NDArray[Any], base: int, stride: int, offsets: npt.NDArray[np.int64], n: int, tile: Float
) -> None:
    """tile[e * _GROUP_PITCH + p] = the datum of energy e and pixel p."""
    for p in range(n):
        start = base + p * stride
        for e in range(len(offsets)):
            tile[e * _GROUP_PITCH + p] = flat[np.uintp(start + offsets[e])]  # unsigned: no wrap-around


@_compiled()
def _project_rows(
    flat: npt.NDArray[Any],
    base: int,
    offsets: npt.NDArray[np.int64],
    first: int,  # energy, in rotation and weights
    rotation: Float,
    weights: Float,
    detail: bool,
    d: Float,
    total: Float,
    at: int,  # the first pixel in d
    n: int,
) -> None:
    """d += rotation y and total += y W y of pixels that are neighbours in memory.

    Four energies at a time: a single stream of loads would wait at the end of every page.
    """
    m, e = len(offsets), 0
    while e + 4 <= m:
        i0, i1, i2, i3 = base + offsets[e], base + offsets[e + 1], base + offsets[e + 2], base + offsets[e + 3]
        y0, y1, y2, y3 = flat[i0 : i0 + n], flat[i1 : i1 + n], flat[i2 : i2 + n], flat[i3 : i3 + n]
        _add_four(rotation, first + e, y0, y1, y2, y3, d, at)
        if detail:
            squares, here = total[at : at + n], first + e
            w0, w1, w2, w3 = weights[here], weights[here + 1], weights[here + 2], weights[here + 3]
            for p in range(n):
                v0, v1, v2, v3 = np.float64(y0[p]), np.float64(y1[p]), np.float64(y2[p]), np.float64(y3[p])
                squares[p] += (w0 * v0 * v0 + w1 * v1 * v1) + (w2 * v2 * v2 + w3 * v3 * v3)
        e += 4
    while e < m:
        i0 = base + offsets[e]
        y0 = flat[i0 : i0 + n]
        for j in range(len(d)):
            row, factor = d[j, at : at + n], rotation[j, first + e]
            for p in range(n):
                row[p] += factor * np.float64(y0[p])
        if detail:
            squares, weight = total[at : at + n], weights[first + e]
            for p in range(n):
                squares[p] += weight * np.float64(y0[p]) * np.float64(y0[p])
        e += 1


@_compiled()
def _project_pixels(
    flat: npt.NDArray[Any],
    base: int,
    stride: int,
    rotation: Float,
    weights: Float,
    detail: bool,
    d: Float,
    total: Float,
    at: int,  # the first pixel in d
    n: int,
) -> None:
    """d = rotation y and total = y W y of pixels whose energies are neighbours in memory, without a copy.

    Four pixels and two rows a pass: eight sums for six loads.
    """
    m, rank = len(weights), len(d)
    for p in range(0, n, 4):
        # The last pixels are done again where fewer than four are left.
        p1, p2, p3 = min(p + 1, n - 1), min(p + 2, n - 1), min(p + 3, n - 1)
        i0, i1, i2, i3 = base + p * stride, base + p1 * stride, base + p2 * stride, base + p3 * stride
        y0, y1, y2, y3 = flat[i0 : i0 + m], flat[i1 : i1 + m], flat[i2 : i2 + m], flat[i3 : i3 + m]
        for j in range(0, rank, 2):
            j1 = min(j + 1, rank - 1)
            a, b = rotation[j], rotation[j1]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
            for e in range(m):
                v0, v1, v2, v3 = np.float64(y0[e]), np.float64(y1[e]), np.float64(y2[e]), np.float64(y3[e])
                a0 += a[e] * v0
                a1 += a[e] * v1
                a2 += a[e] * v2
                a3 += a[e] * v3
                b0 += b[e] * v0
                b1 += b[e] * v1
                b2 += b[e] * v2
                b3 += b[e] * v3
            d[j, at + p], d[j, at + p1], d[j, at + p2], d[j, at + p3] = a0, a1, a2, a3
            d[j1, at + p], d[j1, at + p1], d[j1, at + p2], d[j1, at + p3] = b0, b1, b2, b3
        if detail:
            s0 = s1 = s2 = s3 = 0.0
            for e in range(m):
                v0, v1, v2, v3 = np.float64(y0[e]), np.float64(y1[e]), np.float64(y2[e]), np.float64(y3[e])
                s0 += weights[e] * v0 * v0
                s1 += weights[e] * v1 * v1
                s2 += weights[e] * v2 * v2
                s3 += weights[e] * v3 * v3
            total[at + p], total[at + p1], total[at + p2], total[at + p3] = s0, s1, s2, s3


@_compiled()
def _add_four(
    rotation: Float,
    e: int,
    y0: npt.NDArray[Any],
    y1: npt.NDArray[Any],
    y2: npt.NDArray[Any],
    y3: npt.NDArray[Any],
    d: Float,
    at: int,
) -> None:
    """Two rows of d a pass: eight products for six loads and two stores."""
    n, rank = len(y0), len(d)
    j = 0
    while j + 2 <= rank:
        a, b = d[j, at : at + n], d[j + 1, at : at + n]
        a0, a1, a2, a3 = rotation[j, e], rotation[j, e + 1], rotation[j, e + 2], rotation[j, e + 3]
        b0, b1, b2, b3 = rotation[j + 1, e], rotation[j + 1, e + 1], rotation[j + 1, e + 2], rotation[j + 1, e + 3]
        for p in range(n):
            v0, v1, v2, v3 = np.float64(y0[p]), np.float64(y1[p]), np.float64(y2[p]), np.float64(y3[p])
            a[p] += (a0 * v0 + a1 * v1) + (a2 * v2 + a3 * v3)
            b[p] += (b0 * v0 + b1 * v1) + (b2 * v2 + b3 * v3)
        j += 2
    if j < rank:
        a = d[j, at : at + n]
        a0, a1, a2, a3 = rotation[j, e], rotation[j, e + 1], rotation[j, e + 2], rotation[j, e + 3]
        for p in range(n):
            v0, v1, v2, v3 = np.float64(y0[p]), np.float64(y1[p]), np.float64(y2[p]), np.float64(y3[p])
            a[p] += (a0 * v0 + a1 * v1) + (a2 * v2 + a3 * v3)


@_compiled()
def _enumerate(
    d: Float,  # (k, pixels)
    at: int,
    n: int,
    sets: npt.NDArray[np.int64],
    tables: Float,
    work: Float,  # nine rows of a block: d padded to 4, x padded to 4, 1 where settled
    x: Float,  # (k, pixels)
    settled: npt.NDArray[np.bool_],  # (pixels,)
) -> None:
    """Try the sets on up to a block of pixels until each has found its own.

    Sets that were of use move to the front, for the next pixels resemble these. One work array with constant offsets,
    and blocks always full, let the compiler see that nothing overlaps.
    """
    for i in range(len(d)):
        source, target = d[i, at : at + n], work[i * _ROW : i * _ROW + _BLOCK]
        for p in range(n):
            target[p] = source[p]
        for p in range(n, _BLOCK):
            target[p] = source[0]
    work[8 * _ROW :] = 0
    tried, settled_before, useful = 0, 0.0, 0
    while tried < len(sets) and settled_before < _BLOCK:
        subset = sets[tried]
        settled_now = _attempt(tables[subset], subset, work)
        if settled_now > settled_before:
            for i in range(tried, useful, -1):
                sets[i] = sets[i - 1]
            sets[useful] = subset
            useful += 1
        tried += 1
        settled_before = settled_now
    for p in range(_BLOCK):  # NaN and infinity satisfy the empty set
        work[p] = 0 * ((work[p] + work[_ROW + p]) + (work[2 * _ROW + p] + work[3 * _ROW + p]))
    for i in range(len(x)):
        source, target = work[(4 + i) * _ROW : (4 + i) * _ROW + _BLOCK], x[i, at : at + n]
        for p in range(n):
            target[p] = source[p] + work[p]
    for p in range(n):
        settled[at + p] = work[8 * _ROW + p] != 0


@_compiled()
def _attempt(table: Float, subset: int, work: Float) -> float:
    """Settle the pixels whose z(S) is positive on S and nowhere else; the number settled so far."""
    m00, m01, m02, m03 = table[0, 0], table[0, 1], table[0, 2], table[0, 3]
    m10, m11, m12, m13 = table[1, 0], table[1, 1], table[1, 2], table[1, 3]
    m20, m21, m22, m23 = table[2, 0], table[2, 1], table[2, 2], table[2, 3]
    m30, m31, m32, m33 = table[3, 0], table[3, 1], table[3, 2], table[3, 3]
    in0, in1, in2, in3 = (subset & 1) != 0, (subset & 2) != 0, (subset & 4) != 0, (subset & 8) != 0
    for p in range(_BLOCK):
        d0, d1, d2, d3 = work[p], work[_ROW + p], work[2 * _ROW + p], work[3 * _ROW + p]
        z0 = m00 * d0 + m01 * d1 + m02 * d2 + m03 * d3
        z1 = m10 * d0 + m11 * d1 + m12 * d2 + m13 * d3
        z2 = m20 * d0 + m21 * d1 + m22 * d2 + m23 * d3
        z3 = m30 * d0 + m31 * d1 + m32 * d2 + m33 * d3
        fits = ((z0 > 0) == in0) & ((z1 > 0) == in1) & ((z2 > 0) == in2) & ((z3 > 0) == in3)
        work[4 * _ROW + p] = max(z0, 0.0) if fits else work[4 * _ROW + p]
        work[5 * _ROW + p] = max(z1, 0.0) if fits else work[5 * _ROW + p]
        work[6 * _ROW + p] = max(z2, 0.0) if fits else work[6 * _ROW + p]
        work[7 * _ROW + p] = max(z3, 0.0) if fits else work[7 * _ROW + p]
        work[8 * _ROW + p] = 1.0 if fits else work[8 * _ROW + p]
    settled = 0.0
    for p in range(_BLOCK):
        settled += work[8 * _ROW + p]
    return settled


@_compiled()
def _append(triangle: Float, column: int, n: int, q: Float, r: Float) -> bool:
    """Orthogonalise a column against the first n rows of q, twice (that is enough); False when it depends on them."""
    rows = len(triangle)
    for i in range(rows):
        q[n, i] = triangle[i, column]
    for j in range(n):
        r[j, n] = 0
    for _ in range(2):
        for j in range(n):
            dot = 0.0
            for i in range(rows):
                dot += q[j, i] * q[n, i]
            r[j, n] += dot
            for i in range(rows):
                q[n, i] -= dot * q[j, i]
    norm = 0.0
    for i in range(rows):
        norm += q[n, i] ** 2
    norm = math.sqrt(norm)
    r[n, n] = norm
    if not norm > _DEPENDENT:
        return False
    for i in range(rows):
        q[n, i] /= norm
    return True


@_compiled()
def _complementary(
    triangle: Float, subset: int, q: Float, r: Float, members: npt.NDArray[np.int64], table: Float
) -> None:
    """M(S) (k, k): rows in S are the pseudo-inverse of T_S, rows outside are T_j^T (1 - Q_S Q_S^T)."""
    rows, k = triangle.shape
    n = 0
    for j in range(k):
        if subset >> j & 1:
            _append(triangle, j, n, q, r)
            members[n] = j
            n += 1
    for a in range(n - 1, -1, -1):
        for i in range(rows):
            value = q[a, i]
            for b in range(a + 1, n):
                value -= r[a, b] * table[members[b], i]
            table[members[a], i] = value / r[a, a]
    for j in range(k):
        if subset >> j & 1:
            continue
        for i in range(rows):
            table[j, i] = triangle[i, j]
        for a in range(n):
            dot = 0.0
            for i in range(rows):
                dot += q[a, i] * table[j, i]
            for i in range(rows):
                table[j, i] -= dot * q[a, i]


@_compiled()
def _pivot(
    triangle: Float,
    d: Float,
    slots: npt.NDArray[np.int64],  # (n,) the set whose matrix is in a slot, or -1
    shared: Float,  # (n, k, k)
    q: Float,
    r: Float,
    members: npt.NDArray[np.int64],
    x: Float,
) -> bool:
    """Block principal pivoting from the set of all references; False when it does not settle.

    The start does not depend on other pixels, so that neither does the result.
    """
    k = len(x)
    subset = (1 << k) - 1
    for _ in range(3 + k):
        slot = (subset ^ (subset >> 8) ^ (subset >> 16) ^ (subset >> 24) ^ (subset >> 40)) % len(slots)
        table = shared[slot]
        if slots[slot] != subset:
            _complementary(triangle, subset, q, r, members, table)
            slots[slot] = subset
        signs = 0
        for i in range(k):
            z = 0.0
            for j in range(k):
                z += table[i, j] * d[j]
            x[i] = z
            if z > 0:
                signs |= 1 << i
        if signs == subset:
            for i in range(k):
                x[i] = max(x[i], 0.0)
            return True
        subset = signs
    return False


@_compiled()
def _lawson_hanson(
    triangle: Float,  # (r, k) unit columns
    d: Float,  # (r,)
    q: Float,  # (k, r) rows are the orthonormal basis of the set
    r: Float,  # (k, k)
    members: npt.NDArray[np.int64],  # (k,) the set, in the order it was factored
    blocked: npt.NDArray[np.bool_],  # (k,)
    trial: Float,  # (k,)
    rest: Float,  # (r,) residual
    across: Float,  # (k,) Q^T d
    x: Float,  # (k,) the answer
) -> None:
    """Lawson & Hanson (1974), algorithm NNLS (ch. 23), with a QR factorisation that grows with the set."""
    rows, k = triangle.shape
    x[:] = 0
    n = 0
    blocked[:] = False
    scale = 0.0
    for i in range(rows):
        rest[i] = d[i]
        scale += d[i] ** 2
    # Rounding of a gradient: no gain can be told from it.
    tolerance = 2.2e-16 * math.sqrt(scale)
    for _ in range(30 * k):
        best, entering = tolerance, -1
        for j in range(k):
            if blocked[j]:
                continue
            gradient = 0.0
            for i in range(rows):
                gradient += triangle[i, j] * rest[i]
            if gradient > best:
                best, entering = gradient, j
        if entering < 0:
            return
        # Members are blocked while in the set; a column that depends on them or would enter negative is until x moves.
        blocked[entering] = True
        if n == rows or not _append(triangle, entering, n, q, r):
            continue
        across[n] = 0
        for i in range(rows):
            across[n] += q[n, i] * d[i]
        if not across[n] > 0:
            continue
        members[n] = entering
        n += 1
        while True:
            for a in range(n - 1, -1, -1):
                value = across[a]
                for b in range(a + 1, n):
                    value -= r[a, b] * trial[b]
                trial[a] = value / r[a, a]
            step, leaving = 1.0, -1
            for a in range(n):
                if not trial[a] > 0:
                    here = x[members[a]]
                    part = here / (here - trial[a]) if here > 0 else 0.0
                    if leaving < 0 or part < step:
                        step, leaving = part, a
            if leaving < 0:
                break
            for a in range(n):
                x[members[a]] += step * (trial[a] - x[members[a]])
            x[members[leaving]] = 0
            kept = 0
            for a in range(n):  # what is left is factored anew
                if x[members[a]] > 0:
                    members[kept] = members[a]
                    _append(triangle, members[kept], kept, q, r)
                    across[kept] = 0
                    for i in range(rows):
                        across[kept] += q[kept, i] * d[i]
                    kept += 1
            n = kept
        x[:] = 0
        blocked[:] = False
        for a in range(n):
            x[members[a]] = trial[a]
            blocked[members[a]] = True
        for i in range(rows):
            rest[i] = d[i]
        for a in range(n):
            dot = 0.0
            for i in range(rows):
                dot += q[a, i] * rest[i]
            for i in range(rows):
                rest[i] -= dot * q[a, i]


@_compiled()
def _write(
    d: Float,
    total: Float,
    x: Float,
    whole: Float,
    n_free: int,
    columns: npt.NDArray[np.int64],
    k: int,
    detail: bool,
    n: int,
    out: Float,
    at: int,
) -> None:
    """Coefficients; with detail the free ones by back substitution, and the sums of squares."""
    rank = len(whole)
    if len(columns) < k:  # references that are zero
        for p in range(n):
            start = 0.0
            for i in range(rank):
                start += 0 * d[i, p]  # NaN where a datum is not finite
            for j in range(k):
                out[j, at + p] = start
    for i in range(len(columns)):
        target, values = out[columns[i], at : at + n], x[i, :n]
        for p in range(n):
            target[p] = values[p]
    if not detail:
        return
    residual, sums = out[k + n_free, at : at + n], out[k + n_free + 1, at : at + n]
    for p in range(n):
        sums[p] = total[p]
        residual[p] = total[p]
    for i in range(rank):
        row = d[i, :n]
        for p in range(n):
            residual[p] -= row[p] * row[p]
    for p in range(n):
        residual[p] = 0.0 if residual[p] < 0 else residual[p]  # rounding; a NaN stays
    for i in range(rank - 1, -1, -1):
        row = d[i, :n]  # no longer needed as it was
        for j in range(len(columns)):
            factor, values = whole[i, n_free + j], x[j, :n]
            for p in range(n):
                row[p] -= factor * values[p]
        if i >= n_free:
            for p in range(n):
                residual[p] += row[p] * row[p]
        else:
            for j in range(i + 1, n_free):
                factor, values = whole[i, j], out[k + j, at : at + n]
                for p in range(n):
                    row[p] -= factor * values[p]
            target, factor = out[k + i, at : at + n], 1 / whole[i, i]
            for p in range(n):
                target[p] = row[p] * factor
