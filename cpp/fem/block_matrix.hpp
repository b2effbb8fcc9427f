// Block CSR matrices of 2 x 2 blocks times k columns at once: what an iterative solver does all day. Each function
// reads the matrix once, which is what its time is made of. Rows are shared out among threads; each row is summed in
// the order of its columns, so results do not depend on the number of threads.
//
// Vectors are (n, 2, k): the k values of one component of one node lie together.
#pragma once

#include "base/views.hpp"

namespace chemomech::fem {

struct BlockMatrix {
  View<const std::int32_t, 1> indptr;   // (n + 1,)
  View<const std::int32_t, 1> indices;  // (n_blocks,)
  View<const double, 3> values;         // (n_blocks, 2, 2)
};

// y = K x
void multiply(const BlockMatrix& matrix, View<const double, 3> x, View<double, 3> y);

// r = b - K x
void residual(const BlockMatrix& matrix, View<const double, 3> right_hand_side, View<const double, 3> x,
              View<double, 3> r);

// One step of a Chebyshev (or, with alpha = 0, a damped Jacobi) smoother:
//   direction <- alpha direction + beta D^-1 (b - K x),   x_new <- x + direction.
void smooth(const BlockMatrix& matrix, View<const double, 3> inverse_diagonal, View<const double, 3> right_hand_side,
            View<const double, 3> x, View<double, 3> direction, double alpha, double beta, View<double, 3> x_new);

}  // namespace chemomech::fem
