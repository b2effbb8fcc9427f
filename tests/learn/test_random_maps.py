"""Whatever maps come in, a law with finite errors comes out, or a refusal."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from checks import masks
from chemomech.errors import InputError
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.observe.maps import CorrelativeMaps

values = st.floats(-1, 2) | st.sampled_from([0.0, 0.5, 1.0])


@st.composite
def particles(draw):
    found = []
    for i in range(draw(st.integers(1, 3))):
        small = draw(masks)
        # Enlarged pixels leave room for the windows from which the noise is estimated.
        mask = np.kron(small, np.ones((4, 4), dtype=bool))
        composition = draw(hnp.arrays(float, mask.shape, elements=values))
        distortion = 0.1 * draw(hnp.arrays(float, (*mask.shape, 4), elements=values))
        found.append(CorrelativeMaps(f"P{i}", draw(st.floats(1e-3, 1e6)), mask, composition, distortion))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    particles(),
    st.sampled_from(["auto", 1, 3]),
    st.sampled_from(["free", "dirichlet"]),
    st.sampled_from(["strain", "displacement"]),
)
def test_a_law_or_a_refusal(maps, order, boundary, misfit):
    try:
        result = learn_eigenstrain(maps, order=order, boundary=boundary, misfit=misfit)
    except InputError:
        return
    for law in result.laws.values():
        assert np.isfinite(law.coefficients).all()
        assert np.isfinite(law.covariance).all()
        assert np.linalg.eigvalsh(law.covariance).min() >= -1e-9 * np.trace(law.covariance)
    for name, particle in result.particles.items():
        assert np.isfinite(particle.residual_strain[particle.maps.mask]).all(), name
