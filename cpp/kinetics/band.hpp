// Symmetric band matrices factored without pivoting, A = L D L^T, and solutions for many right-hand sides at once.
// Row order decides the bandwidth; nothing outside the band is ever stored.
#pragma once

#include "base/buffer.hpp"
#include "base/views.hpp"

namespace chemomech::kinetics {

// Column j of the lower triangle, diagonal first: entry [j, k] = A[j + k, j], k <= bandwidth.
struct BandMatrix {
  index n = 0, bandwidth = 0;
  Buffer<double> lower;  // (n, bandwidth + 1)

  BandMatrix() = default;
  BandMatrix(index rows, index width) : n(rows), bandwidth(width), lower(rows * (width + 1)) {}
  double* column(index j) { return lower.data() + j * (bandwidth + 1); }
  const double* column(index j) const { return lower.data() + j * (bandwidth + 1); }
};

// In place: the diagonal becomes 1 / D, the rest L. False when a pivot is zero or not finite.
bool factorise(BandMatrix& matrix);

// Columns solved together by `solve_lanes`.
inline constexpr int lanes_a_chunk = 32;

// x <- A^-1 x for x (n,) and for x (n, lanes_a_chunk).
void solve(const BandMatrix& factor, double* x);
void solve_lanes(const BandMatrix& factor, double* x);

}  // namespace chemomech::kinetics
