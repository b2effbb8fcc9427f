"""Least squares with errors in variables, one particle at a time.

The design matrix A of a particle is computed from a noisy composition, A = A_true + E. Polynomials that are unbiased
(`law.shifted_legendre`) leave E without mean, but E^T W E does not vanish in the normal matrix and would flatten the
law. Its mean Q is subtracted (corrected least squares; Fuller 1987, ch. 3):

    (sum_i A_i^T W A_i - Q_i) p = sum_i A_i^T W y_i.

Q is the response to independent errors of the basis in every pixel. For unbiased polynomials b of a value with
Gaussian noise of variance s^2 their covariance has the unbiased estimate sum_k (-1)^(k+1) s^(2k) / k! b^(k) b^(k)T over
the derivatives b^(k) (the Hermite expansion of b b^T), a finite sum. The response is probed with random signs.

Everything below works on these small sums, so that leaving particles out or drawing them again costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import factorial

import numpy as np
from scipy import stats

from chemomech.arrays import Float, Int
from chemomech.errors import InputError
from chemomech.learn.law import NORMAL_95, shifted_legendre, shifted_legendre_derivative
from chemomech.learn.observation import Observation, View

#: Random signs drawn per particle to estimate Q: enough pixels in all that Q is known to about a per cent.
_PROBED_PIXELS = 20_000
_MOST_PROBES = 8
#: Gain in squared misfit, relative to its mean, below which a higher order is not taken.
_WORTHLESS = 0.04
#: Share of the spread of the basis over the pixels that must not be composition noise, in its least varied direction.
_LEAST_SPREAD = 0.02
#: Spread of the basis relative to its size below which the pixels hold too few different compositions.
_LEAST_VARIATION = 1e-9


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """Weighted squared misfit of one particle in one view, as a function of the coefficients a1..aN, c1..cN.

    Attributes
    ----------
    gram, noise_gram : (2N, 2N) A^T W A and Q.
    moment : (2N,) A^T W y.
    square : y^T W y.
    n_data : number of data.
    """

    gram: Float
    noise_gram: Float
    moment: Float
    square: float
    n_data: int

    def restricted(self, order: int) -> "NormalEquations":
        """The same for the Legendre orders up to `order`."""
        highest = len(self.moment) // 2
        take = np.concatenate([np.arange(order), highest + np.arange(order)])
        block = np.ix_(take, take)
        return NormalEquations(self.gram[block], self.noise_gram[block], self.moment[take], self.square, self.n_data)

    def unexplained_ratio(self, coefficients: Float) -> float:
        """Weighted squared misfit of (2, order) coefficients over what the noise of data and composition makes it.

        Meaningful where the weights are inverse variances; 1 when only noise is left.
        """
        own, p = self.restricted(coefficients.shape[1]), coefficients.ravel()
        misfit = own.square - 2 * own.moment @ p + p @ own.gram @ p
        return float(misfit / (own.n_data + max(float(p @ own.noise_gram @ p), 0.0)))

    def loss(self, coefficients: Float) -> float:
        """Mean weighted squared misfit of (2, order) coefficients, less the share of the composition noise."""
        return float(self.losses(coefficients[None])[0])

    def losses(self, coefficients: Float) -> Float:
        """The loss (n,) of each of n sets of coefficients (n, 2, order)."""
        own, p = self.restricted(coefficients.shape[2]), coefficients.reshape(len(coefficients), -1)
        square = own.square - 2 * p @ own.moment + np.einsum("ni,ij,nj->n", p, own.gram - own.noise_gram, p)
        return np.asarray(square / own.n_data)


@dataclass(frozen=True, eq=False)
class Design:
    """The linear model of one particle for the orders 1..N at once.

    Attributes
    ----------
    equations : by view.
    view : the one the law is fitted to.
    strain : (n_pixels, 3) measured strain left for the eigenstrain, and hidden sources, to explain.
    strain_columns : (n_pixels, 3, 2N) predicted total strain per unit coefficient.
    basis, slope : (n_pixels, N) the unbiased basis and its derivative.
    basis_noise : (N, N) what the composition noise adds to the sum of squares of the basis.
    strain_weight : (n_pixels, 3) of the squared strain misfit.
    channel_score : (n_pixels, 4, 2N) change of A^T W (y - A p) per standard deviation of each measured channel.
    eigenstrain_score : (n_pixels, 2, 2N) per change of the eigenstrain along a, c over a standard deviation of X.
    hidden_score : (n_hidden, 2N) per standard deviation of the hidden sources, which are independent.
    """

    equations: dict[View, NormalEquations]
    view: View
    strain: Float
    strain_columns: Float
    basis: Float
    slope: Float
    basis_noise: Float
    strain_weight: Float
    channel_score: Float
    eigenstrain_score: Float
    hidden_score: Float

    @property
    def fitted(self) -> NormalEquations:
        """The normal equations of the law."""
        return self.equations[self.view]

    @property
    def whitened(self) -> NormalEquations:
        """Those weighted by the inverse covariance of the noise."""
        return self.equations["distortion" if "distortion" in self.equations else "strain"]

    def eigenstrain(self, coefficients: Float) -> Float:
        """Eigenstrain (n_pixels, 2) along a and c that (2, order) coefficients predict."""
        return np.asarray(self.basis[:, : coefficients.shape[1]] @ coefficients.T)

    def total_strain(self, coefficients: Float) -> Float:
        """Total strain (n_pixels, 3) that (2, order) coefficients predict."""
        return np.asarray(_restrict(self.strain_columns, coefficients.shape[1]) @ coefficients.ravel())

    def score_covariance(self, coefficients: Float) -> Float:
        """Covariance (2 order, 2 order) of A^T W (y - A p) under independent noise of every source of noise."""
        order = coefficients.shape[1]
        measured = _restrict(self.channel_score, order).reshape(-1, 2 * order)
        slope = self.slope[:, :order] @ coefficients.T
        composition = np.einsum("pi,pij->pj", slope, _restrict(self.eigenstrain_score, order))
        hidden = _restrict(self.hidden_score, order)
        return np.asarray(measured.T @ measured + composition.T @ composition + hidden.T @ hidden)


def build_design(
    observation: Observation,
    view: View,
    composition: Float,
    composition_deviation: Float,
    deviation: Float,
    order: int,
) -> Design:
    """Design of one particle.

    Parameters
    ----------
    observation : how the particle answers to an eigenstrain.
    view : the one to fit.
    composition, composition_deviation : (n_pixels,) measured X and its standard deviation.
    deviation : (n_pixels, 4) standard deviation of the channels.
    order : highest Legendre order.
    """
    variance = composition_deviation**2
    basis = shifted_legendre(composition, order, variance)
    slopes = [shifted_legendre_derivative(composition, order, variance, k) for k in range(1, order + 1)]
    columns = observation.respond(_along_a_and_c(basis))

    noise_gram = {seen: np.zeros((2 * order, 2 * order)) for seen in columns}
    basis_noise = np.zeros((order, order))
    signs = np.random.default_rng(0)
    n_probes = int(np.clip(_PROBED_PIXELS // len(composition), 1, _MOST_PROBES)) if variance.any() else 0
    for k, slope in enumerate(slopes, 1):
        share = -((-1.0) ** k) / factorial(k)
        basis_noise += share * (slope * variance[:, None] ** k).T @ slope
        for _ in range(n_probes):
            error = signs.choice([-1.0, 1.0], len(composition)) * composition_deviation**k
            # The k-th derivatives of the orders below k vanish.
            answers = observation.respond(_along_a_and_c(slope[:, k - 1 :] * error[:, None]))
            highest = np.r_[k - 1 : order, order + k - 1 : 2 * order]
            for seen, answer in answers.items():
                own = _gram(answer, observation.weigh(seen, answer))
                noise_gram[seen][np.ix_(highest, highest)] += share / n_probes * own

    equations: dict[View, NormalEquations] = {}
    weighted: dict[View, Float] = {}
    for seen, data in observation.data.items():
        both = np.concatenate([columns[seen], data[..., None]], axis=2)
        weighed = observation.weigh(seen, both)
        weighted[seen] = weighed[..., :-1]
        products = _gram(both, weighed)
        equations[seen] = NormalEquations(
            gram=products[:-1, :-1],
            noise_gram=noise_gram[seen],
            moment=products[:-1, -1],
            square=float(products[-1, -1]),
            n_data=data.size,
        )
    to_eigenstrain, to_channels = observation.transpose(view, weighted[view])
    strains: View = "strain" if "strain" in columns else "distortion"
    return Design(
        equations=equations,
        view=view,
        strain=observation.data[strains][:, :3],
        strain_columns=columns[strains][:, :3],
        basis=basis,
        slope=slopes[0],
        basis_noise=basis_noise,
        strain_weight=1 / deviation[:, :3] ** 2,
        channel_score=to_channels * deviation[..., None],
        eigenstrain_score=to_eigenstrain[:, :2] * composition_deviation[:, None, None],
        hidden_score=observation.hidden_transpose(view, weighted[view]),
    )


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients (2, order) of the corrected least squares and the inverse of its normal matrix."""

    coefficients: Float
    inverse: Float


def fit(designs: Sequence[Design], order: int) -> Fit:
    """Solve the normal equations of all particles together.

    Raises
    ------
    InputError : the compositions do not determine a law of this order.
    """
    return _fit(_sums(designs, order).over(np.ones(len(designs))), order)


def _fit(sums: "_Sums", order: int) -> Fit:
    corrected = sums.gram - sums.noise_gram
    if not _identifiable(sums) or np.linalg.eigvalsh(corrected).min() <= 0:
        raise InputError(
            f"the law is not identifiable at order {order}: inside the masks the composition varies too little beyond "
            f"its noise; add particles that hold both phases{', or lower the order' if order > 1 else ''}"
        )
    inverse = np.asarray(np.linalg.inv(corrected))
    return Fit((inverse @ sums.moment).reshape(2, order), inverse)


def plain_covariance(designs: Sequence[Design], order: int) -> Float:
    """Covariance of ordinary least squares, which takes the misfits of all data for independent and equal."""
    sums = _sums(designs, order).over(np.ones(len(designs)))
    inverse = np.linalg.inv(sums.gram)
    misfit = sum(design.fitted.square for design in designs) - sums.moment @ inverse @ sums.moment
    return np.asarray(inverse * misfit / (sum(design.fitted.n_data for design in designs) - 2 * order))


def propagated_covariance(designs: Sequence[Design], solution: Fit) -> Float:
    """Covariance from the noise of the measured channels and of the composition.

    Independent noise from pixel to pixel is carried through the integration of the displacement, the elastic
    equilibrium and the fit by the transposes of these linear maps.
    """
    score = sum(design.score_covariance(solution.coefficients) for design in designs)
    return np.asarray(solution.inverse @ score @ solution.inverse)


def heterogeneity(designs: Sequence[Design], solution: Fit) -> float:
    """Probability that noise alone makes the particles disagree about the law as much as they do.

    Cochran's test: the scores A_i^T W (y_i - A_i p) of n particles with the covariances that noise gives them are
    compared with zero; n - 1 of them are free for every coefficient. 1 for a single particle.
    """
    order = solution.coefficients.shape[1]
    p = solution.coefficients.ravel()
    statistic = 0.0
    for design in designs:
        own = design.fitted.restricted(order)
        score = own.moment - (own.gram - own.noise_gram) @ p
        precision = np.linalg.pinv(design.score_covariance(solution.coefficients), hermitian=True)
        statistic += float(score @ precision @ score)
    freedom = (len(designs) - 1) * len(p)
    return float(stats.chi2.sf(statistic, freedom)) if freedom else 1.0


def bootstrap_covariance(designs: Sequence[Design], order: int, replicas: int = 2000) -> Float | None:
    """Covariance over particles drawn again with replacement, or None with fewer than three particles.

    It sees whatever differs from particle to particle: correlated noise, and strain that the model leaves out. The
    spread of n particles has only n - 1 degrees of freedom: the covariance is widened so that +-1.96 standard errors
    are the 95 % interval of Student's t.
    """
    n = len(designs)
    if n < 3:
        return None
    random = np.random.default_rng(0)
    drawn = [np.bincount(chosen, minlength=n) for chosen in random.integers(0, n, (replicas, n))]
    each, draws, drawn_times = _sums(designs, order), [], []  # three particles make ten different draws
    for weights, times in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        try:
            draws.append(_fit(each.over(weights), order).coefficients.ravel())
            drawn_times.append(times)
        except InputError:  # this draw holds too few compositions; the law itself is identifiable
            continue
    student = stats.t.ppf(0.975, n - 1) / NORMAL_95
    return np.asarray(np.cov(np.array(draws).T, fweights=drawn_times) * n / (n - 1) * student**2)


def reference_offset(designs: Sequence[Design], solution: Fit) -> tuple[Float, Float]:
    """Constant strain (2,) along a and c that the data ask for beside the law, and its standard error (2,).

    A free body strains by a constant eigenstrain without stress, so a wrong lattice reference shows as a constant. Most
    of it hides in the law; what the law cannot take is told from the residual by the Schur complement.
    """
    order = solution.coefficients.shape[1]
    coupling, weight, moment = np.zeros((2, 2 * order)), np.zeros(2), np.zeros(2)
    for design in designs:
        w = design.strain_weight[:, :2]
        coupling += np.einsum("pi,pim->im", w, _restrict(design.strain_columns, order)[:, :2])
        weight += w.sum(axis=0)
        moment += (w * (design.strain - design.total_strain(solution.coefficients))[:, :2]).sum(axis=0)
    gram = np.sum([design.equations["strain"].restricted(order).gram for design in designs], axis=0)
    covariance = np.linalg.inv(np.diag(weight) - coupling @ np.linalg.inv(gram) @ coupling.T)
    return covariance @ moment, np.sqrt(np.diag(covariance))


@dataclass(frozen=True)
class OrderScore:
    """Root-mean-square misfit of one order, on the particles it was fitted to and on those left out.

    In nm of displacement under model M1, in standard deviations of the strain noise under M0.
    """

    order: int
    train: float
    test: float


def choose_order(
    designs: Sequence[Design], held_out: Sequence[Design], orders: Sequence[int]
) -> tuple[int, list[OrderScore]]:
    """Lowest order whose held-out misfit is within one standard error, or 2 %, of the best one.

    The particles held out judge the fit to the others, and each of the others in turn that to the rest: one judge alone
    has no standard error and follows its own noise. They judge by the displacement where there is one: summed over
    many pixels it hardly feels the noise of the composition, which in the strain looks like curvature of the law.
    Orders are compared particle by particle, so that what all orders miss does not count (one-standard-error rule;
    Hastie, Tibshirani & Friedman 2009, section 7.10). An order that lowers the misfit of displacements by less than
    2 % is not worth its coefficients even when all particles agree: blur and registration of the maps do as much, in
    all of them alike.

    Raises
    ------
    InputError : no order is identifiable.
    """
    n = len(designs)
    folds = [(np.ones(n), design) for design in held_out]  # the weights of the designs in a fit, and its judge
    if n > 1:
        folds += [(1 - np.eye(n)[i], design) for i, design in enumerate(designs)]
    scores: list[OrderScore] = []
    losses: list[Float] = []
    for order in orders:
        each = _sums(designs, order)
        try:
            solutions = [_fit(each.over(weights), order).coefficients for weights, _ in folds]
        except InputError:
            if not losses:
                raise
            break
        test = np.array([_judge(design).loss(p) for p, (_, design) in zip(solutions, folds, strict=True)])
        of_fitted = np.stack([_judge(design).losses(np.array(solutions)) for design in designs], axis=1)
        train = np.average(of_fitted, axis=1, weights=np.array([weights for weights, _ in folds]))
        scores.append(OrderScore(order, _root(float(np.mean(train))), _root(float(test.mean()))))
        losses.append(test)
    relative = np.array(losses) / np.mean(losses, axis=0)  # large particles weigh no more than small ones
    excess = relative - relative[int(np.argmin(relative.mean(axis=1)))]
    error = np.zeros(len(losses))
    if len(folds) > 1:
        student = stats.t.ppf(stats.norm.cdf(1), len(folds) - 1)  # one standard deviation's probability, few judges
        error = student * excess.std(axis=1, ddof=1) / np.sqrt(len(folds))
    # The strain of a single pixel is mostly noise, so that no order gains much there.
    worthless = _WORTHLESS if "displacement" in designs[0].equations else 0.0
    return scores[int(np.argmax(excess.mean(axis=1) <= np.maximum(error, worthless)))].order, scores


def _judge(design: Design) -> NormalEquations:
    return design.equations.get("displacement", design.equations["strain"])


@dataclass(frozen=True, eq=False)
class _Sums:
    """What a fit needs to know of each particle (n, ...), or of some together (...).

    Attributes
    ----------
    gram, noise_gram, moment : those of `NormalEquations`.
    basis_count, basis_sum, basis_square, basis_noise : number of pixels, and sums over them of the basis (N,), of its
        products (N, N), and of what the composition noise adds to these.
    """

    gram: Float
    noise_gram: Float
    moment: Float
    basis_count: Float
    basis_sum: Float
    basis_square: Float
    basis_noise: Float

    def over(self, weights: Float | Int) -> "_Sums":
        """The sum over particles that count `weights` (n,) times."""
        return _Sums(*(np.tensordot(weights, getattr(self, each.name), 1) for each in fields(self)))


def _sums(designs: Sequence[Design], order: int) -> _Sums:
    pieces = []
    for design in designs:
        own, basis = design.fitted.restricted(order), design.basis[:, :order]
        of_basis = (len(basis), basis.sum(axis=0), basis.T @ basis, design.basis_noise[:order, :order])
        pieces.append((own.gram, own.noise_gram, own.moment, *of_basis))
    return _Sums(*(np.stack(part) for part in zip(*pieces, strict=True)))


def _restrict(columns: Float, order: int) -> Float:
    """Of the columns (..., 2N) for a, then for c, those up to `order`."""
    highest = columns.shape[-1] // 2
    return np.concatenate([columns[..., :order], columns[..., highest : highest + order]], axis=-1)


def _along_a_and_c(values: Float) -> Float:
    """Eigenstrain columns (n, 3, 2N): the values (n, N) along a, then along c; no shear."""
    n, order = values.shape
    eigenstrain = np.zeros((n, 3, 2 * order))
    eigenstrain[:, 0, :order] = values
    eigenstrain[:, 1, order:] = values
    return eigenstrain


def _gram(left: Float, right: Float) -> Float:
    k = left.shape[2]
    return np.asarray(left.reshape(-1, k).T @ right.reshape(-1, k))


def _identifiable(sums: _Sums) -> bool:
    """Whether the pixels hold enough different compositions for a law.

    The gauge f(1) = 0 alone would let a single composition determine a line; the basis must vary over the pixels.
    """
    spread = sums.basis_square - np.outer(sums.basis_sum, sums.basis_sum) / sums.basis_count
    if np.linalg.eigvalsh(spread).min() <= _LEAST_VARIATION * np.trace(sums.basis_square):
        return False
    half = np.linalg.inv(np.linalg.cholesky(spread))
    return float(np.linalg.eigvalsh(half @ sums.basis_noise @ half.T).max()) <= 1 - _LEAST_SPREAD


def _root(mean_square: float) -> float:
    return float(np.sqrt(max(mean_square, 0.0)))
