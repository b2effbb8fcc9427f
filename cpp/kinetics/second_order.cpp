#include <algorithm>
#include <vector>

#include "base/buffer.hpp"
#include "base/simd.hpp"
#include "kinetics/sensitivity_chunk.hpp"

namespace chemomech::kinetics {
namespace {

// Sums over columns of their adjoints x times what the second derivatives of a step multiply, (n_steps, n_cells) each:
// the column itself, its direction in ln k, and its change by the reaction in the step, lead d rate.
struct Products {
  std::vector<double> state, log_k, reacted;

  explicit Products(index size) : state(size, 0.0), log_k(size, 0.0), reacted(size, 0.0) {}
};

// The weights of the columns [first, ...) backwards through the linear recurrence of a chunk of sensitivities. What a
// step changes is a difference of states; a step short enough for single precision to lose it is next to none of the
// film.
template <class Real>
class BackwardChunk {
 public:
  static constexpr int width = lanes_a_chunk;

  BackwardChunk(const Trajectory& trajectory, const SensitivityChunk<Real>& forward, View<const double, 3> weights,
                index first, double tolerance)
      : trajectory_(trajectory),
        forward_(forward),
        n_(trajectory.n_cells),
        tolerance_(static_cast<Real>(tolerance)),
        slopes_(remembered * n_ * width),
        solution_(n_ * width),
        work_(n_, width) {
    std::fill_n(slopes_.data(), slopes_.size(), Real(0));
    for (index f = 0; f < weights.shape[0]; ++f) {
      weights_.emplace_back(trajectory.n_pixels * width, Real(0));
      for (index i = 0; i < trajectory.n_pixels; ++i) {
        std::copy_n(weights.at(f, i) + first, forward.n_columns(), weights_.back().data() + i * width);
      }
    }
  }

  // Adds to the products; the slope of the initial state is then in slope(0).
  bool run(Products& products) {
    for (index number = static_cast<index>(trajectory_.steps.size()); number-- > 0;) {
      if (!step_back(number, products)) return false;
    }
    add_frames(0);
    return true;
  }

  Real* slope(index number) { return slopes_.data() + number % remembered * n_ * width; }

 private:
  bool step_back(index number, Products& products) {
    const Step& step = trajectory_.steps[number];
    add_frames(number + 1);
    Real* own = slope(number + 1);
    std::fill_n(solution_.data(), solution_.size(), Real(0));
    const auto solved =
        solve<Real, width>(step.matrix, *trajectory_.coupling, own, tolerance_, false, solution_.data(), work_);
    if (!solved) return false;
    std::fill_n(own, n_ * width, Real(0));  // the place of an older state from here on
    Real weight[highest_order], constant[width];
    std::copy_n(step.weight.data(), step.order, weight);
    std::copy_n(solved->constant, width, constant);
    const Real *now = forward_.state(number + 1), *old[highest_order];
    Real* to[highest_order];
    for (int j = 0; j < step.order; ++j) old[j] = forward_.state(number - j), to[j] = slope(number - j);
    using V = lanes<Real, width>;
    const V away = load<width>(constant);
    for (index i = 0; i < n_; ++i) {
      const V x = load<width>(solution_.data() + i * width), state = load<width>(now + i * width);
      const V log_k = load<width>(forward_.log_k() + trajectory_.coupling->pixel[i] * width);
      const V back = static_cast<Real>(step.history[i]) * x + away;
      V reacted = state;
      for (int j = 0; j < step.order; ++j) {
        reacted -= weight[j] * load<width>(old[j] + i * width);
        store(to[j] + i * width, V(load<width>(to[j] + i * width) + weight[j] * back));
      }
      const V with_state = x * state, with_log_k = x * log_k, with_reacted = x * reacted;
      const index at = number * n_ + i;
      for (int l = 0; l < width; ++l) {
        products.state[at] += with_state[l];
        products.log_k[at] += with_log_k[l];
        products.reacted[at] += with_reacted[l];
      }
    }
    return true;
  }

  void add_frames(index state) {
    for (std::size_t f = 0; f < trajectory_.frames.size(); ++f) {
      const Frame& frame = trajectory_.frames[f];
      const index j = frame.newest - state;
      if (j < 0 || j >= frame.count) continue;
      Real* to = slope(state);
      for (index i = 0; i < n_; ++i) {
        const Real share = static_cast<Real>(frame.weight[j] * trajectory_.pixel_share[i]);
        const Real* from = weights_[f].data() + trajectory_.coupling->pixel[i] * width;
        for (int l = 0; l < width; ++l) to[i * width + l] += share * from[l];
      }
    }
  }

  static constexpr index remembered = highest_order + 1;
  const Trajectory& trajectory_;
  const SensitivityChunk<Real>& forward_;
  const index n_;
  const Real tolerance_;
  Buffer<Real> slopes_, solution_;
  std::vector<std::vector<Real>> weights_;  // by frame, (n_pixels, width)
  Workspace<Real> work_;
};

// A Legendre series at 2c - 1: the polynomials and their slopes, the series' first and second derivatives with respect
// to c, by L_n' = (2n - 1) L_{n-1} + L_{n-2}' and the 2 of 2c - 1.
struct Series {
  const std::vector<double>& coefficients;
  std::vector<double> value, slope, bend;
  double along_c = 0, along_c_twice = 0;

  explicit Series(const std::vector<double>& given)
      : coefficients(given), value(given.size()), slope(given.size()), bend(given.size()) {}

  void at(double c) {
    const index count = static_cast<index>(coefficients.size());
    legendre(c, count, value.data());
    along_c = along_c_twice = 0;
    for (index n = 1; n < count; ++n) {
      const double factor = 2 * (2 * static_cast<double>(n) - 1);
      slope[n] = factor * value[n - 1] + (n > 1 ? slope[n - 2] : 0);
      bend[n] = factor * slope[n - 1] + (n > 1 ? bend[n - 2] : 0);
      along_c += coefficients[n] * slope[n], along_c_twice += coefficients[n] * bend[n];
    }
  }
};

// What the products say of the state, the potential and the parameters of every step.
//
// With w = k j0 and e = mu + potential, a column's direction (omega of ln w, zeta of e) changes the rate by
// T = rate omega - p zeta. The change of that by others (d ln w, d e, dc), q = d^2 rate / d e^2, is
//   dT = (rate omega - p zeta) d ln w + (q zeta - p omega) d e
//      + sigma [rate (s' dc + d slope of ln j0) - p (curvature' dc + d slope of mu)],
// sigma the column in the cell. Here for sums over columns times their adjoints, T then along_w, the factor of d ln w.
void add_slopes(const Trajectory& trajectory, const Products& products, std::vector<double>& slope,
                std::vector<double>& potential_slope, const Gradient& out) {
  const index n = trajectory.n_cells;
  const double alpha = trajectory.alpha;
  std::vector<double> along_e(n), spread(n);
  Series mu(trajectory.mu), log_j0(trajectory.log_j0);
  for (index number = 0; number < static_cast<index>(trajectory.steps.size()); ++number) {
    const Step& step = trajectory.steps[number];
    const double* c = trajectory.state(number + 1);
    double* own = slope.data() + (number + 1) * n;
    for (index i = 0; i < n; ++i) {
      mu.at(c[i]), log_j0.at(c[i]);
      const double p = 1 / (step.lead * step.history[i]), rate = step.rate_over_p[i] * p;
      const double forward = p + (1 - alpha) * rate, backward = p - alpha * rate;
      const double q = alpha * alpha * forward - (1 - alpha) * (1 - alpha) * backward;
      const double left = c[i] * (1 - c[i]);
      const double curvature = 1 / left + mu.along_c;
      const double bend = (2 * c[i] - 1) / (left * left) + mu.along_c_twice;
      const index at = number * n + i;
      const double sigma = products.state[at] / p;
      const double omega = log_j0.along_c * sigma + products.log_k[at] / p;
      const double along_w = products.reacted[at] / (step.lead * p);
      const double zeta = (rate * omega - along_w) / p;
      along_e[i] = q * zeta - p * omega;
      own[i] += along_w * log_j0.along_c + along_e[i] * curvature + sigma * (rate * log_j0.along_c_twice - p * bend);
      potential_slope[number] += along_e[i];
      out.log_k.data[trajectory.coupling->pixel[i]] += along_w;
      for (index m = 0; m < trajectory.n_mu(); ++m) {
        out.mu.data[m] += along_e[i] * mu.value[m] - sigma * p * mu.slope[m];
      }
      for (index m = 0; m < trajectory.n_log_j0(); ++m) {
        out.log_j0.data[m] += along_w * log_j0.value[m] + sigma * rate * log_j0.slope[m];
      }
    }
    trajectory.coupling->apply(along_e.data(), spread.data());
    for (index i = 0; i < n; ++i) own[i] += spread[i];
  }
}

// Adds the products of the columns of a chunk and writes their slopes along the initial basis.
template <class Real>
bool add_chunk(const Trajectory& trajectory, const Bases& bases, View<const double, 3> weights, index first,
               double tolerance, Products& products, View<double, 2> along_initial) {
  constexpr int width = SensitivityChunk<Real>::width;
  const index n_laws = trajectory.n_mu() + trajectory.n_log_j0();
  const index n_states = static_cast<index>(trajectory.steps.size()) + 1;
  SensitivityChunk<Real> forward(trajectory, bases, tolerance, n_laws + first, n_states);
  if (!forward.run([](index) {})) return false;
  BackwardChunk<Real> backward(trajectory, forward, weights, first, tolerance);
  if (!backward.run(products)) return false;
  for (const auto& [l, column] : forward.initial_lanes()) {
    for (index i = 0; i < trajectory.n_cells; ++i) *along_initial.at(i, column) = backward.slope(0)[i * width + l];
  }
  return true;
}

}  // namespace

bool adjoint_of_sensitivities(const Trajectory& trajectory, const Bases& bases, View<const double, 3> weights,
                              double tolerance, const Gradient& out, View<double, 2> along_initial) {
  const index n = trajectory.n_cells, n_steps = static_cast<index>(trajectory.steps.size());
  Products products(0);
  const auto add_all = [&](const auto& add) {
    products = Products(n_steps * n);
    for (index first = 0; first < weights.shape[2]; first += lanes_a_chunk) {
      if (!add(trajectory, bases, weights, first, tolerance, products, along_initial)) return false;
    }
    return true;
  };
  if (!(solves_in_single(trajectory, tolerance) && add_all(add_chunk<float>)) && !add_all(add_chunk<double>))
    return false;
  std::vector<double> slope((n_steps + 1) * n, 0.0), potential_slope(n_steps, 0.0);
  add_slopes(trajectory, products, slope, potential_slope, out);
  return add_adjoint(trajectory, slope, potential_slope, tolerance, out);
}

}  // namespace chemomech::kinetics
