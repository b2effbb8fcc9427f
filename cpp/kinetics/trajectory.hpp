// Compositions of one particle through one half-cycle, and their derivatives.
//
// Backward differentiation of order 1 to 5 on the steps as they come (variable coefficients): with the last k states,
//   y = sum_j weight[j] y_{-j} + lead f(y),
// the derivative of the polynomial through the new and the last k states set equal to f. Steps and orders follow the
// estimated local error. Only old states enter, so the derivatives of the computed solution at fixed steps obey
//   (1 - lead df/dy) S = sum_j weight[j] S_{-j} + lead df/dp,
// one matrix a step and any number of right-hand sides (staggered direct sensitivities); the same recurrence backwards
// is the adjoint.
#pragma once

#include <array>
#include <vector>

#include "base/views.hpp"
#include "kinetics/reaction.hpp"

namespace chemomech::kinetics {

inline constexpr int highest_order = 5;

// What a step leaves. The implicit step at fixed potential is A x = history x_old + ..., with history = 1 / (lead p).
struct Step {
  int order = 1;
  double lead = 0;  // h
  std::array<double, highest_order> weight{};
  int n_extrapolated = 1;
  std::array<double, highest_order + 1> extrapolation{};  // of the last states to the new one, newest first
  // Empty when derivatives were not asked for; the vectors are (n_cells,).
  StepMatrix matrix;
  std::vector<double> history, rate_over_p;
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

  index n_cells = 0, n_pixels = 0;
  std::vector<double> mu, log_j0;  // those of Laws
  double alpha = 0;
  std::shared_ptr<const Coupling> coupling;
  std::vector<double> control_time;             // (n_knots,), h
  std::vector<double> pixel_share;              // (n_cells,), 1 / cells of the pixel
  std::vector<double> time, states, potential;  // (n_steps + 1,), (n_steps + 1, n_cells), (n_steps + 1,)
  std::vector<Step> steps;
  std::vector<Frame> frames;
  index n_evaluations = 0, n_rejected = 0;
  bool derivatives = false;

  index n_mu() const { return static_cast<index>(mu.size()); }
  index n_log_j0() const { return static_cast<index>(log_j0.size()); }
  const double* state(index i) const { return states.data() + i * n_cells; }
  // Where time i lies between the knots of the control.
  Place control_at(index i) const {
    return place_of({control_time.data(), {static_cast<index>(control_time.size())}}, time[i]);
  }
};

// Integrates from `initial` (n_cells,) at frame_time[0] to the last frame. `tolerance`: local error of c, RMS or a
// thirtieth of a single cell's. Where the steps become too small or more than `most_steps` are tried the trajectory
// ends early, with fewer frames.
Trajectory integrate(const Particle& particle, const Laws& laws, const Control& control, const double* initial,
                     View<const double, 1> frame_time, double tolerance, index most_steps, bool derivatives);

// out (n_frames, n_pixels): mean composition of the cells of each pixel.
void frames_of(const Trajectory& trajectory, View<double, 2> out);

// Columns along which to differentiate: of ln k (n_pixels, a), the initial composition (n_cells, b) and the control
// (n_knots, d).
struct Bases {
  View<const double, 2> log_k, initial, control;

  index size() const { return log_k.shape[1] + initial.shape[1] + control.shape[1]; }
};

// out (n_frames, n_pixels, n_mu + n_log_j0 + a + b + d): derivatives of the frames with respect to the coefficients of
// mu and ln j0, then along the bases. With `threads` they share the columns. Linear systems are solved to `tolerance`
// of their right sides, in single precision where that does; false when one cannot be.
bool sensitivities(const Trajectory& trajectory, const Bases& bases, double tolerance, bool threads,
                   View<double, 3> out);

struct Gradient {
  View<double, 1> mu, log_j0, log_k, initial, control;  // (n_mu,), (n_log_j0,), (n_pixels,), (n_cells,), (n_knots,)
};

// The transposed of `sensitivities`: adds the gradients of sum over frames of weights (n_frames, n_pixels) times
// composition.
bool adjoint(const Trajectory& trajectory, View<const double, 2> weights, double tolerance, const Gradient& out);

// Adds the gradients of the sum of weights (n_frames, n_pixels, a + b + d) times the sensitivities along the bases,
// which are held; with respect to the initial basis they are written to along_initial (n_cells, b). Precision as in
// `sensitivities`.
bool adjoint_of_sensitivities(const Trajectory& trajectory, const Bases& bases, View<const double, 3> weights,
                              double tolerance, const Gradient& out, View<double, 2> along_initial);

}  // namespace chemomech::kinetics
