#include "kinetics/trajectory.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/threads.hpp"

namespace chemomech::kinetics {
namespace {

constexpr int newton_limit = 10;
constexpr double newton_share = 0.01;   // of the tolerance on the local error
constexpr double newton_floor = 1e-14;  // of c, what rounding lets a correction reach
constexpr double newton_inexactness = 0.02;
constexpr int krylov_limit = 40;  // beyond that a factorisation is cheaper
constexpr double straight_change = 0.1, longest_change = 3;  // of ln(c / (1 - c)) in an iteration
constexpr double safety = 0.85;
constexpr double least_growth = 1.2, most_growth = 2, least_shrinkage = 0.2, newton_shrinkage = 0.3;
constexpr double shortest_step = 1e-9;  // of the duration

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
        diagonal_(n_),
        preconditioner_(n_),
        gradient_diagonal_(n_),
        remainder_(n_),
        conditioned_(n_),
        direction_(n_),
        image_(n_),
        history_scale_(n_),
        shift_(n_),
        history_(n_),
        predicted_(n_),
        state_(n_),
        change_(n_) {
    for (index i = 0; i < n_; ++i) {
      for (index e = particle.indptr.data[i]; e < particle.indptr.data[i + 1]; ++e) {
        if (particle.indices.data[e] == i) gradient_diagonal_[i] += particle.values.data[e];
      }
    }
  }

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
      if (!accept()) return;
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
      for (index i = 0; i < n_; ++i) predicted_[i] = past(1)[i] + h * initial_rate_[i];
      return;
    }
    reach_ = t - past_time(k + 1);
    std::fill(predicted_.begin(), predicted_.end(), 0.0);
    for (int j = 1; j <= k + 1; ++j) {
      double weight = 1;
      for (int m = 1; m <= k + 1; ++m) {
        if (m != j) weight *= (t - past_time(m)) / (past_time(j) - past_time(m));
      }
      for (index i = 0; i < n_; ++i) predicted_[i] += weight * past(j)[i];
    }
  }

  // The step matrix at the present rates, factored into `factor`, and what belongs to it.
  bool refactor(StepMatrix& factor) {
    ++out_.n_factorisations;
    assemble(particle_, rates_, step_.lead, factor.band);
    if (!factorise(factor, particle_.coherency)) return false;
    for (index i = 0; i < n_; ++i) history_scale_[i] = 1 / (step_.lead * rates_.p[i]);
    if (!control_.galvanostatic) {
      shift_sum_ = std::numeric_limits<double>::infinity();
      return true;
    }
    std::fill(shift_.begin(), shift_.end(), 1.0);
    solve(factor, particle_.coherency, shift_.data());
    shift_sum_ = std::accumulate(shift_.begin(), shift_.end(), 0.0);
    return std::isfinite(shift_sum_) && shift_sum_ != 0;
  }

  // change_ = -(1 - lead df/dy)^-1 residual. Where the mean rate is prescribed its sum is exactly minus that of the
  // residual, which is what the rate asks for.
  bool correct() {
    double wanted = 0;
    for (index i = 0; i < n_; ++i) {
      const double residual = state_[i] - history_[i] - step_.lead * rates_.rate[i];
      const double scale = 1 / (step_.lead * rates_.p[i]);
      wanted -= residual;
      remainder_[i] = -residual * scale;
      diagonal_[i] = (1 - step_.lead * rates_.rate[i] * rates_.s[i]) * scale + rates_.curvature[i];
    }
    if (correct_by_iteration(wanted)) return true;
    StepMatrix factor(n_, particle_.bandwidth, particle_.coherency.rank);
    if (!refactor(factor)) return false;
    for (index i = 0; i < n_; ++i) {
      change_[i] = -(state_[i] - history_[i] - step_.lead * rates_.rate[i]) * history_scale_[i];
    }
    solve(factor, particle_.coherency, change_.data());
    const double excess = (std::accumulate(change_.begin(), change_.end(), 0.0) - wanted) / shift_sum_;
    for (index i = 0; i < n_; ++i) change_[i] -= excess * shift_[i];
    return true;
  }

  // Conjugate gradients, in the plane of the wanted sum where the mean rate is prescribed (Gould, Hribar & Nocedal
  // 2001), with the diagonal as preconditioner: a step is short on the time of diffusion between neighbours, so that a
  // few iterations do. False when the matrix is not positive or too many are needed.
  bool correct_by_iteration(double wanted) {
    double total = 0;
    for (index i = 0; i < n_; ++i) {
      const double entry = diagonal_[i] + gradient_diagonal_[i];
      if (!(entry > 0)) return false;
      preconditioner_[i] = 1 / entry;
      total += preconditioner_[i];
    }
    const double start = control_.galvanostatic ? wanted / total : 0;
    for (index i = 0; i < n_; ++i) change_[i] = start * preconditioner_[i];
    apply(change_, image_);
    for (index i = 0; i < n_; ++i) remainder_[i] -= image_[i];
    double product = condition(total), first = product;
    direction_ = conditioned_;
    for (int iteration = 0; iteration < krylov_limit; ++iteration) {
      if (product <= newton_inexactness * newton_inexactness * first) return std::isfinite(product);
      apply(direction_, image_);
      double bend = 0;
      for (index i = 0; i < n_; ++i) bend += direction_[i] * image_[i];
      if (!(bend > 0)) return false;
      const double along = product / bend;
      for (index i = 0; i < n_; ++i) {
        change_[i] += along * direction_[i];
        remainder_[i] -= along * image_[i];
      }
      const double next = condition(total), turn = next / product;
      for (index i = 0; i < n_; ++i) direction_[i] = conditioned_[i] + turn * direction_[i];
      product = next;
    }
    return false;
  }

  // conditioned_ of remainder_, of sum zero where the mean rate is prescribed; returns their product.
  double condition(double total) {
    double shift = 0, product = 0;
    if (control_.galvanostatic) {
      for (index i = 0; i < n_; ++i) shift += preconditioner_[i] * remainder_[i];
      shift /= total;
    }
    for (index i = 0; i < n_; ++i) {
      conditioned_[i] = preconditioner_[i] * (remainder_[i] - shift);
      product += conditioned_[i] * remainder_[i];
    }
    return product;
  }

  // (diagonal_ + G + E) x.
  void apply(const std::vector<double>& x, std::vector<double>& out) const {
    for (index i = 0; i < n_; ++i) {
      double sum = diagonal_[i] * x[i];
      for (index e = particle_.indptr.data[i]; e < particle_.indptr.data[i + 1]; ++e) {
        sum += particle_.values.data[e] * x[particle_.indices.data[e]];
      }
      out[i] = sum;
    }
    if (particle_.coherency.rank == 0) return;
    std::vector<double> amplitude(particle_.coherency.rank);
    particle_.coherency.project<1>(x.data(), amplitude.data());
    particle_.coherency.spread<1>(amplitude.data(), out.data());
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
    double sum = 0;
    for (index i = 0; i < n_; ++i) sum += (state_[i] - predicted_[i]) * (state_[i] - predicted_[i]);
    return std::sqrt(sum / static_cast<double>(n_));
  }

  // False when the step matrix at the new state is singular.
  bool accept() {
    if (out_.derivatives) {
      step_.factor = StepMatrix(n_, particle_.bandwidth, particle_.coherency.rank);
      if (!evaluate_rates(state_.data(), new_time_) || !refactor(step_.factor)) return false;
      step_.shift = shift_, step_.shift_sum = shift_sum_, step_.history = history_scale_;
      step_.rate_over_p.resize(n_);
      for (index i = 0; i < n_; ++i) step_.rate_over_p[i] = rates_.rate[i] / rates_.p[i];
    }
    out_.time.push_back(new_time_);
    out_.states.insert(out_.states.end(), state_.begin(), state_.end());
    out_.potential.push_back(rates_.potential);
    out_.steps.push_back(std::move(step_));
    ++steps_at_order_;
    return true;
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
    double sum = 0;
    for (index i = 0; i < n_; ++i) {
      double value = 0;
      for (int j = 1; j <= m + 2; ++j) value += weight[j] * past(j)[i];
      sum += value * value;
    }
    return std::sqrt(sum / static_cast<double>(n_)) / tolerance_;
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
  std::vector<double> diagonal_, preconditioner_, gradient_diagonal_, remainder_, conditioned_, direction_, image_;
  std::vector<double> history_scale_, shift_, history_, predicted_, state_, change_, initial_rate_;
  Step step_;
  double shift_sum_ = 0, reach_ = 0, new_time_ = 0;
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

constexpr int width = lanes_a_chunk;

// One chunk of columns [first, first + width) through the whole half-cycle.
class SensitivityChunk {
 public:
  SensitivityChunk(const Trajectory& trajectory, View<const double, 2> log_k_basis, View<const double, 2> initial_basis,
                   index first, View<double, 3> out)
      : trajectory_(trajectory), out_(out), n_(trajectory.n_cells), first_(first) {
    n_columns_ = std::min<index>(width, out.shape[2] - first);
    for (auto& state : ring_) state = Buffer<double>(n_ * width);
    const index n_laws = trajectory.n_mu + trajectory.n_log_j0, n_k = log_k_basis.shape[1];
    log_k_.assign(trajectory.n_pixels * width, 0.0);
    std::fill_n(ring_[0].data(), n_ * width, 0.0);
    for (index l = 0; l < n_columns_; ++l) {
      const index column = first + l;
      if (column < n_laws) {
        law_columns_.push_back(l);
      } else if (column < n_laws + n_k) {
        for (index i = 0; i < trajectory.n_pixels; ++i) log_k_[i * width + l] = *log_k_basis.at(i, column - n_laws);
      } else {
        for (index i = 0; i < n_; ++i) ring_[0][i * width + l] = *initial_basis.at(i, column - n_laws - n_k);
      }
    }
  }

  void run() {
    write_frames(0);
    for (index step = 0; step < static_cast<index>(trajectory_.steps.size()); ++step) {
      advance(step);
      write_frames(step + 1);
    }
  }

 private:
  double* state(index i) { return ring_[i % ring_size].data(); }

  void advance(index number) {
    const Step& step = trajectory_.steps[number];
    double* next = state(number + 1);
    double total[width] = {};
    const double* old[highest_order];
    for (int j = 0; j < step.order; ++j) old[j] = state(number - j);
    for (index i = 0; i < n_; ++i) {
      double row[width];
      for (int l = 0; l < width; ++l) row[l] = step.weight[0] * old[0][i * width + l];
      for (int j = 1; j < step.order; ++j) {
        for (int l = 0; l < width; ++l) row[l] += step.weight[j] * old[j][i * width + l];
      }
      const double* source = log_k_.data() + trajectory_.pixel[i] * width;
      const double scale = step.history[i], over = step.rate_over_p[i];
      for (int l = 0; l < width; ++l) {
        total[l] += row[l];
        next[i * width + l] = scale * row[l] + over * source[l];
      }
    }
    if (!law_columns_.empty()) add_laws(number, step, next);
    solve_lanes(step.factor, trajectory_.coherency, next);
    double excess[width] = {};
    for (index i = 0; i < n_; ++i) {
      for (int l = 0; l < width; ++l) excess[l] += next[i * width + l];
    }
    for (int l = 0; l < width; ++l) excess[l] = (excess[l] - total[l]) / step.shift_sum;
    for (index i = 0; i < n_; ++i) {
      for (int l = 0; l < width; ++l) next[i * width + l] -= excess[l] * step.shift[i];
    }
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
          double* to = mean.data() + trajectory_.pixel[i] * width;
          for (int l = 0; l < width; ++l) to[l] += share * from[i * width + l];
        }
      }
      for (index i = 0; i < trajectory_.n_pixels; ++i) {
        std::copy_n(mean.data() + i * width, n_columns_, out_.at(next_frame_, i) + first_);
      }
    }
  }

  static constexpr int ring_size = highest_order + 1;
  const Trajectory& trajectory_;
  View<double, 3> out_;
  const index n_, first_;
  index n_columns_ = 0, next_frame_ = 0;
  std::array<Buffer<double>, ring_size> ring_;
  std::vector<double> log_k_;
  std::vector<index> law_columns_;
};

}  // namespace

Trajectory integrate(const Particle& particle, const Laws& laws, const Control& control, const double* initial,
                     View<const double, 1> frame_time, double tolerance, index most_steps, bool derivatives) {
  Trajectory out;
  out.n_cells = particle.n_cells(), out.n_pixels = particle.n_pixels;
  out.n_mu = laws.mu.shape[0], out.n_log_j0 = laws.log_j0.shape[0];
  out.derivatives = derivatives;
  out.coherency = particle.coherency;
  out.pixel.assign(particle.pixel.data, particle.pixel.data + out.n_cells);
  std::vector<double> cells(out.n_pixels, 0.0);
  for (const std::int32_t pixel : out.pixel) cells[pixel] += 1;
  out.pixel_share.resize(out.n_cells);
  for (index i = 0; i < out.n_cells; ++i) out.pixel_share[i] = 1 / cells[out.pixel[i]];
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
        *out.at(f, trajectory.pixel[i]) += frame.weight[j] * trajectory.pixel_share[i] * from[i];
      }
    }
  }
}

void sensitivities(const Trajectory& trajectory, View<const double, 2> log_k_basis, View<const double, 2> initial_basis,
                   bool threads, View<double, 3> out) {
  const auto run = [&](index chunk) {
    SensitivityChunk(trajectory, log_k_basis, initial_basis, chunk * width, out).run();
  };
  const index n_chunks = (out.shape[2] + width - 1) / width;
  if (threads) {
    for_tasks(n_chunks, run);
  } else {
    for (index chunk = 0; chunk < n_chunks; ++chunk) run(chunk);
  }
}

void adjoint(const Trajectory& trajectory, View<const double, 2> weights, const Gradient& out) {
  const index n = trajectory.n_cells, n_steps = static_cast<index>(trajectory.steps.size());
  std::vector<double> bar((n_steps + 1) * n, 0.0), source(n);
  std::vector<double> polynomial(std::max(trajectory.n_mu, trajectory.n_log_j0));
  for (index f = 0; f < static_cast<index>(trajectory.frames.size()); ++f) {
    const Frame& frame = trajectory.frames[f];
    for (int j = 0; j < frame.count; ++j) {
      double* to = bar.data() + (frame.newest - j) * n;
      for (index i = 0; i < n; ++i) {
        to[i] += frame.weight[j] * trajectory.pixel_share[i] * *weights.at(f, trajectory.pixel[i]);
      }
    }
  }
  for (const auto& gradient : {out.mu, out.log_j0, out.log_k}) std::fill_n(gradient.data, gradient.size(), 0.0);
  for (index number = n_steps; number-- > 0;) {
    const Step& step = trajectory.steps[number];
    const double* own = bar.data() + (number + 1) * n;
    const double* c = trajectory.state(number + 1);
    double constant = 0;
    for (index i = 0; i < n; ++i) constant += step.shift[i] * own[i];
    constant /= step.shift_sum;
    for (index i = 0; i < n; ++i) source[i] = own[i] - constant;
    solve(step.factor, trajectory.coherency, source.data());
    for (index i = 0; i < n; ++i) {
      legendre(c[i], static_cast<index>(polynomial.size()), polynomial.data());
      const double along_k = step.rate_over_p[i] * source[i];
      for (index m = 0; m < trajectory.n_mu; ++m) out.mu.data[m] -= source[i] * polynomial[m];
      for (index m = 0; m < trajectory.n_log_j0; ++m) out.log_j0.data[m] += along_k * polynomial[m];
      out.log_k.data[trajectory.pixel[i]] += along_k;
    }
    for (int j = 0; j < step.order; ++j) {
      double* to = bar.data() + (number - j) * n;
      for (index i = 0; i < n; ++i) to[i] += step.weight[j] * (step.history[i] * source[i] + constant);
    }
  }
  std::copy_n(bar.data(), n, out.initial.data);
}

}  // namespace chemomech::kinetics
