// Block CSR matrices times k columns at once, and sums over those columns: what an iterative solver does all day. Each
// function reads the matrix once, which is what its time is made of. Rows are shared out among threads; each row is
// summed in the order of its columns, and sums over rows go chunk by chunk, so results do not depend on the number of
// threads.
//
// Vectors are (n, size of a block, k): the k values of one component of one node lie together. Real is double, or float
// inside a preconditioner, which need not be exact.
#pragma once

#include "base/views.hpp"

namespace chemomech::fem {

template <class Real>
struct BlockMatrix {
  View<const std::int32_t, 1> indptr;   // (n_rows + 1,)
  View<const std::int32_t, 1> indices;  // (n_blocks,)
  View<const Real, 3> values;           // (n_blocks, r, c): one of the shapes below

  // 1 x 1 is a transfer that treats both displacements alike; 3 are the rigid modes of an aggregate of nodes.
  static constexpr std::array<std::array<index, 2>, 5> block_shapes{{{1, 1}, {2, 2}, {2, 3}, {3, 2}, {3, 3}}};
};

// y = K x
template <class Real>
void multiply(const BlockMatrix<Real>& matrix, View<const Real, 3> x, View<Real, 3> y);

// y = b + sign K x; y may be b.
template <class Real>
void add_product(const BlockMatrix<Real>& matrix, View<const Real, 3> b, Real sign, View<const Real, 3> x,
                 View<Real, 3> y);

// One step of a Chebyshev (or, with alpha = 0, a damped Jacobi) smoother:
//   direction <- alpha direction + beta D^-1 (b - K x),   x_new <- x + direction.
template <class Real>
void smooth(const BlockMatrix<Real>& matrix, View<const Real, 3> inverse_diagonal, View<const Real, 3> b,
            View<const Real, 3> x, View<Real, 3> direction, Real alpha, Real beta, View<Real, 3> x_new);

// The first step, from x = 0: x_new = direction = beta D^-1 b.
template <class Real>
void smooth_from_zero(View<const Real, 3> inverse_diagonal, View<const Real, 3> b, View<Real, 3> direction, Real beta,
                      View<Real, 3> x_new);

// y = a x + b y, column by column: x and y are (n, k), a and b (k,).
template <class Real>
void combine(View<const double, 1> a, View<const Real, 2> x, View<const double, 1> b, View<double, 2> y);

// sums[j] = sum over rows of x[:, j] y[:, j]
template <class Real>
void dot(View<const double, 2> x, View<const Real, 2> y, View<double, 1> sums);

}  // namespace chemomech::fem
