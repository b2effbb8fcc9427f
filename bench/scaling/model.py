"""How long a step takes on many ranks: compute, halos, sums, coarse grids; from numbers that were measured.

One iteration of the conjugate gradients on boxes of n nodes a rank, of side n^(1/3):

    compute   n t_double + 3 n t_vector, and over the levels l:  s_l n / 8^l t_single
    halos     over the levels: s_l (26 messages in 3 waves, each latency + bytes / bandwidth; bytes of 6 faces)
    sums      3 log2(P) latency
    whole     the grid at which cutting ends is gathered, log2(P) latency + bytes / bandwidth, and solved by every
              rank: the smoothing steps of all its levels

s_l counts applications of the operator: 2 x degree + 1 of the residual. The cut ends where the whole level has no more
than WHOLE nodes or a rank would have less than two along an axis; from there on nothing gets faster with more ranks.

A coupled step is so many iterations, loads and strains of the cells, and so many Newton iterations of the composition,
each of some cycles over grids that are coarser along two axes only, of which the second is visited twice and those
below four times; six halos a visit. Boxes are not cut along the third axis.
"""

from dataclasses import dataclass, fields
from math import log2

from chemomech.mechanics.voxel_multigrid import _DEGREES
from chemomech.parallel.grid import _WHOLE_NODES

VISITS = (1, 2, 4)
CYCLES = 2
#: Sums over all ranks in an iteration of Newton's method: products of the GMRES, and extremes.
NEWTON_SUMS = 8
#: Halos filled in a visit of a grid.
HALOS = 6
STEPS = tuple(2 * degree + 1 for degree in _DEGREES)


@dataclass(frozen=True)
class Machine:
    """Seconds a node and operation, or a message; bytes a second."""

    t_double: float
    t_single: float
    t_vector: float
    t_cells: float  # loads and strains of a step
    t_newton: float  # an iteration of Newton's method for the composition
    call_s: float
    latency_s: float
    bandwidth: float


@dataclass(frozen=True)
class Times:
    """Parts of an iteration, seconds."""

    compute: float
    halos: float
    sums: float
    whole: float

    @property
    def total(self) -> float:
        return self.compute + self.halos + self.sums + self.whole

    def __add__(self, other: "Times") -> "Times":
        return Times(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __mul__(self, count: float) -> "Times":
        return Times(*(getattr(self, each.name) * count for each in fields(self)))


def iteration(machine: Machine, nodes: float, ranks: int) -> Times:
    """An iteration of a body of so many nodes, a cube in cubic boxes."""
    own = nodes / ranks
    side = round(own ** (1 / 3), 6)  # a power of 2 shall be one
    compute = own * (machine.t_double + 3 * machine.t_vector)
    halos = _exchange(machine, side, 8, ranks)
    whole = 0.0
    level = 0
    while True:
        steps, here, all_nodes = STEPS[min(level, len(STEPS) - 1)], own / 8**level, nodes / 8**level
        if level > 0 and (all_nodes <= _WHOLE_NODES or side / 2**level < 2):
            break
        compute += steps * (here * machine.t_single + machine.call_s)
        halos += steps * _exchange(machine, side / 2**level, 4, ranks)
        level += 1
    if ranks > 1:
        whole += log2(ranks) * machine.latency_s + 12 * nodes / 8**level / machine.bandwidth
    while nodes / 8**level > 100:
        whole += STEPS[min(level, len(STEPS) - 1)] * (nodes / 8**level * machine.t_single + machine.call_s)
        level += 1
    sums = 3 * log2(ranks) * machine.latency_s if ranks > 1 else 0.0
    return Times(compute, halos, sums, whole)


def step(machine: Machine, own: float, depth: float, ranks: int, iterations: float, newton: float) -> Times:
    """A coupled step with `own` nodes a rank and `depth` along the axis that is not cut."""
    cells = Times(own * machine.t_cells, 0.0, 0.0, 0.0)
    return iteration(machine, own * ranks, ranks) * iterations + _newton(machine, own, depth, ranks) * newton + cells


def _newton(machine: Machine, own: float, depth: float, ranks: int) -> Times:
    side, nodes = (own / depth) ** 0.5, own * ranks
    share = own * machine.t_newton / sum(VISITS[min(level, 2)] / 4**level for level in range(20))
    compute = halos = whole = 0.0
    for level in range(20):
        visits = VISITS[min(level, 2)]
        if ranks > 1 and (nodes / 4**level <= _WHOLE_NODES or side / 2**level < 2):
            whole += visits * share * ranks / 4**level  # solved by every rank
            continue
        compute += visits * share / 4**level
        if ranks > 1:
            faces = min(4.0, 2 * log2(ranks))
            sent = faces * 2 * 8 * depth * side / 2**level / machine.bandwidth
            halos += CYCLES * HALOS * visits * (machine.call_s + faces / 2 * machine.latency_s + sent)
    sums = NEWTON_SUMS * log2(ranks) * machine.latency_s if ranks > 1 else 0.0
    return Times(compute, halos, sums, whole)


def _exchange(machine: Machine, side: float, real_bytes: int, ranks: int) -> float:
    """A halo of three components; a rank sends across as many of its six faces as it has neighbours."""
    if ranks == 1:
        return machine.call_s
    faces = min(6.0, 2 * log2(ranks))
    return machine.call_s + faces / 2 * machine.latency_s + faces * 3 * real_bytes * side**2 / machine.bandwidth
