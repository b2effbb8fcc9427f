// Compositions of one particle through one half-cycle, and their derivatives.
//
// Backward differentiation of order 1 to 5 on the steps as they come (variable coefficients): with the last k states,
//   y = sum_j weight[j] y_{-j} + lead f(y),
// the derivative of the polynomial through the new and the last k states set equal to f. Steps and orders follow the
// estimated local error. Only old states enter, so the derivatives of the computed solution at fixed steps obey
//   (1 - lead df/dy) S = sum_j weight[j] S_{-j} + lead df/dp,
// one factored band matrix a step and any number of right-hand sides (staggered direct sensitivities); the same
// recurrence backwards is the exact adjoint.
#pragma once

#include <array>
#include <vector>

#include "base/buffer.hpp"
#include "base/views.hpp"
#include "kinetics/reaction.hpp"

namespace chemomech::kinetics {

inline constexpr int highest_order = 5;

// What a step leaves for derivatives. The implicit step at fixed potential is x -> A^-1 (history x + ...), with
// history = 1 / (lead p); a change of potential moves x along `shift` = A^-1 1.
struct Step {
  int order = 1;
  double lead = 0;  // h
  std::array<double, highest_order> weight{};
  StepMatrix factor;  // of the matrix of `assemble`; empty when derivatives were not asked for
  std::vector<double> shift, history, rate_over_p;  // (n_cells,)
  double shift_sum = 0;  // infinite where the potential is prescribed: it never shifts
};

// A frame is a sum of `count` states, the newest `newest`.
struct Frame {
  index newest = 0;
  int count = 1;
  std::array<double, highest_order + 1> weight{};
};

struct Trajectory {
  Trajectory() = default;
  Trajectory(Trajectory&&) = default;

  index n_cells = 0, n_pixels = 0, n_mu = 0, n_log_j0 = 0;
  std::vector<std::int32_t> pixel;
  LowRank coherency;
  std::vector<double> pixel_share;              // (n_cells,), 1 / cells of the pixel
  std::vector<double> time, states, potential;  // (n_steps + 1,), (n_steps + 1, n_cells), (n_steps + 1,)
  std::vector<Step> steps;
  std::vector<Frame> frames;
  index n_evaluations = 0, n_factorisations = 0, n_rejected = 0;
  bool derivatives = false;

  const double* state(index i) const { return states.data() + i * n_cells; }
};

// Integrates from `initial` (n_cells,) at frame_time[0] to the last frame. `tolerance`: RMS local error of c. Where the
// steps become too small or more than `most_steps` are tried the trajectory ends early, with fewer frames.
Trajectory integrate(const Particle& particle, const Laws& laws, const Control& control, const double* initial,
                     View<const double, 1> frame_time, double tolerance, index most_steps, bool derivatives);

// out (n_frames, n_pixels): mean composition of the cells of each pixel.
void frames_of(const Trajectory& trajectory, View<double, 2> out);

// out (n_frames, n_pixels, n_mu + n_log_j0 + a + b): derivatives of the frames with respect to the coefficients of mu
// and ln j0, then along log_k_basis (n_pixels, a) and initial_basis (n_cells, b). With `threads` they share the
// columns.
void sensitivities(const Trajectory& trajectory, View<const double, 2> log_k_basis, View<const double, 2> initial_basis,
                   bool threads, View<double, 3> out);

// The transposed of all of these: gradients of sum over frames of weights (n_frames, n_pixels) times composition.
struct Gradient {
  View<double, 1> mu, log_j0, log_k, initial;  // (n_mu,), (n_log_j0,), (n_pixels,), (n_cells,)
};
void adjoint(const Trajectory& trajectory, View<const double, 2> weights, const Gradient& out);

}  // namespace chemomech::kinetics
