// Band matrices with a symmetric addition of low rank, A + V V^T, solved by the Sherman-Morrison-Woodbury identity
//   x = A^-1 (b - V (1 + V^T A^-1 V)^-1 V^T A^-1 b).
// V couples whole pixels: all cells of a pixel share its row.
#pragma once

#include <vector>

#include "kinetics/band.hpp"

namespace chemomech::kinetics {

struct LowRank {
  std::vector<std::int32_t> pixel;  // (n_cells,)
  std::vector<double> rows;         // (n_pixels, rank); row pixel[i] is that of cell i of V
  index n_pixels = 0, rank = 0;

  // V^T x (rank, width) of x (n_cells, width), and x + V t for t (rank, width).
  template <int width>
  void project(const double* x, double* t) const;
  template <int width>
  void spread(const double* t, double* x) const;
};

struct StepMatrix {
  BandMatrix band, capacity;  // A, and 1 + V^T A^-1 V as a full matrix

  StepMatrix() = default;
  StepMatrix(index n, index bandwidth, index rank) : band(n, bandwidth), capacity(rank, rank > 0 ? rank - 1 : 0) {}
};

// In place, as for a band matrix alone.
bool factorise(StepMatrix& matrix, const LowRank& addition);
void solve(const StepMatrix& factor, const LowRank& addition, double* x);
void solve_lanes(const StepMatrix& factor, const LowRank& addition, double* x);

}  // namespace chemomech::kinetics
