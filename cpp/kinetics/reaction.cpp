#include "kinetics/reaction.hpp"

#include <algorithm>
#include <cmath>

#include "base/elementary.hpp"

namespace chemomech::kinetics {
namespace {

constexpr double newton_tolerance = 1e-14;
constexpr double longest_newton_step = 2;  // kT: exponentials are linear over no more
constexpr int newton_limit = 200;

constexpr int width = 8;
constexpr index block = 64;  // cells at a time, so that compilers make vectors of the loops over them

// Legendre series at 2c - 1 and their derivatives with respect to c.
void sum_series(View<const double, 1> coefficients, const double* c, double* value, double* slope) {
  double before[block], now[block], slope_before[block], slope_now[block];
  for (index i = 0; i < block; ++i) {
    value[i] = slope[i] = before[i] = slope_before[i] = slope_now[i] = 0;
    now[i] = 1;
  }
  for (index n = 0; n < coefficients.shape[0]; ++n) {
    const double coefficient = coefficients.data[n];
    const double up = static_cast<double>(2 * n + 1), down = static_cast<double>(n), over = 1.0 / (down + 1);
    for (index i = 0; i < block; ++i) {
      value[i] += coefficient * now[i];
      slope[i] += coefficient * slope_now[i];
      const double next = (up * (2 * c[i] - 1) * now[i] - down * before[i]) * over;
      const double slope_next = slope_before[i] + 2 * up * now[i];
      before[i] = now[i], now[i] = next;
      slope_before[i] = slope_now[i], slope_now[i] = slope_next;
    }
  }
}

// The potential at which A exp(-alpha phi) - B exp((1 - alpha) phi) = total.
double potential_of(double a, double b, double total, double alpha) {
  if (alpha == 0.5) {
    // z = exp(-phi/2) is the positive root of A z^2 - total z - B = 0, without cancellation for either sign.
    const double root = std::sqrt(total * total + 4 * a * b);
    const double z = total >= 0 ? (total + root) / (2 * a) : 2 * b / (root - total);
    return -2 * std::log(z);
  }
  double phi = std::log(a / b);  // where the total is zero
  for (int i = 0; i < newton_limit; ++i) {
    const double forward = a * std::exp(-alpha * phi), backward = b * std::exp((1 - alpha) * phi);
    const double change = (forward - backward - total) / (alpha * forward + (1 - alpha) * backward);
    phi += std::clamp(change, -longest_newton_step, longest_newton_step);
    if (std::abs(change) < newton_tolerance * (1 + std::abs(phi))) break;
  }
  return phi;
}

void add_edge(const Particle& particle, double t, std::vector<double>& out) {
  if (particle.edge_time.shape[0] == 0) return;
  const Place now = place_of(particle.edge_time, t);
  const double *before = particle.edge.at(now.before), *after = particle.edge.at(now.after);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += (1 - now.share) * before[i] + now.share * after[i];
}

}  // namespace

Place place_of(View<const double, 1> knots, double t) {
  const double* end = knots.data + knots.shape[0];
  const double* next = std::upper_bound(knots.data, end, t);
  if (next == knots.data) return {};
  if (next == end) return {knots.shape[0] - 1, knots.shape[0] - 1, 0};
  const index i = next - knots.data;
  return {i - 1, i, (t - knots.data[i - 1]) / (knots.data[i] - knots.data[i - 1])};
}

bool evaluate(const Particle& particle, const Laws& laws, const Control& control, double t, const double* c,
              Rates& out) {
  const index n = particle.n_cells();
  const double alpha = laws.alpha;
  for (index i = 0; i < n; ++i) {
    if (!(c[i] > 0 && c[i] < 1)) return false;
  }
  particle.coupling->apply(c, out.coupled.data());
  add_edge(particle, t, out.coupled);
  double forward_sum = 0, backward_sum = 0;
  for (index first = 0; first < n; first += block) {
    const index count = std::min(block, n - first);
    double own[block], others[block], log_k[block], mu[block], mu_slope[block], log_j0[block], log_j0_slope[block];
    double forward[block], backward[block];
    for (index i = 0; i < block; ++i) {
      own[i] = i < count ? c[first + i] : 0.5;
      others[i] = i < count ? out.coupled[first + i] : 0;
      log_k[i] = i < count ? laws.log_k.data[particle.coupling->pixel[first + i]] : 0;
    }
    sum_series(laws.mu, own, mu, mu_slope);
    sum_series(laws.log_j0, own, log_j0, log_j0_slope);
    for (index i = 0; i < block; i += width) {
      const auto ratio = load<width>(own + i) / (1 - load<width>(own + i));
      const auto total = log_lanes<width>(ratio) + load<width>(mu + i) + load<width>(others + i);
      const auto log_w = load<width>(log_j0 + i) + load<width>(log_k + i);
      store(forward + i, exp_lanes<width>(log_w - alpha * total));
      store(backward + i, exp_lanes<width>(log_w + (1 - alpha) * total));
    }
    for (index i = 0; i < count; ++i) {
      out.rate[first + i] = forward[i], out.p[first + i] = backward[i];
      out.s[first + i] = log_j0_slope[i];
      out.curvature[first + i] = 1 / (own[i] * (1 - own[i])) + mu_slope[i];
      forward_sum += forward[i], backward_sum += backward[i];
    }
  }
  if (!std::isfinite(forward_sum) || !std::isfinite(backward_sum)) return false;
  const Place now = place_of(control.time, t);
  const double prescribed =
      (1 - now.share) * control.value.data[now.before] + now.share * control.value.data[now.after];
  out.potential = control.galvanostatic
                      ? potential_of(forward_sum, backward_sum, prescribed * static_cast<double>(n), alpha)
                      : prescribed;
  const double down = std::exp(-alpha * out.potential), up = std::exp((1 - alpha) * out.potential);
  for (index i = 0; i < n; ++i) {
    const double forward = out.rate[i] * down, backward = out.p[i] * up;
    out.rate[i] = forward - backward;
    out.p[i] = alpha * forward + (1 - alpha) * backward;
  }
  return std::isfinite(out.potential);
}

std::vector<double> step_diagonal(const Rates& rates, double step) {
  std::vector<double> diagonal(rates.rate.size());
  for (std::size_t i = 0; i < diagonal.size(); ++i) {
    diagonal[i] = (1 - step * rates.rate[i] * rates.s[i]) / (step * rates.p[i]) + rates.curvature[i];
  }
  return diagonal;
}

void legendre(double c, index count, double* value) {
  const double x = 2 * c - 1;
  for (index n = 0; n < count; ++n) {
    const double m = static_cast<double>(n);
    value[n] = n == 0 ? 1 : n == 1 ? x : ((2 * m - 1) * x * value[n - 1] - (m - 1) * value[n - 2]) / m;
  }
}

}  // namespace chemomech::kinetics
