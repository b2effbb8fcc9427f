#include "kinetics/trajectory.hpp"

#include <algorithm>
#include <cmath>

namespace chemomech::kinetics {
namespace {

constexpr int newton_limit = 10;
constexpr double newton_share = 0.01;   // of the tolerance on the local error
constexpr double newton_floor = 1e-14;  // of c, what rounding lets a correction reach
constexpr double newton_inexactness = 0.02;
constexpr double straight_change = 0.1, longest_change = 3;  // of ln(c / (1 - c)) in an iteration
constexpr double safety = 0.85;
constexpr double least_growth = 1.2, most_growth = 2, least_shrinkage = 0.2, newton_shrinkage = 0.3;
constexpr double largest_over_mean = 30;  // error of a single cell that is as bad as the RMS error of all
constexpr double shortest_step = 1e-9;    // of the duration

double norm(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

// `to`, but from `from` in (0, 1) no more than most of the way to 0 or 1, where the chemical potential is infinite.
double towards(double from, double to) {
  constexpr double kept = 0.2;
  return std::clamp(to, kept * from, 1 - kept * (1 - from));
}

class Integrator {
 public:
  Integrator(const Particle& particle, const Laws& laws, const Control& control, double tolerance, Trajectory& out)
      : particle_(particle),
        laws_(laws),
        control_(control),
        tolerance_(tolerance),
        out_(out),
        n_(particle.n_cells()),
        rates_(n_),
        history_(n_),
        predicted_(n_),
        state_(n_),
        change_(n_),
        right_side_(n_),
        work_(n_, 1) {}

  // To `end` from the single state in the trajectory, calling back after every step.
  template <class AfterStep>
  void run(double end, index most_steps, const AfterStep& after_step) {
    const double start = out_.time[0];
    if (!evaluate_rates(out_.state(0), start)) return;
    out_.potential.push_back(rates_.potential);
    initial_rate_ = rates_.rate;
    double h = std::min(0.5 * std::sqrt(tolerance_) / std::max(norm(rates_.rate), 1e-300), end - start);
    for (index tried = 0; out_.time.back() < end && tried < most_steps; ++tried) {
      const double now = out_.time.back(), left = end - now;
      if (h < shortest_step * (end - start)) return;
      h = h >= left ? left : std::min(h, std::max(0.5 * left, left - h));  // no sliver at the end
      double error = 0;
      if (!attempt(h >= left ? end : now + h)) {
        h *= newton_shrinkage;
        ++out_.n_rejected;
        continue;
      }
      error = step_.lead / (step_.lead + reach_) * norm_of_difference() / tolerance_;
      if (error > 1) {
        h *= std::max(least_shrinkage, safety * std::pow(error, -1.0 / (step_.order + 1)));
        ++out_.n_rejected;
        if (++rejected_in_a_row_ > 2 && order_ > 1) --order_, steps_at_order_ = 0;
        continue;
      }
      rejected_in_a_row_ = 0;
      accept();
      after_step();
      h *= choose_order();
    }
  }

 private:
  bool evaluate_rates(const double* c, double t) {
    ++out_.n_evaluations;
    return evaluate(particle_, laws_, control_, t, c, rates_);
  }

  const double* past(int j) const { return out_.state(static_cast<index>(out_.time.size()) - j); }  // 1 is the last
  double past_time(int j) const { return out_.time[out_.time.size() - static_cast<std::size_t>(j)]; }

  void make_step(double t) {
    const int k = order_;
    step_ = Step{};
    step_.order = k;
    double lead = 0;
    for (int j = 1; j <= k; ++j) lead += 1 / (t - past_time(j));
    step_.lead = 1 / lead;
    for (int j = 1; j <= k; ++j) {
      double top = 1, bottom = past_time(j) - t;
      for (int m = 1; m <= k; ++m) {
        if (m == j) continue;
        top *= t - past_time(m);
        bottom *= past_time(j) - past_time(m);
      }
      step_.weight[j - 1] = -step_.lead * top / bottom;
    }
    std::fill(history_.begin(), history_.end(), 0.0);
    for (int j = 1; j <= k; ++j) {
      for (index i = 0; i < n_; ++i) history_[i] += step_.weight[j - 1] * past(j)[i];
    }
    if (out_.time.size() == 1) {  // nothing to extrapolate from but the rate
      const double h = t - past_time(1);
      reach_ = h;
      step_.extrapolation[0] = 1;
      for (index i = 0; i < n_; ++i) predicted_[i] = past(1)[i] + h * initial_rate_[i];
      return;
    }
    reach_ = t - past_time(k + 1);
    step_.n_extrapolated = k + 1;
    std::fill(predicted_.begin(), predicted_.end(), 0.0);
    for (int j = 1; j <= k + 1; ++j) {
      double weight = 1;
      for (int m = 1; m <= k + 1; ++m) {
        if (m != j) weight *= (t - past_time(m)) / (past_time(j) - past_time(m));
      }
      step_.extrapolation[j - 1] = weight;
      for (index i = 0; i < n_; ++i) predicted_[i] += weight * past(j)[i];
    }
  }

  // change_ = -(1 - lead df/dy)^-1 residual. Where the mean rate is prescribed its sum is exactly minus that of the
  // residual, which is what the rate asks for.
  bool correct() {
    const StepMatrix matrix(step_diagonal(rates_, step_.lead), *particle_.coupling, control_.galvanostatic);
    double wanted = 0;
    for (index i = 0; i < n_; ++i) {
      const double residual = state_[i] - history_[i] - step_.lead * rates_.rate[i];
      wanted -= residual;
      right_side_[i] = -residual / (step_.lead * rates_.p[i]);
    }
    const double guess = control_.galvanostatic ? wanted / matrix.inverse_sum : 0;
    for (index i = 0; i < n_; ++i) change_[i] = guess * matrix.inverse[i];
    return solve<double, 1>(matrix, *particle_.coupling, right_side_.data(), newton_inexactness, true, change_.data(),
                            work_)
        .has_value();
  }

  // state_ + change_; false where a cell went another way, for changes that are no longer small beside c (1 - c). There
  // ln(c / (1 - c)) changes as Newton's method says: close to 0 and 1 the equations are linear in that, not in c.
  bool move_inside() {
    bool straight = true;
    for (index i = 0; i < n_; ++i) {
      const double c = state_[i], relative = change_[i] / (c * (1 - c));
      if (std::abs(relative) < straight_change) {
        state_[i] = c + change_[i];
      } else {
        const double odds = c / (1 - c) * std::exp(std::clamp(relative, -longest_change, longest_change));
        state_[i] = odds / (1 + odds);
        straight = false;
      }
    }
    return straight;
  }

  // Newton's method at time t; the state ends in state_.
  bool attempt(double t) {
    make_step(t);
    new_time_ = t;
    for (index i = 0; i < n_; ++i) state_[i] = towards(past(1)[i], predicted_[i]);
    double before = 0;
    for (int iteration = 0; iteration < newton_limit; ++iteration) {
      if (!evaluate_rates(state_.data(), t) || !correct()) return false;
      const double size = norm(change_);
      const double contraction = iteration > 0 ? size / before : 0.1;
      if (!std::isfinite(size) || contraction > 2) return false;
      const bool straight = move_inside();
      const double left = size * std::min(contraction / std::max(1 - contraction, 0.1), 1.0);
      if (straight && (left < newton_share * tolerance_ || size < newton_floor)) return true;
      before = size;
    }
    return false;
  }

  double norm_of_difference() const {
    double sum = 0, largest = 0;
    for (index i = 0; i < n_; ++i) {
      const double square = (state_[i] - predicted_[i]) * (state_[i] - predicted_[i]);
      sum += square;
      largest = std::max(largest, square);
    }
    return norm_of(sum, largest);
  }

  // Of the squares' sum and the largest: RMS over the cells, or that of a cell far beyond it, as a few may react fast.
  double norm_of(double sum, double largest) const {
    return std::sqrt(std::max(sum / static_cast<double>(n_), largest / (largest_over_mean * largest_over_mean)));
  }

  void accept() {
    if (out_.derivatives) {
      evaluate_rates(state_.data(), new_time_);
      step_.matrix = StepMatrix(step_diagonal(rates_, step_.lead), *particle_.coupling, control_.galvanostatic);
      step_.history.resize(n_), step_.rate_over_p.resize(n_);
      for (index i = 0; i < n_; ++i) {
        step_.history[i] = 1 / (step_.lead * rates_.p[i]);
        step_.rate_over_p[i] = rates_.rate[i] / rates_.p[i];
      }
    }
    out_.time.push_back(new_time_);
    out_.states.insert(out_.states.end(), state_.begin(), state_.end());
    out_.potential.push_back(rates_.potential);
    out_.steps.push_back(std::move(step_));
    ++steps_at_order_;
  }

  // RMS local error over the tolerance of order m at the last step: lead * product of the distances to the last m
  // times * divided difference of order m + 1.
  double error_of_order(int m) const {
    const double t = past_time(1);
    double lead = 0, product = 1;
    for (int j = 2; j <= m + 1; ++j) {
      lead += 1 / (t - past_time(j));
      product *= t - past_time(j);
    }
    std::array<double, highest_order + 3> weight{};
    for (int j = 1; j <= m + 2; ++j) {
      weight[j] = product / lead;
      for (int l = 1; l <= m + 2; ++l) {
        if (l != j) weight[j] /= past_time(j) - past_time(l);
      }
    }
    double sum = 0, largest = 0;
    for (index i = 0; i < n_; ++i) {
      double value = 0;
      for (int j = 1; j <= m + 2; ++j) value += weight[j] * past(j)[i];
      sum += value * value;
      largest = std::max(largest, value * value);
    }
    return norm_of(sum, largest) / tolerance_;
  }

  // The order of the next step; returns the factor on the step size.
  double choose_order() {
    const int n_states = static_cast<int>(std::min<std::size_t>(out_.time.size(), highest_order + 3));
    double best = 0;
    int best_order = order_;
    const bool may_change = steps_at_order_ > order_;
    for (int m = std::max(1, order_ - 1); m <= std::min(highest_order, order_ + 1); ++m) {
      if (m + 2 > n_states || (m != order_ && !may_change)) continue;
      const double growth = safety * std::pow(std::max(error_of_order(m), 1e-10), -1.0 / (m + 1));
      if (growth > best) best = growth, best_order = m;
    }
    if (best == 0) return 1;
    if (best_order != order_) order_ = best_order, steps_at_order_ = 0;
    return best < 1 ? std::max(best, 0.5) : best < least_growth ? 1 : std::min(best, most_growth);
  }

  const Particle& particle_;
  const Laws& laws_;
  const Control& control_;
  const double tolerance_;
  Trajectory& out_;
  const index n_;
  Rates rates_;
  std::vector<double> history_, predicted_, state_, change_, right_side_, initial_rate_;
  Workspace<double> work_;
  Step step_;
  double reach_ = 0, new_time_ = 0;
  int order_ = 1, steps_at_order_ = 0, rejected_in_a_row_ = 0;
};

// The polynomial of the step just made, at time t.
Frame interpolate(const Trajectory& trajectory, double t) {
  Frame frame;
  frame.newest = static_cast<index>(trajectory.steps.size());
  frame.count = trajectory.steps.back().order + 1;
  for (int j = 0; j < frame.count; ++j) {
    frame.weight[j] = 1;
    for (int m = 0; m < frame.count; ++m) {
      if (m == j) continue;
      const double other = trajectory.time[frame.newest - m];
      frame.weight[j] *= (t - other) / (trajectory.time[frame.newest - j] - other);
    }
  }
  return frame;
}

}  // namespace

Trajectory integrate(const Particle& particle, const Laws& laws, const Control& control, const double* initial,
                     View<const double, 1> frame_time, double tolerance, index most_steps, bool derivatives) {
  Trajectory out;
  out.coupling = particle.coupling;
  out.n_cells = particle.n_cells(), out.n_pixels = particle.coupling->n_pixels;
  out.mu.assign(laws.mu.data, laws.mu.data + laws.mu.size());
  out.log_j0.assign(laws.log_j0.data, laws.log_j0.data + laws.log_j0.size());
  out.alpha = laws.alpha;
  out.derivatives = derivatives;
  out.control_time.assign(control.time.data, control.time.data + control.time.shape[0]);
  std::vector<double> cells(out.n_pixels, 0.0);
  for (const std::int32_t pixel : out.coupling->pixel) cells[pixel] += 1;
  out.pixel_share.resize(out.n_cells);
  for (index i = 0; i < out.n_cells; ++i) out.pixel_share[i] = 1 / cells[out.coupling->pixel[i]];
  out.time.push_back(frame_time.data[0]);
  out.states.assign(initial, initial + out.n_cells);
  Frame first;
  first.weight[0] = 1;
  out.frames.push_back(first);
  const index n_frames = frame_time.shape[0];
  Integrator(particle, laws, control, tolerance, out).run(frame_time.data[n_frames - 1], most_steps, [&] {
    for (index next = static_cast<index>(out.frames.size());
         next < n_frames && frame_time.data[next] <= out.time.back(); ++next) {
      out.frames.push_back(interpolate(out, frame_time.data[next]));
    }
  });
  return out;
}

void frames_of(const Trajectory& trajectory, View<double, 2> out) {
  std::fill_n(out.data, out.size(), 0.0);
  for (index f = 0; f < static_cast<index>(trajectory.frames.size()); ++f) {
    const Frame& frame = trajectory.frames[f];
    for (int j = 0; j < frame.count; ++j) {
      const double* from = trajectory.state(frame.newest - j);
      for (index i = 0; i < trajectory.n_cells; ++i) {
        *out.at(f, trajectory.coupling->pixel[i]) += frame.weight[j] * trajectory.pixel_share[i] * from[i];
      }
    }
  }
}

}  // namespace chemomech::kinetics
