"""Checks and inputs that several tests share."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chemomech.observe.maps import CorrelativeMaps

#: Random masks with holes, islands, necks and diagonal contacts; at least one pixel.
masks = hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))).filter(np.any)


def assert_adjoint(forward, transpose, inputs, outputs, rtol=1e-11):
    """<y, A x> = <A^T y, x> for the given x and y; `rtol` covers rounding of sparse solves."""
    left = np.vdot(outputs, forward(inputs))
    right = np.vdot(transpose(outputs), inputs)
    scale = np.linalg.norm(outputs) * np.linalg.norm(forward(inputs))
    assert abs(left - right) <= rtol * max(scale, np.finfo(float).tiny)


def convergence_rates(errors):
    """Slopes of the error when the mesh size is halved from one entry to the next."""
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def platelet(ny=24, nx=40):
    """An ellipse with a hole and a one-pixel neck to a second part: every topology at once."""
    y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    mask = x**2 + y**2 < 0.8
    mask[ny // 2 - 2 : ny // 2 + 1, nx // 3 : nx // 3 + 3] = False
    mask[:, 3 * nx // 4] = False
    mask[ny // 2, 3 * nx // 4] = True
    return mask


def two_phase_composition(mask, width=2.0):
    """A smooth boundary across the mask, wavy so that both directions are strained."""
    y, x = np.indices(mask.shape)
    centre = mask.shape[1] / 2 + 3 * np.sin(2 * np.pi * y / mask.shape[0])
    return 0.5 + 0.48 * np.tanh((x - centre) / width)


def random_maps(mask, seed=0, uncertainty=False):
    """Maps of random numbers of a realistic size."""
    random = np.random.default_rng(seed)
    shape = mask.shape
    deviation = {name: random.uniform(0.5, 2, shape) for name in ("composition", "aa", "cc", "ac", "rotation")}
    return CorrelativeMaps(
        name="P",
        pixel_size_nm=50.0,
        mask=mask,
        composition=random.uniform(0, 1, shape),
        distortion=0.01 * random.standard_normal((*shape, 4)),
        uncertainty={name: 0.002 * value for name, value in deviation.items()} if uncertainty else {},
    )
