// Derivatives along a few columns side by side, through the whole half-cycle.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "base/simd.hpp"
#include "kinetics/trajectory.hpp"

namespace chemomech::kinetics {

// Whether single precision will do; it moves half the bytes and is twice as fast.
bool solves_in_single(const Trajectory& trajectory, double tolerance);

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
        log_k_(trajectory.n_pixels * width),
        totals_(remembered * width),
        conserved_(remembered * width),
        polynomial_(std::max(trajectory.n_mu(), trajectory.n_log_j0())),
        work_(n_, width) {
    const index n_laws = trajectory.n_mu() + trajectory.n_log_j0(), n_k = bases.log_k.shape[1];
    const index n_initial = bases.initial.shape[1];
    n_columns_ = static_cast<int>(std::min<index>(width, n_laws + n_k + n_initial + bases.control.shape[1] - first));
    std::fill_n(states_.data(), n_ * width, Real(0));
    std::fill_n(log_k_.data(), log_k_.size(), Real(0));
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
          totals_[l] += states_[i * width + l];
        }
      } else {
        control_lanes_.push_back({l, column - n_laws - n_k - n_initial});
      }
    }
    std::copy_n(totals_.begin(), width, conserved_.begin());
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
  const Real* log_k() const { return log_k_.data(); }  // (n_pixels, width)
  // Lanes that start along a column of the initial basis, and which.
  const std::vector<std::pair<int, index>>& initial_lanes() const { return initial_lanes_; }

 private:
  bool advance(index number) {
    const Step& step = trajectory_.steps[number];
    const Place at = trajectory_.control_at(number + 1);
    // How far the sum of the extrapolation exceeds what is conserved, that of the exact recurrence: left in, rounding
    // would grow from step to step.
    double* conserved = conserved_.data() + (number + 1) % remembered_ * width;
    std::fill_n(conserved, width, 0.0);
    double excess[width] = {}, source[width] = {};
    for (const auto& [l, column] : control_lanes_) {
      const double value = (1 - at.share) * *control_.at(at.before, column) + at.share * *control_.at(at.after, column);
      if (step.matrix.conserves) {
        conserved[l] = static_cast<double>(n_) * step.lead * value;
      } else {
        source[l] = value;
      }
    }
    if (step.matrix.conserves) {
      for (int j = 0; j < step.n_extrapolated; ++j) {
        const index state = (number - j) % remembered_ * width;
        const double weight = j < step.order ? step.weight[j] : 0;
        for (int l = 0; l < width; ++l) {
          conserved[l] += weight * conserved_[state + l];
          excess[l] += step.extrapolation[j] * totals_[state + l];
        }
      }
      for (int l = 0; l < width; ++l) excess[l] -= conserved[l];
    }
    Real away[width], taken[width];
    for (int l = 0; l < width; ++l) {
      away[l] = static_cast<Real>(excess[l] / step.matrix.inverse_sum), taken[l] = static_cast<Real>(source[l]);
    }
    const auto prepare = [&](index first, index last) { prepare_rows(number, first, last, away, taken); };
    Real* next = states_.data() + (number + 1) % remembered_ * n_ * width;
    const auto solved = solve<Real, width>(step.matrix, *trajectory_.coupling, tolerance_, false, prepare, next, work_);
    if (!solved) return false;
    std::copy_n(solved->total, width, totals_.data() + (number + 1) % remembered_ * width);
    return true;
  }

  // Guess and right side of the rows from first to last, of `count` old states or more. Their number is known to the
  // compiler: of a loop over three or five that it does not know more is overhead than work.
  template <int count = 1>
  void prepare_rows(index number, index first, index last, const Real* away, const Real* taken) {
    if constexpr (count <= highest_order) {
      if (trajectory_.steps[number].n_extrapolated > count) {
        return prepare_rows<count + 1>(number, first, last, away, taken);
      }
    }
    prepare_rows_of<count>(number, first, last, away, taken);
  }

  // Of `count` old states, less `away` times what is exchanged and `taken`.
  template <int count>
  void prepare_rows_of(index number, index first, index last, const Real* away, const Real* taken) {
    using V = lanes<Real, width>;
    const Step& step = trajectory_.steps[number];
    Real* next = states_.data() + (number + 1) % remembered_ * n_ * width;
    const Real* old[count];
    Real weight[count], extrapolation[count];
    for (int j = 0; j < count; ++j) {
      old[j] = state(number - j);
      weight[j] = static_cast<Real>(j < step.order ? step.weight[j] : 0);
      extrapolation[j] = static_cast<Real>(step.extrapolation[j]);
    }
    for (index i = first; i < last; ++i) {
      V row = {}, guess = {};
      for (int j = 0; j < count; ++j) {
        const V from = load<width>(old[j] + i * width);
        row += weight[j] * from;
        guess += extrapolation[j] * from;
      }
      const Real scale = static_cast<Real>(step.history[i]), over = static_cast<Real>(step.rate_over_p[i]);
      const V log_k = load<width>(log_k_.data() + trajectory_.coupling->pixel[i] * width);
      store(work_.remainder.data() + i * width, V(scale * row + over * log_k - load<width>(taken)));
      store(next + i * width, V(guess - static_cast<Real>(step.matrix.inverse[i]) * load<width>(away)));
    }
    if (!law_lanes_.empty()) add_laws(number, first, last);
  }

  void add_laws(index number, index first, index last) {
    const Step& step = trajectory_.steps[number];
    const double* c = trajectory_.state(number + 1);
    const index n_mu = trajectory_.n_mu();
    for (index i = first; i < last; ++i) {
      legendre(c[i], static_cast<index>(polynomial_.size()), polynomial_.data());
      for (const int l : law_lanes_) {
        const index column = first_ + l;
        work_.remainder[i * width + l] +=
            static_cast<Real>(column < n_mu ? -polynomial_[column] : step.rate_over_p[i] * polynomial_[column - n_mu]);
      }
    }
  }

  const Trajectory& trajectory_;
  View<const double, 2> control_;
  const index n_, first_, remembered_;
  const Real tolerance_;
  int n_columns_ = 0;
  Buffer<Real> states_, log_k_;
  std::vector<double> totals_, conserved_;  // (remembered, width), sums of the states, and what they are to be
  std::vector<double> polynomial_;
  Workspace<Real> work_;
  std::vector<int> law_lanes_;
  std::vector<std::pair<int, index>> initial_lanes_, control_lanes_;  // lane, column of the basis
};

// Adds the gradients of what has the slopes (n_steps + 1, n_cells) along the states and potential_slope (n_steps,)
// along the potentials of the steps. Changes the slopes.
bool add_adjoint(const Trajectory& trajectory, std::vector<double>& slope, const std::vector<double>& potential_slope,
                 double tolerance, const Gradient& out);

}  // namespace chemomech::kinetics
