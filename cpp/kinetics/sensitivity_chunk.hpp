// Derivatives along a few columns side by side, through the whole half-cycle.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "kinetics/trajectory.hpp"

namespace chemomech::kinetics {

// Least tolerance that single precision reaches; it moves half the bytes, which is what bounds the speed.
inline constexpr double least_single_tolerance = 1e-5;

// By how much the recurrence of the steps alone, without what damps it, can make an error of one state grow: steps that
// double again and again at high order are not zero-stable, and after a few of them rounding is all there is.
double recurrence_growth(const Trajectory& trajectory);

// Columns [first, first + lanes_a_chunk) of those of `sensitivities`.
template <class Real>
class SensitivityChunk {
 public:
  static constexpr int width = lanes_a_chunk;

  // Remembers the last `remembered` states: highest_order + 2 at least, or all n_steps + 1.
  SensitivityChunk(const Trajectory& trajectory, const Bases& bases, double tolerance, index first, index remembered)
      : trajectory_(trajectory),
        control_(bases.control),
        n_(trajectory.n_cells),
        first_(first),
        remembered_(remembered),
        tolerance_(static_cast<Real>(tolerance)),
        states_(remembered * n_ * width),
        log_k_(trajectory.n_pixels * width, Real(0)),
        right_side_(n_ * width),
        work_(n_, width) {
    const index n_laws = trajectory.n_mu() + trajectory.n_log_j0(), n_k = bases.log_k.shape[1];
    const index n_initial = bases.initial.shape[1];
    n_columns_ = std::min<index>(width, n_laws + n_k + n_initial + bases.control.shape[1] - first);
    std::fill_n(states_.data(), n_ * width, Real(0));
    for (int l = 0; l < n_columns_; ++l) {
      const index column = first + l;
      if (column < n_laws) {
        law_lanes_.push_back(l);
      } else if (column < n_laws + n_k) {
        for (index i = 0; i < trajectory.n_pixels; ++i) {
          log_k_[i * width + l] = static_cast<Real>(*bases.log_k.at(i, column - n_laws));
        }
      } else if (column < n_laws + n_k + n_initial) {
        initial_lanes_.push_back({l, column - n_laws - n_k});
        for (index i = 0; i < n_; ++i) {
          states_[i * width + l] = static_cast<Real>(*bases.initial.at(i, column - n_laws - n_k));
        }
      } else {
        control_lanes_.push_back({l, column - n_laws - n_k - n_initial});
      }
    }
  }

  // From the start to the last step, calling after_state(number) as states are there; false when a step cannot be
  // solved for.
  template <class AfterState>
  bool run(const AfterState& after_state) {
    after_state(0);
    for (index step = 0; step < static_cast<index>(trajectory_.steps.size()); ++step) {
      if (!advance(step)) return false;
      after_state(step + 1);
    }
    return true;
  }

  int n_columns() const { return n_columns_; }
  const Real* state(index number) const { return states_.data() + number % remembered_ * n_ * width; }  // (n, width)
  const std::vector<Real>& log_k() const { return log_k_; }  // (n_pixels, width)
  // Lanes that start along a column of the initial basis, and which.
  const std::vector<std::pair<int, index>>& initial_lanes() const { return initial_lanes_; }

 private:
  bool advance(index number) {
    const Step& step = trajectory_.steps[number];
    Real* next = states_.data() + (number + 1) % remembered_ * n_ * width;
    const Real* old[highest_order + 1];
    for (int j = 0; j < step.n_extrapolated; ++j) old[j] = state(number - j);
    Real weight[highest_order], extrapolation[highest_order + 1];
    std::copy_n(step.weight.data(), step.order, weight);
    std::copy_n(step.extrapolation.data(), step.n_extrapolated, extrapolation);
    Real excess[width] = {};
    for (index i = 0; i < n_; ++i) {
      Real row[width] = {}, guess[width] = {};
      for (int j = 0; j < step.order; ++j) {
        for (int l = 0; l < width; ++l) row[l] += weight[j] * old[j][i * width + l];
      }
      for (int j = 0; j < step.n_extrapolated; ++j) {
        for (int l = 0; l < width; ++l) guess[l] += extrapolation[j] * old[j][i * width + l];
      }
      const Real* source = log_k_.data() + trajectory_.coupling->pixel[i] * width;
      const Real scale = static_cast<Real>(step.history[i]), over = static_cast<Real>(step.rate_over_p[i]);
      for (int l = 0; l < width; ++l) {
        right_side_[i * width + l] = scale * row[l] + over * source[l];
        next[i * width + l] = guess[l];
        excess[l] += guess[l] - row[l];
      }
    }
    const Place at = trajectory_.control_at(number + 1);
    for (const auto& [l, column] : control_lanes_) {
      const double value = (1 - at.share) * *control_.at(at.before, column) + at.share * *control_.at(at.after, column);
      if (step.matrix.conserves) {
        excess[l] -= static_cast<Real>(static_cast<double>(n_) * step.lead * value);
      } else {
        for (index i = 0; i < n_; ++i) right_side_[i * width + l] -= static_cast<Real>(value);
      }
    }
    // Extrapolation would let rounding of the conserved sum grow from step to step.
    if (step.matrix.conserves) {
      for (index i = 0; i < n_; ++i) {
        const Real share = static_cast<Real>(step.matrix.inverse[i] / step.matrix.inverse_sum);
        for (int l = 0; l < width; ++l) next[i * width + l] -= share * excess[l];
      }
    }
    if (!law_lanes_.empty()) add_laws(number, step);
    Real constant[width];
    return solve<Real, width>(step.matrix, *trajectory_.coupling, right_side_.data(), tolerance_, false, next, constant,
                              work_);
  }

  void add_laws(index number, const Step& step) {
    const double* c = trajectory_.state(number + 1);
    const index n_mu = trajectory_.n_mu();
    std::vector<double> polynomial(std::max(n_mu, trajectory_.n_log_j0()));
    for (index i = 0; i < n_; ++i) {
      legendre(c[i], static_cast<index>(polynomial.size()), polynomial.data());
      for (const int l : law_lanes_) {
        const index column = first_ + l;
        right_side_[i * width + l] +=
            static_cast<Real>(column < n_mu ? -polynomial[column] : step.rate_over_p[i] * polynomial[column - n_mu]);
      }
    }
  }

  const Trajectory& trajectory_;
  View<const double, 2> control_;
  const index n_, first_, remembered_;
  const Real tolerance_;
  int n_columns_ = 0;
  Buffer<Real> states_;
  std::vector<Real> log_k_, right_side_;
  Workspace<Real> work_;
  std::vector<int> law_lanes_;
  std::vector<std::pair<int, index>> initial_lanes_, control_lanes_;  // lane, column of the basis
};

// Adds the gradients of what has the slopes (n_steps + 1, n_cells) along the states and potential_slope (n_steps,)
// along the potentials of the steps. Changes the slopes.
bool add_adjoint(const Trajectory& trajectory, std::vector<double>& slope, const std::vector<double>& potential_slope,
                 double tolerance, const Gradient& out);

}  // namespace chemomech::kinetics
