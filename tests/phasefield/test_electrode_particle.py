"""One reacting particle beside that of an independent program, MPET, at a slow rate: a line of 40 cells of 1 nm."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from chemomech.phasefield.reaction import CellMesh, HeldEdge, MeanRate, ReactionLaw, react

MPET = Path(__file__).parents[3] / "shared" / "reference" / "mpet_acr"
#: From its .cfg files, in kT at 298 K, nm and h: Omega_a, kappa / (rho_s kT), B / (rho_s kT); k0 / (e rho_s d) at the
#: thickness of 20 nm; ghost cells at both ends.
KT, DENSITY = 1.380649e-23 * 298, 1.3793e28
OMEGA, GRADIENT_NM2, COHERENCY = 1.8560e-20 / KT, 5.0148e-10 / (DENSITY * KT) * 1e18, 0.1916e9 / (DENSITY * KT)
EXCHANGE_PER_H = 0.16 / (1.602177e-19 * DENSITY * 20e-9) * 3600
GHOST = 0.98


def line(n):
    """n cells between ghost cells whose composition is held: second differences, as MPET takes them."""
    stiffness = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1]).tocsr()
    ends = np.zeros(n)
    ends[[0, -1]] = -1.0
    mask = np.ones((1, n), dtype=bool)
    position = np.argwhere(mask).astype(float)
    return CellMesh(
        mask, 1, 1.0, np.arange(n, dtype=np.int32), sp.csr_array(stiffness), sp.diags_array(ends).tocsr(), position
    )


@pytest.mark.skipif(not MPET.exists(), reason="the reference of shared/reference/mpet_acr is not here")
def test_agrees_with_mpet():
    """Profiles within 0.01 RMS in every frame, voltage within 1 % of its range.

    The coherency term B (c - mean c) is a linear part of mu_h and a shift of the potential. Two things are left out:
    the zero of MPET's potential, hence the comparison less its median, and the dependence of its exchange current
    k0 (1 - c) exp(mu / 2) on mu, which hardly matters so close to equilibrium. Its times are in units of 10 s.
    """
    file = scipy.io.loadmat(MPET / "acr_c100.mat")
    theirs, mean = file["partTrodecvol0part0_c"], file["ffrac_c"].ravel()
    time = file["phi_applied_times"].ravel() / 360
    rate = (mean[-1] - mean[1]) / (time[-1] - time[1])
    ramp = 2 * (mean[0] + rate * time[1] - mean[1]) / rate  # what the first frame lacks to a constant rate
    n = theirs.shape[1]
    c = np.linspace(0.005, 0.99, 200)
    log_j0 = np.polynomial.legendre.legfit(2 * c - 1, np.log(EXCHANGE_PER_H * (1 - c)), 8)
    trajectory = react(
        line(n),
        ReactionLaw(np.array([0.0, COHERENCY / 2 - OMEGA]), log_j0),
        np.zeros(n),
        np.full(n, mean[0]),
        time,
        MeanRate(np.array([0.0, ramp]), np.array([0.0, rate])),
        gradient_nm2=GRADIENT_NM2,
        edge=HeldEdge(np.zeros(1), np.full((1, n), GHOST)),
        tolerance=1e-6,
    )
    ours = trajectory.frames()
    assert np.sqrt(np.mean((ours - theirs) ** 2, axis=1)).max() < 0.01
    started = slice(2, None)  # the ramp is not resolved
    voltage = COHERENCY / 2 - COHERENCY * mean - np.interp(time, trajectory.time, trajectory.potential)
    difference = (voltage - file["phi_cell"].ravel())[started]
    span = np.ptp(file["phi_cell"].ravel()[started])
    assert np.abs(difference - np.median(difference)).max() < 0.01 * span
