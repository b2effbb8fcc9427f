#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/threads.hpp"
#include "kinetics/sensitivity_chunk.hpp"

namespace chemomech::kinetics {
namespace {

// Least tolerance that single precision reaches.
constexpr double least_single_tolerance = 1e-5;
// Of the tolerance, what single precision may add to it.
constexpr double single_share = 0.5;

// Writes the frames that end with the newest state, of the columns [first, first + chunk.n_columns()) of out.
template <class Real>
void write_frames(const Trajectory& trajectory, const SensitivityChunk<Real>& chunk, index newest, index first,
                  View<double, 3> out) {
  constexpr int width = SensitivityChunk<Real>::width;
  for (index f = 0; f < static_cast<index>(trajectory.frames.size()); ++f) {
    const Frame& frame = trajectory.frames[f];
    if (frame.newest != newest) continue;
    std::vector<double> mean(trajectory.n_pixels * width, 0.0);
    for (int j = 0; j < frame.count; ++j) {
      const Real* from = chunk.state(newest - j);
      for (index i = 0; i < trajectory.n_cells; ++i) {
        const double share = frame.weight[j] * trajectory.pixel_share[i];
        double* to = mean.data() + trajectory.coupling->pixel[i] * width;
        for (int l = 0; l < width; ++l) to[l] += share * from[i * width + l];
      }
    }
    for (index i = 0; i < trajectory.n_pixels; ++i) {
      std::copy_n(mean.data() + i * width, chunk.n_columns(), out.at(f, i) + first);
    }
  }
}

// By how much the recurrence of the steps alone, without what damps it, can make an error of one state grow: steps that
// double again and again at high order are not zero-stable, and after a few of them rounding is all there is.
double recurrence_growth(const Trajectory& trajectory) {
  const index n = static_cast<index>(trajectory.steps.size());
  double most = 1;
  std::vector<double> error(n + 1);
  for (index first = 0; first < n; ++first) {
    std::fill(error.begin(), error.end(), 0.0);
    error[first] = 1;
    for (index number = first; number < n; ++number) {
      const Step& step = trajectory.steps[number];
      for (int j = 0; j < std::min<index>(step.order, number + 1); ++j) {
        error[number + 1] += step.weight[j] * error[number - j];
      }
      most = std::max(most, std::abs(error[number + 1]));
    }
  }
  return most;
}

}  // namespace

bool solves_in_single(const Trajectory& trajectory, double tolerance) {
  constexpr double rounding = std::numeric_limits<float>::epsilon();
  return tolerance >= least_single_tolerance && rounding * recurrence_growth(trajectory) < single_share * tolerance;
}

bool sensitivities(const Trajectory& trajectory, const Bases& bases, double tolerance, bool threads,
                   View<double, 3> out) {
  const index n_chunks = (out.shape[2] + lanes_a_chunk - 1) / lanes_a_chunk;
  const bool single = solves_in_single(trajectory, tolerance);
  std::vector<char> solved(n_chunks, 1);
  const auto run = [&](index number) {
    const auto through = [&]<class Real>(Real) {
      const index first = number * lanes_a_chunk;
      SensitivityChunk<Real> chunk(trajectory, bases, tolerance, first, highest_order + 2);
      return chunk.run([&](index newest) { write_frames(trajectory, chunk, newest, first, out); });
    };
    solved[number] = (single && through(float())) || through(double());
  };
  if (threads) {
    for_tasks(n_chunks, run);
  } else {
    for (index number = 0; number < n_chunks; ++number) run(number);
  }
  return std::find(solved.begin(), solved.end(), 0) == solved.end();
}

bool add_adjoint(const Trajectory& trajectory, std::vector<double>& slope, const std::vector<double>& potential_slope,
                 double tolerance, const Gradient& out) {
  const index n = trajectory.n_cells;
  std::vector<double> solution(n);
  Workspace<double> work(n, 1);
  std::vector<double> polynomial(std::max(trajectory.n_mu(), trajectory.n_log_j0()));
  for (index number = static_cast<index>(trajectory.steps.size()); number-- > 0;) {
    const Step& step = trajectory.steps[number];
    const double* own = slope.data() + (number + 1) * n;
    const double* c = trajectory.state(number + 1);
    for (index i = 0; i < n; ++i) {
      solution[i] = potential_slope[number] * step.matrix.inverse[i] / step.matrix.inverse_sum;
    }
    const auto solved =
        solve<double, 1>(step.matrix, *trajectory.coupling, own, tolerance, false, solution.data(), work);
    if (!solved) return false;
    const double constant = solved->constant[0];
    for (index i = 0; i < n; ++i) {
      legendre(c[i], static_cast<index>(polynomial.size()), polynomial.data());
      const double along_k = step.rate_over_p[i] * solution[i];
      for (index m = 0; m < trajectory.n_mu(); ++m) out.mu.data[m] -= solution[i] * polynomial[m];
      for (index m = 0; m < trajectory.n_log_j0(); ++m) out.log_j0.data[m] += along_k * polynomial[m];
      out.log_k.data[trajectory.coupling->pixel[i]] += along_k;
    }
    const Place at = trajectory.control_at(number + 1);
    const double along_control = step.matrix.conserves
                                     ? static_cast<double>(n) * step.lead * constant
                                     : potential_slope[number] - std::accumulate(solution.begin(), solution.end(), 0.0);
    out.control.data[at.before] += (1 - at.share) * along_control;
    out.control.data[at.after] += at.share * along_control;
    for (int j = 0; j < step.order; ++j) {
      double* to = slope.data() + (number - j) * n;
      for (index i = 0; i < n; ++i) to[i] += step.weight[j] * (step.history[i] * solution[i] + constant);
    }
  }
  for (index i = 0; i < n; ++i) out.initial.data[i] += slope[i];
  return true;
}

bool adjoint(const Trajectory& trajectory, View<const double, 2> weights, double tolerance, const Gradient& out) {
  const index n = trajectory.n_cells, n_steps = static_cast<index>(trajectory.steps.size());
  std::vector<double> slope((n_steps + 1) * n, 0.0);
  for (index f = 0; f < static_cast<index>(trajectory.frames.size()); ++f) {
    const Frame& frame = trajectory.frames[f];
    for (int j = 0; j < frame.count; ++j) {
      double* to = slope.data() + (frame.newest - j) * n;
      for (index i = 0; i < n; ++i) {
        to[i] += frame.weight[j] * trajectory.pixel_share[i] * *weights.at(f, trajectory.coupling->pixel[i]);
      }
    }
  }
  return add_adjoint(trajectory, slope, std::vector<double>(n_steps, 0.0), tolerance, out);
}

}  // namespace chemomech::kinetics
