"""The two ways a call can fail that a caller may want to tell apart."""

from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used: the message says in one line what, where, and what would be right."""


class ConvergenceError(RuntimeError):
    """An iteration stopped before its tolerance.

    Attributes
    ----------
    iterations : int, steps taken.
    residual : float, the relative residual reached.
    """

    def __init__(self, what: str, *, iterations: int, residual: float, tolerance: float) -> None:
        super().__init__(f"{what} did not reach {tolerance:.1e} in {iterations} iterations; residual {residual:.1e}")
        self.iterations = iterations
        self.residual = residual
        self._given = (what, iterations, residual, tolerance)

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: keyword arguments are not kept by default."""
        return _convergence_error, self._given


def _convergence_error(what: str, iterations: int, residual: float, tolerance: float) -> ConvergenceError:
    return ConvergenceError(what, iterations=iterations, residual=residual, tolerance=tolerance)
