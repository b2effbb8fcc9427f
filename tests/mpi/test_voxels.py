"""A body cut into boxes is the body that one machine solves."""

import json
from pathlib import Path

import pytest

from mpirun import needs_petsc, run

PROGRAM = Path(__file__).parent / "voxels.py"
pytestmark = needs_petsc


def lines(n_ranks, *arguments, seconds=120):
    code, out, err = run(n_ranks, PROGRAM, *arguments, seconds=seconds)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize(("n_ranks", "whole_nodes"), [(1, 20_000), (2, 800), (3, 800), (4, 800), (4, 20_000)])
def test_every_body_is_solved_as_on_one_machine(n_ranks, whole_nodes):
    """The same cycle up to the order of sums: at 1e-12 nothing is left but rounding, grown by the condition number.

    Small `whole_nodes` distribute the coarse grids as those of a large body are.
    """
    found = lines(n_ranks, "compare", whole_nodes)
    assert len(found) == 11
    for each in found:
        case = each["case"]
        for ours, theirs in (each["iterations"], each["warm_iterations"]):
            assert abs(ours - theirs) <= 1, case
        assert max(each["strain"], each["stress"]) < 1e-9, case
        assert max(each["energy"], each["minimum"]) < 1e-10, case
        pieces, as_alone, hinged, hinged_alone = each["n_pieces"]
        assert (pieces, hinged) == (as_alone, hinged_alone), case
        assert each["pieces"], case
        # Voxels joined by an edge turn about it without energy: their displacement is one of many.
        assert hinged or each["displacement"] < 1e-9, case
        # Uneven splits, and ranks without a voxel.
        assert len(each["cells"]) == n_ranks
        assert case != "islands" or n_ranks == 1 or min(each["cells"]) == 0
        assert case != "uneven" or n_ranks == 1 or len(set(each["cells"])) > 1


def test_no_rank_holds_the_grid():
    """Four ranks need a quarter each, and halos; with two fifths of what one needs for itself, none could hold it."""
    (alone,) = lines(1, "memory", 96, 1e6)
    (needed,) = alone["grown_MB"]
    (shared,) = lines(4, "memory", 96, 0.4 * needed)
    assert max(shared["grown_MB"]) < 0.4 * needed
    assert shared["iterations"] == alone["iterations"]
    assert shared["energy"] == pytest.approx(alone["energy"], rel=1e-10)
    assert run(1, PROGRAM, "memory", 96, 0.4 * needed)[0] != 0
