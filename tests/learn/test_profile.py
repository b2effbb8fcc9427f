"""Particles at minima of their own under shared parameters."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from chemomech.errors import ConvergenceError
from chemomech.learn.arrow import CONVERGED, STALLED, Arrow, Minimum, Parameters, marginal, minimise
from chemomech.learn.profile import Pull, minimise_profile, settle
from chemomech.tasks import in_turn

NOTHING = Pull(np.zeros(1), np.zeros((3, 1)), np.zeros((1, 1)))


class Valleys:
    """Each particle a curved valley of its own, y = a x^2, whose floor has its least at x = 1."""

    n_shared = 1
    tasks = staticmethod(in_turn)

    def __init__(self, bends, farthest=np.inf):
        self.bends, self.farthest = bends, farthest
        self.systems = dict.fromkeys(bends, 0)

    def alone(self, index):
        own = copy.copy(self)
        own.bends = [self.bends[index]]
        return own

    def cost(self, index):
        return 1.0

    def residual(self, a, x, y):
        if x > self.farthest:
            raise ConvergenceError("a reaction", iterations=1, residual=1.0, tolerance=0.1)
        return np.array([1000 * (y - a * x**2), 100 * (1 - x)]), np.array([[-2000 * a * x, 1000], [-100, 0]])

    def objective(self, parameters, below=np.inf):
        try:
            return self.turned(parameters, self.system(parameters)[1])[0]
        except ConvergenceError:
            return np.inf

    def system(self, parameters):
        total, arrows = 0.0, []
        for a, (y,) in zip(self.bends, parameters.local, strict=True):
            self.systems[a] += 1
            residual, jacobian = self.residual(a, parameters.shared[0], y)
            gram, slope = jacobian.T @ jacobian, jacobian.T @ residual
            arrows.append(Arrow(gram[:1, :1], gram[:1, 1:], gram[1:, 1:], slope[:1], slope[1:]))
            total += residual @ residual / 2
        return total, arrows

    def turned(self, parameters, arrows):
        here = copy.copy(self)
        here.systems = dict.fromkeys(self.bends, 0)
        value, new = here.system(parameters)
        return value, [
            replace(old, gradient_g=own.gradient_g, gradient_l=own.gradient_l)
            for old, own in zip(arrows, new, strict=True)
        ]


def beginning(problem, x):
    parameters = Parameters(np.array([x]), tuple(np.array([a * x**2]) for a in problem.bends))
    value, arrows = problem.system(parameters)
    return Minimum(parameters, value, "", 0, arrows, marginal(arrows))


def test_a_curved_valley_is_no_detour():
    """With y on the floor what is left is a parabola of x, of which one step finds the least; the joint search
    creeps along the valley.
    """
    problem = Valleys([1.0, -2.0, 0.5])
    start = beginning(problem, -1.2)
    found = minimise_profile(problem, start, NOTHING, least=0.03)
    assert found.reason == CONVERGED
    assert found.parameters.shared[0] == pytest.approx(1, abs=1e-3)  # a standard error is 6e-3
    assert found.iterations <= 3
    assert minimise(problem, start.parameters).iterations > 10
    np.testing.assert_allclose(np.concatenate(found.parameters.local), problem.bends, rtol=3e-3)


def test_what_is_added_moves_the_minimum():
    """sum (100 (1 - x))^2 / 2 + s (x - x0) + b (x - x0)^2 / 2 has its least where the slope vanishes; the objective
    returned is that of the particles alone.
    """
    problem = Valleys([1.0, -2.0, 0.5])
    pull = Pull(np.array([0.75]), np.array([[3e3], [-1e3], [2e3]]), np.array([[1e4]]))
    found = minimise_profile(problem, beginning(problem, 0.75), pull, least=0.03)
    x = (3e4 - 4e3 + 1e4 * 0.75) / (3e4 + 1e4)
    # Jumps that are allowed, 1 for each particle, leave 3 of half the sum.
    assert found.parameters.shared[0] == pytest.approx(x, abs=np.sqrt(2 * 3 / 4e4))
    assert found.objective == pytest.approx(3e4 * (1 - found.parameters.shared[0]) ** 2 / 2, abs=3)


def test_where_a_reaction_is_lost_a_part_of_the_step_is_taken():
    """Beyond x = 0.7 nothing can be followed: the search goes as far as parts of its steps lead, and says so."""
    problem = Valleys([1.0, -2.0, 0.5], farthest=0.7)
    found = minimise_profile(problem, beginning(problem, 0.1), NOTHING, least=0.03)
    assert found.reason == STALLED
    assert 0.6 < found.parameters.shared[0] < 0.7


def test_matrices_are_renewed_where_they_foresee_badly():
    """A particle that ends where it was expected keeps those it had, another evaluates its own."""
    problem = Valleys([1.0, -2.0])
    start = beginning(problem, 0.5)
    before = dict(problem.systems)
    settle(problem, start.parameters, start.arrows, [1250.0, 1000.0], surprise=1.0)  # 1250 is what both have
    assert {a: problem.systems[a] - before[a] for a in problem.bends} == {1.0: 0, -2.0: 1}


def test_particles_are_given_up_as_soon_as_they_are_too_much():
    problem = Valleys([1.0, -2.0, 0.5])
    start = beginning(problem, 0.5)
    with pytest.raises(ConvergenceError):
        settle(problem, start.parameters, start.arrows, below=3 * 1250.0)
    assert len(settle(problem, start.parameters, start.arrows, below=3 * 1250.0 + 1)) == 3


@pytest.mark.parametrize("stale", [0.36, 0.5, 2.0])
def test_wrong_matrices_do_not_keep_a_search_from_its_minimum(stale):
    """39 particles whose matrices know a part of what the shared parameter means, or too much: steps that overshoot
    raise the sum by less than it may jump, and are taken with matrices of their own alone.
    """
    problem = Valleys([1.0 + 0.01 * i for i in range(39)])
    error = 1 / np.sqrt(39e4)
    start = beginning(problem, 1 + 2.5 * error)
    arrows = [replace(arrow, gram_gg=arrow.gram_gg + (stale - 1) * 1e4) for arrow in start.arrows]
    nothing = Pull(np.zeros(1), np.zeros((39, 1)), np.zeros((1, 1)))
    found = minimise_profile(problem, replace(start, arrows=arrows, age=1), nothing, least=0.03)
    assert found.parameters.shared[0] == pytest.approx(1, abs=0.5 * error)


def test_particles_that_are_only_roughly_settled_are_settled_first():
    """Where nothing is to be gained along the shared parameter the search ends with every particle at its minimum."""
    problem = Valleys([1.0, -2.0, 0.5])
    start = beginning(problem, 1.0)
    rough = Parameters(start.parameters.shared, tuple(y + 0.004 for y in start.parameters.local))  # 4 standard errors
    value, arrows = problem.system(rough)
    found = minimise_profile(problem, replace(start, parameters=rough, arrows=arrows), NOTHING, least=0.03)
    assert value > 20
    assert found.objective < 3 * 0.3


def test_particles_are_settled_as_far_as_the_search_asks_for():
    """A search that may leave 300 of half the sum does not settle three particles to less than 10 each."""

    class Noisy(Valleys):
        """With 5000 that no parameter explains, beside which the 8 here are little from the start."""

        def residual(self, a, x, y):
            own, jacobian = super().residual(a, x, y)
            return np.append(own, 100.0), np.vstack([jacobian, np.zeros(2)])

    problem = Noisy([1.0, -2.0, 0.5])
    start = beginning(problem, 1.0)
    rough = Parameters(start.parameters.shared, tuple(y + 0.004 for y in start.parameters.local))
    _, arrows = problem.system(rough)
    begin = replace(start, parameters=rough, arrows=arrows)
    assert minimise_profile(problem, begin, NOTHING, least=300.0).parameters.local == rough.local
    np.testing.assert_allclose(minimise_profile(problem, begin, NOTHING, least=0.03).objective, 15000, atol=0.9)
