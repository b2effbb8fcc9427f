#include <algorithm>
#include <numeric>
#include <utility>

#include "base/buffer.hpp"
#include "base/threads.hpp"
#include "kinetics/trajectory.hpp"

namespace chemomech::kinetics {
namespace {

constexpr int width = lanes_a_chunk;

// One chunk of columns [first, first + width) through the whole half-cycle.
class SensitivityChunk {
 public:
  SensitivityChunk(const Trajectory& trajectory, const Bases& bases, double tolerance, index first, View<double, 3> out)
      : trajectory_(trajectory),
        control_(bases.control),
        out_(out),
        n_(trajectory.n_cells),
        first_(first),
        tolerance_(tolerance),
        right_side_(n_ * width),
        work_(n_, width) {
    n_columns_ = std::min<index>(width, out.shape[2] - first);
    for (auto& state : ring_) state = Buffer<double>(n_ * width);
    const index n_laws = trajectory.n_mu + trajectory.n_log_j0, n_k = bases.log_k.shape[1];
    const index n_initial = bases.initial.shape[1];
    log_k_.assign(trajectory.n_pixels * width, 0.0);
    std::fill_n(ring_[0].data(), n_ * width, 0.0);
    for (index l = 0; l < n_columns_; ++l) {
      const index column = first + l;
      if (column < n_laws) {
        law_columns_.push_back(l);
      } else if (column < n_laws + n_k) {
        for (index i = 0; i < trajectory.n_pixels; ++i) log_k_[i * width + l] = *bases.log_k.at(i, column - n_laws);
      } else if (column < n_laws + n_k + n_initial) {
        for (index i = 0; i < n_; ++i) ring_[0][i * width + l] = *bases.initial.at(i, column - n_laws - n_k);
      } else {
        control_columns_.push_back({l, column - n_laws - n_k - n_initial});
      }
    }
  }

  bool run() {
    write_frames(0);
    for (index step = 0; step < static_cast<index>(trajectory_.steps.size()); ++step) {
      if (!advance(step)) return false;
      write_frames(step + 1);
    }
    return true;
  }

 private:
  double* state(index i) { return ring_[i % ring_size].data(); }

  bool advance(index number) {
    const Step& step = trajectory_.steps[number];
    double* next = state(number + 1);
    const double* old[highest_order + 1];
    for (int j = 0; j < step.n_extrapolated; ++j) old[j] = state(number - j);
    double excess[width] = {};
    for (index i = 0; i < n_; ++i) {
      double row[width] = {}, guess[width] = {};
      for (int j = 0; j < step.order; ++j) {
        for (int l = 0; l < width; ++l) row[l] += step.weight[j] * old[j][i * width + l];
      }
      for (int j = 0; j < step.n_extrapolated; ++j) {
        for (int l = 0; l < width; ++l) guess[l] += step.extrapolation[j] * old[j][i * width + l];
      }
      const double* source = log_k_.data() + trajectory_.coupling->pixel[i] * width;
      const double scale = step.history[i], over = step.rate_over_p[i];
      for (int l = 0; l < width; ++l) {
        right_side_[i * width + l] = scale * row[l] + over * source[l];
        next[i * width + l] = guess[l];
        excess[l] += guess[l] - row[l];
      }
    }
    const Place at = trajectory_.control_at(number + 1);
    for (const auto& [l, column] : control_columns_) {
      const double value = (1 - at.share) * *control_.at(at.before, column) + at.share * *control_.at(at.after, column);
      if (step.matrix.conserves) {
        excess[l] -= static_cast<double>(n_) * step.lead * value;
      } else {
        for (index i = 0; i < n_; ++i) right_side_[i * width + l] -= value;
      }
    }
    // Extrapolation would let rounding of the conserved sum grow from step to step; the recurrence does not.
    if (step.matrix.conserves) {
      for (index i = 0; i < n_; ++i) {
        const double share = step.matrix.inverse[i] / step.matrix.inverse_sum;
        for (int l = 0; l < width; ++l) next[i * width + l] -= share * excess[l];
      }
    }
    if (!law_columns_.empty()) add_laws(number, step, right_side_.data());
    double constant[width];
    return solve<width>(step.matrix, *trajectory_.coupling, right_side_.data(), tolerance_, false, next, constant,
                        work_);
  }

  void add_laws(index number, const Step& step, double* next) {
    const double* c = trajectory_.state(number + 1);
    const index n_mu = trajectory_.n_mu;
    std::vector<double> polynomial(std::max(n_mu, trajectory_.n_log_j0));
    for (index i = 0; i < n_; ++i) {
      legendre(c[i], static_cast<index>(polynomial.size()), polynomial.data());
      for (const index l : law_columns_) {
        const index column = first_ + l;
        next[i * width + l] += column < n_mu ? -polynomial[column] : step.rate_over_p[i] * polynomial[column - n_mu];
      }
    }
  }

  void write_frames(index newest) {
    for (; next_frame_ < static_cast<index>(trajectory_.frames.size()); ++next_frame_) {
      const Frame& frame = trajectory_.frames[next_frame_];
      if (frame.newest != newest) return;
      std::vector<double> mean(trajectory_.n_pixels * width, 0.0);
      for (int j = 0; j < frame.count; ++j) {
        const double* from = state(newest - j);
        for (index i = 0; i < n_; ++i) {
          const double share = frame.weight[j] * trajectory_.pixel_share[i];
          double* to = mean.data() + trajectory_.coupling->pixel[i] * width;
          for (int l = 0; l < width; ++l) to[l] += share * from[i * width + l];
        }
      }
      for (index i = 0; i < trajectory_.n_pixels; ++i) {
        std::copy_n(mean.data() + i * width, n_columns_, out_.at(next_frame_, i) + first_);
      }
    }
  }

  static constexpr int ring_size = highest_order + 2;
  const Trajectory& trajectory_;
  View<const double, 2> control_;
  View<double, 3> out_;
  const index n_, first_;
  const double tolerance_;
  index n_columns_ = 0, next_frame_ = 0;
  std::array<Buffer<double>, ring_size> ring_;
  std::vector<double> log_k_, right_side_;
  Workspace work_;
  std::vector<index> law_columns_;
  std::vector<std::pair<index, index>> control_columns_;  // lane, column of the basis
};

}  // namespace

bool sensitivities(const Trajectory& trajectory, const Bases& bases, double tolerance, bool threads,
                   View<double, 3> out) {
  const index n_chunks = (out.shape[2] + width - 1) / width;
  std::vector<char> solved(n_chunks, 1);
  const auto run = [&](index chunk) {
    solved[chunk] = SensitivityChunk(trajectory, bases, tolerance, chunk * width, out).run() ? 1 : 0;
  };
  if (threads) {
    for_tasks(n_chunks, run);
  } else {
    for (index chunk = 0; chunk < n_chunks; ++chunk) run(chunk);
  }
  return std::find(solved.begin(), solved.end(), 0) == solved.end();
}

bool adjoint(const Trajectory& trajectory, View<const double, 2> weights, double tolerance, const Gradient& out) {
  const index n = trajectory.n_cells, n_steps = static_cast<index>(trajectory.steps.size());
  std::vector<double> bar((n_steps + 1) * n, 0.0), source(n);
  Workspace work(n, 1);
  std::vector<double> polynomial(std::max(trajectory.n_mu, trajectory.n_log_j0));
  for (index f = 0; f < static_cast<index>(trajectory.frames.size()); ++f) {
    const Frame& frame = trajectory.frames[f];
    for (int j = 0; j < frame.count; ++j) {
      double* to = bar.data() + (frame.newest - j) * n;
      for (index i = 0; i < n; ++i) {
        to[i] += frame.weight[j] * trajectory.pixel_share[i] * *weights.at(f, trajectory.coupling->pixel[i]);
      }
    }
  }
  for (const auto& gradient : {out.mu, out.log_j0, out.log_k, out.control})
    std::fill_n(gradient.data, gradient.size(), 0.0);
  for (index number = n_steps; number-- > 0;) {
    const Step& step = trajectory.steps[number];
    const double* own = bar.data() + (number + 1) * n;
    const double* c = trajectory.state(number + 1);
    double constant = 0;
    std::fill(source.begin(), source.end(), 0.0);
    if (!solve<1>(step.matrix, *trajectory.coupling, own, tolerance, false, source.data(), &constant, work))
      return false;
    for (index i = 0; i < n; ++i) {
      legendre(c[i], static_cast<index>(polynomial.size()), polynomial.data());
      const double along_k = step.rate_over_p[i] * source[i];
      for (index m = 0; m < trajectory.n_mu; ++m) out.mu.data[m] -= source[i] * polynomial[m];
      for (index m = 0; m < trajectory.n_log_j0; ++m) out.log_j0.data[m] += along_k * polynomial[m];
      out.log_k.data[trajectory.coupling->pixel[i]] += along_k;
    }
    const Place at = trajectory.control_at(number + 1);
    const double along_control = step.matrix.conserves ? static_cast<double>(n) * step.lead * constant
                                                       : -std::accumulate(source.begin(), source.end(), 0.0);
    out.control.data[at.before] += (1 - at.share) * along_control;
    out.control.data[at.after] += at.share * along_control;
    for (int j = 0; j < step.order; ++j) {
      double* to = bar.data() + (number - j) * n;
      for (index i = 0; i < n; ++i) to[i] += step.weight[j] * (step.history[i] * source[i] + constant);
    }
  }
  std::copy_n(bar.data(), n, out.initial.data);
  return true;
}

}  // namespace chemomech::kinetics
