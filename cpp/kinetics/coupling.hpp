// What couples the cells of a particle, and the linear systems of its implicit steps, solved by conjugate gradients.
//
// A step is short on the time in which neighbours exchange lithium, so that the diagonal dominates and a few iterations
// do; a factorisation would cost more than all the rest of a step. Nothing is stored but diagonals.
#pragma once

#include <cstdint>
#include <vector>

#include "base/views.hpp"

namespace chemomech::kinetics {

// The symmetric operator G + E, kT: G in CSR form between cells, E = V V^T of low rank, where the cells of a pixel
// share a row of V.
struct Coupling {
  std::vector<std::int32_t> indptr, indices;  // (n_cells + 1,), (n_entries,)
  std::vector<double> values, diagonal;       // (n_entries,), (n_cells,): the diagonal of G
  std::vector<std::int32_t> pixel;            // (n_cells,)
  std::vector<double> rows;                   // (n_pixels, rank)
  index n_pixels = 0, rank = 0;

  index n_cells() const { return static_cast<index>(pixel.size()); }

  // out = (G + E) x for x (n_cells, width).
  template <int width>
  void apply(const double* x, double* out) const;
};

// Columns solved together, so that each of them is a vector register or two.
inline constexpr int lanes_a_chunk = 16;

// The matrix diag(diagonal) + G + E of a step. Where it conserves, solutions keep the sum of the guess, and the right
// side may differ from the product by a constant:
//   A x + constant 1 = b,  1^T x = 1^T guess.
struct StepMatrix {
  std::vector<double> diagonal, inverse;  // (n_cells,); inverse is a positive preconditioner
  double inverse_sum = 0;
  bool conserves = true;

  StepMatrix() = default;
  StepMatrix(std::vector<double> entries, const Coupling& coupling, bool conserving);
};

// Memory of the iteration for `width` columns.
struct Workspace {
  std::vector<double> remainder, direction, image;

  Workspace(index n, int width) : remainder(n * width), direction(n * width), image(n * width) {}
};

// Improves x (n_cells, width), the guess, until the residual, in the norm of the preconditioner, is `tolerance` times
// the right side's, or in case of `relative_to_guess` and for a right side of zero times that of the guess. Writes
// constant (width,). False when the matrix is not positive, or after too many iterations.
template <int width>
bool solve(const StepMatrix& matrix, const Coupling& coupling, const double* b, double tolerance,
           bool relative_to_guess, double* x, double* constant, Workspace& work);

}  // namespace chemomech::kinetics
