"""Phase separation of a particle with voids: composition and coherent elasticity, step by step.

Second-order backward differences (Gear's method) in time. The elastic potential is extrapolated to the new time and
held back by the stiffness s of the lattice against a change of composition, mu_el* + s (X - X*): both the extrapolation
and that term are of second order. Equal steps are then stable at any length where a mode of chemical curvature l and
elastic curvature B <= s grows against both, l + B > 0 (the roots of its characteristic polynomial lie inside the unit
circle); steps that grow without end are not, and it is the estimated error of both parts that holds them. Each step
takes one implicit solution for the composition and one elastic equilibrium. In a closed system no step is accepted that
raises the free energy by more than rounding.
"""

from dataclasses import dataclass, replace

import numpy as np

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError
from chemomech.mechanics.voxel import Equilibrium
from chemomech.phasefield.cahn_hilliard import CahnHilliard
from chemomech.phasefield.coherency import Coherency, Coherent
from chemomech.units import EV_PER_AJ

#: Elastic residual over load, as a share of the tolerance: a load moves compositions by some tenths, and what is left
#: of it must not look like an error of the step. The energy errs by its square.
_ELASTIC = 0.01
#: The same once more, for an energy that seems to rise.
_SETTLED = 1e-3
#: A change of the first step, and of the last iteration of any step, as shares of the tolerance.
_FIRST_CHANGE, _NEWTON = 0.1, 1e-3
_OF_A_FIRST_CHANGE = 0.1
_LARGEST_GROWTH, _LARGEST_CUT, _SAFETY = 2.0, 0.2, 0.9
_AFTER_A_FAILURE = 0.25
#: Rounding of an energy, as a share of the sum of what it is made of.
_ROUNDING = 1e-10
_MOST_REJECTED = 40
#: Curvature of a phase in equilibrium, kT: an error of the potential moves a composition by less than itself over this.
_BULK_CURVATURE = 4.0


@dataclass(frozen=True)
class StepRecord:
    """One accepted step.

    Attributes
    ----------
    step, time_s, length_s : its number, the time it reached, its length.
    chemical_aJ, elastic_aJ : free energies.
    mean_composition, lowest, highest : of the solid.
    motion : what the largest |dX/dt| would change while lithium crosses the particle along its slowest axis.
    error : estimate of the error of X.
    newton_iterations, elastic_iterations, n_rejected : work.
    """

    step: int
    time_s: float
    length_s: float
    chemical_aJ: float
    elastic_aJ: float
    mean_composition: float
    lowest: float
    highest: float
    motion: float
    error: float
    newton_iterations: int
    elastic_iterations: int
    n_rejected: int

    @property
    def energy_aJ(self) -> float:
        return self.chemical_aJ + self.elastic_aJ


@dataclass
class Instant:
    """Everything a run needs to go on, newest first in the tuples.

    Attributes
    ----------
    step, time_s : where it is.
    next_length_s : step length that the error asks for.
    lengths_s : of the steps before.
    compositions : up to three fields (X, Y, Z).
    potential : (X, Y, Z) kT.
    elastic_potentials : up to two fields, kT.
    displacements : up to two fields, nm.
    energy_aJ, mean_composition : of the newest.
    """

    step: int
    time_s: float
    next_length_s: float
    lengths_s: tuple[float, ...]
    compositions: tuple[Float, ...]
    potential: Float
    elastic_potentials: tuple[Float, ...]
    displacements: tuple[Float, ...]
    energy_aJ: float
    mean_composition: float


@dataclass(frozen=True, eq=False)
class _Trial:
    """A step that may be accepted."""

    composition: Float
    potential: Float
    coherent: Coherent | None
    chemical_aJ: float
    elastic_aJ: float
    error: float
    newton_iterations: int

    @property
    def energy_aJ(self) -> float:
        return self.chemical_aJ + self.elastic_aJ


class VoidSimulation:
    """A particle that separates into phases.

    Parameters
    ----------
    equations : of the composition.
    coherency : of the lattice; None for a phase field without elasticity.
    site_density_nm3 : sites per volume.
    kT_eV : thermal energy.
    tolerance : error of a composition that a step may make.
    wetting_kT_per_nm2 : derivative of the surface energy with respect to X, over kT, per area.
    """

    def __init__(
        self,
        equations: CahnHilliard,
        coherency: Coherency | None,
        *,
        site_density_nm3: float,
        kT_eV: float,
        tolerance: float,
        wetting_kT_per_nm2: float = 0.0,
    ) -> None:
        self.equations, self.coherency, self.tolerance = equations, coherency, tolerance
        self.grid = equations.grid
        self._aJ = site_density_nm3 * kT_eV / EV_PER_AJ  # of 1 nm^3 kT
        self._held_back = coherency.stiffness_kT if coherency else 0.0
        self.closed = equations.transport.closed
        extent = np.array(self.grid.box.whole.cells) * self.grid.spacing_nm
        self.crossing_s = float((extent**2 / equations.transport.diffusivity_nm2_per_s).max())
        self._wetting = self.grid.per_volume(self.grid.surface) * (wetting_kT_per_nm2 / site_density_nm3)

    def begin(self, composition: Float) -> tuple[Instant, StepRecord, Equilibrium | None]:
        """The first instant, from the compositions (nodes...) of the solid."""
        field = self.grid.of_nodes(np.where(self.grid.exists[self.grid.box.owned], composition, 0.5))
        coherent = self.coherency.relax(field, None, _ELASTIC * self.tolerance) if self.coherency else None
        elastic = coherent.potential_kT if coherent else self.grid.field()
        potential = self._potential(field, elastic)
        self.equations.set_mobility(field)
        leaving = self.equations.flow(potential) + self.equations.exchange(potential)[0]
        speed = self.grid.per_volume(leaving)
        fastest = self.grid.amplitude(speed)
        length = _FIRST_CHANGE * self.tolerance / fastest if fastest > 0 else self.crossing_s
        chemical, elastic_energy = self._energies(field, coherent.elastic if coherent else None)
        trial = _Trial(field, potential, coherent, chemical, elastic_energy, 0.0, 0)
        instant = Instant(
            step=0,
            time_s=0.0,
            next_length_s=length,
            lengths_s=(),
            compositions=(field,),
            potential=potential,
            elastic_potentials=(elastic,),
            displacements=(coherent.elastic.displacement_nm,) if coherent else (),
            energy_aJ=chemical + elastic_energy,
            mean_composition=self._mean(field),
        )
        record = self._record(instant, trial, length_s=0.0, motion=0.0, n_rejected=0)
        return instant, record, coherent.elastic if coherent else None

    def elastic_state(self, now: Instant) -> Equilibrium | None:
        """The equilibrium of an instant, from the displacement it holds."""
        if self.coherency is None:
            return None
        return self.coherency.relax(now.compositions[0], now.displacements[0], _ELASTIC * self.tolerance).elastic

    def advance(self, now: Instant, until_s: float) -> tuple[Instant, StepRecord, Equilibrium | None]:
        """One accepted step, not beyond `until_s`.

        Raises
        ------
        ConvergenceError : no step is short enough.
        """
        wanted = now.next_length_s
        for rejected in range(_MOST_REJECTED):
            length = _fitted(wanted, until_s - now.time_s)
            try:
                trial = self._step(now, length)
                if self.closed and self._rises(now, trial):
                    trial = self._settled(trial)
            except ConvergenceError:
                wanted = length * _AFTER_A_FAILURE
                continue
            if self.closed and self._rises(now, trial):
                wanted = length / 2
                continue
            composition, coherent, error = trial.composition, trial.coherent, trial.error
            order = 3 if len(now.compositions) == 3 else 1
            growth = _SAFETY * (self.tolerance / error) ** (1 / order) if error > 0 else _LARGEST_GROWTH
            if error > self.tolerance:
                wanted = length * max(growth, _LARGEST_CUT)
                continue
            # A step that was cut short to end at `until_s` says nothing against the length wanted before.
            proposed = length * min(growth, _LARGEST_GROWTH)
            if length < wanted:
                proposed = max(proposed, min(wanted, length * _LARGEST_GROWTH))
            time = until_s if length == until_s - now.time_s else now.time_s + length
            motion = self.grid.amplitude(composition - now.compositions[0]) / length * self.crossing_s
            instant = Instant(
                step=now.step + 1,
                time_s=time,
                next_length_s=proposed,
                lengths_s=(length, *now.lengths_s[:1]),
                compositions=(composition, *now.compositions[:2]),
                potential=trial.potential,
                elastic_potentials=(
                    coherent.potential_kT if coherent else now.elastic_potentials[0],
                    *now.elastic_potentials[:1],
                ),
                displacements=(coherent.elastic.displacement_nm, *now.displacements[:1]) if coherent else (),
                energy_aJ=trial.energy_aJ,
                mean_composition=self._mean(composition),
            )
            record = self._record(instant, trial, length_s=length, motion=motion, n_rejected=rejected)
            return instant, record, coherent.elastic if coherent else None
        raise ConvergenceError(
            f"the phase field after {now.time_s:.4g} s, with steps down to {length:.2g} s,",
            iterations=_MOST_REJECTED,
            residual=length,
            tolerance=self.tolerance,
        )

    def _step(self, now: Instant, length: float) -> _Trial:
        latest = now.compositions[0]
        ratio = length / now.lengths_s[0] if now.lengths_s else 0.0
        rate, history, expected = _backward_differences(now, length)
        elastic = _extrapolated(now.elastic_potentials, ratio) if ratio else now.elastic_potentials[0]
        held_back = self._held_back
        steady = elastic + self._wetting - held_back * expected
        self.equations.set_mobility(expected)
        law = self.equations.transport.free_energy
        composition = _between(latest, expected, law.lowest, law.highest)
        potential = now.potential.copy()
        newton = self.equations.solve(
            rate, history, composition, potential, _NEWTON * self.tolerance, steady=steady, stiffness=held_back
        )
        if self.closed:
            self._restore_mass(composition, now.mean_composition)
        self.grid.box.fill_halo(composition)
        error = self._truncation(now, composition, length)
        coherent = None
        if self.coherency:
            start = _extrapolated(now.displacements, ratio) if ratio else now.displacements[0]
            coherent = self.coherency.relax(composition, start, _ELASTIC * self.tolerance)
            missed = coherent.potential_kT - elastic - held_back * (composition - expected)
            error = max(error, self.grid.amplitude(missed) / (held_back + _BULK_CURVATURE))
        chemical, elastic_energy = self._energies(composition, coherent.elastic if coherent else None)
        return _Trial(composition, potential, coherent, chemical, elastic_energy, error, newton)

    def _rises(self, now: Instant, trial: _Trial) -> bool:
        rounding = _ROUNDING * (abs(trial.chemical_aJ) + abs(trial.elastic_aJ) + self._aJ * self.grid.volume)
        return trial.energy_aJ > now.energy_aJ + rounding

    def _settled(self, trial: _Trial) -> _Trial:
        """The same composition with a displacement so near equilibrium that its energy is right to rounding."""
        if self.coherency is None or trial.coherent is None:
            return trial
        start = trial.coherent.elastic.displacement_nm
        coherent = self.coherency.relax(trial.composition, start, _SETTLED * _ELASTIC * self.tolerance)
        return replace(trial, coherent=coherent, elastic_aJ=coherent.elastic.minimum_aJ)

    def _truncation(self, now: Instant, composition: Float, length: float) -> float:
        """Largest error of the step: h^2 (h + h1)^2 / (2 h + h1) times the third divided difference of X.

        The first two steps have no history for it and are judged by what they change, and by what was not expected.
        """
        h = length
        if len(now.compositions) < 3:
            share = _OF_A_FIRST_CHANGE if len(now.compositions) == 1 else 1 / 3
            surprise = composition - _backward_differences(now, h)[2]
            return share * self.grid.amplitude(surprise)
        h1, h2 = now.lengths_s
        x, x1, x2, x3 = composition, *now.compositions
        first, second, third = (x - x1) / h, (x1 - x2) / h1, (x2 - x3) / h2
        curved = ((first - second) / (h + h1) - (second - third) / (h1 + h2)) / (h + h1 + h2)
        return self.grid.amplitude(curved) * h**2 * (h + h1) ** 2 / (2 * h + h1)

    def _restore_mass(self, composition: Float, mean: float) -> None:
        """Take out what the last iteration left of the mass, where there is room."""
        law = self.equations.transport.free_energy
        weight = np.where(self.grid.exists, law.mobility(composition), 0.0)
        missing = mean * self.grid.volume - self.grid.integral(composition)
        composition += weight * (missing / self.grid.integral(weight))

    def _potential(self, composition: Float, elastic: Float) -> Float:
        grid, law = self.grid, self.equations.transport.free_energy
        bending = grid.per_volume(self.equations.bending(composition))
        homogeneous = np.where(grid.exists, law.potential(np.where(grid.exists, composition, 0.5)), 0.0)
        return np.where(grid.exists, homogeneous + bending + elastic + self._wetting, 0.0)

    def _energies(self, composition: Float, elastic: Equilibrium | None) -> tuple[float, float]:
        wet = self.grid.integral(self._wetting * composition)
        return self._aJ * (self.equations.energy_kT(composition) + wet), elastic.minimum_aJ if elastic else 0.0

    def _mean(self, composition: Float) -> float:
        return self.grid.integral(composition) / self.grid.volume

    def _record(
        self, instant: Instant, trial: _Trial, *, length_s: float, motion: float, n_rejected: int
    ) -> StepRecord:
        lowest, highest = self.grid.extremes(trial.composition)
        return StepRecord(
            step=instant.step,
            time_s=instant.time_s,
            length_s=length_s,
            chemical_aJ=trial.chemical_aJ,
            elastic_aJ=trial.elastic_aJ,
            mean_composition=instant.mean_composition,
            lowest=lowest,
            highest=highest,
            motion=motion,
            error=trial.error,
            newton_iterations=trial.newton_iterations,
            elastic_iterations=trial.coherent.elastic.iterations if trial.coherent else 0,
            n_rejected=n_rejected,
        )


def _backward_differences(now: Instant, length: float) -> tuple[float, Float, Float]:
    """dX/dt = rate X - history at the new time, and X extrapolated to it; of first order at the first step."""
    latest = now.compositions[0]
    if not now.lengths_s:
        return 1 / length, latest / length, latest
    before, r = now.compositions[1], length / now.lengths_s[0]
    rate = (1 + 2 * r) / ((1 + r) * length)
    return rate, ((1 + r) * latest - r**2 / (1 + r) * before) / length, latest + r * (latest - before)


def _extrapolated(newest_first: tuple[Float, ...], ratio: float) -> Float:
    latest, before = newest_first
    return np.asarray(latest + ratio * (latest - before))


def _between(latest: Float, expected: Float, lowest: float, highest: float) -> Float:
    """What is expected, but no nearer to an edge than half way from the latest."""
    low, high = (lowest + latest) / 2, (highest + latest) / 2
    return np.clip(expected, low, high)


def _fitted(wanted: float, remaining: float) -> float:
    """A step of about the length wanted after which no sliver remains."""
    if wanted >= remaining:
        return remaining
    return remaining / 2 if wanted > remaining / 2 else wanted
