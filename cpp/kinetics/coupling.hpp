// What couples the cells of a particle, and the linear systems of its implicit steps, solved by conjugate gradients.
//
// A step is short on the time in which neighbours exchange lithium, so that the diagonal dominates and a few iterations
// do; a factorisation would cost more than all the rest of a step. Nothing is stored but diagonals.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <type_traits>
#include <vector>

#include "base/buffer.hpp"
#include "base/views.hpp"

namespace chemomech::kinetics {

// The symmetric operator G + E, kT: G between cells, E = V V^T of low rank, where the cells of a pixel share a row of
// V.
struct Coupling {
  // Consecutive rows of G with the same entries at the same distances from the diagonal, most of a line of cells.
  struct Run {
    index first, end;              // rows
    index first_entry, end_entry;  // of `distance` and `value`
  };
  std::vector<Run> runs;
  std::vector<index> distance;
  std::vector<double> value;
  std::vector<double> diagonal;     // (n_cells,), of G
  std::vector<std::int32_t> pixel;  // (n_cells,)
  std::vector<double> rows;         // (n_pixels, rank), V
  index n_pixels = 0, rank = 0;
  index reach = 0;  // longest distance

  // From G in CSR form, indptr (n_cells + 1,), indices and values (n_entries,), and V, (n_pixels, rank).
  Coupling(View<const std::int32_t, 1> indptr, View<const std::int32_t, 1> indices, View<const double, 1> values,
           View<const std::int32_t, 1> pixel_of, View<const double, 2> coherency);

  index n_cells() const { return static_cast<index>(pixel.size()); }

  // out = (G + E) x, (n_cells,).
  void apply(const double* x, double* out) const;
};

// Columns solved together, so that a row of them is a vector register or two.
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
template <class Real>
struct Workspace {
  Buffer<Real> remainder, direction, image;  // (n_cells, width)
  Buffer<Real> diagonal, inverse;            // (n_cells,), the matrix's in another precision than double

  Workspace(index n, int width)
      : remainder(n * width),
        direction(n * width),
        image(n * width),
        diagonal(std::is_same_v<Real, double> ? 0 : n),
        inverse(diagonal.size()) {}
};

// What a solution has besides x, by column: the constant, and the sum of x.
template <int width>
struct ByColumn {
  double constant[width], total[width];
};

// Improves a guess x (n_cells, width) until the residual, in the norm of the preconditioner, is `tolerance` times the
// right side's, or in case of `relative_to_guess` and for a right side of zero times that of the guess. Before rows are
// read prepare(first, last) is called for them, to write the guess to x and the right side to work.remainder. Nothing
// when the matrix is not positive, or after too many iterations.
template <class Real, int width>
std::optional<ByColumn<width>> solve(const StepMatrix& matrix, const Coupling& coupling, Real tolerance,
                                     bool relative_to_guess, const std::function<void(index, index)>& prepare, Real* x,
                                     Workspace<Real>& work);

// With a right side b (n_cells, width) and a guess that are there.
template <class Real, int width>
std::optional<ByColumn<width>> solve(const StepMatrix& matrix, const Coupling& coupling, const Real* b, Real tolerance,
                                     bool relative_to_guess, Real* x, Workspace<Real>& work) {
  const auto prepare = [&](index first, index last) {
    std::copy(b + first * width, b + last * width, work.remainder.data() + first * width);
  };
  return solve<Real, width>(matrix, coupling, tolerance, relative_to_guess, prepare, x, work);
}

}  // namespace chemomech::kinetics
