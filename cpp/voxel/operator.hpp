// The stiffness of a body of bricks times nodal displacements, without a matrix.
//
// Everything lives on one box of the grid with a halo of one node all around. Vectors are (3, X, Y, Z), component by
// component: owned nodes have indices 1 .. nodes on each axis, X = nodes_x + 2, Y = nodes_y + 2, and Z is padded to a
// multiple of `row_padding`. Cell (i, j, k) lies between nodes (i, j, k) and (i + 1, j + 1, k + 1) and its weights are
// at (i, j, k) of an (X, Y, Z) array; a cell that does not exist has weight 0. Whoever owns the box fills the halo of x
// (zeros, a periodic image, a neighbour's nodes) before the call. Results are complete on owned nodes; along z the
// halo of an output is overwritten with what is of no use.
#pragma once

#include <vector>

#include "base/views.hpp"
#include "voxel/element.hpp"

namespace chemomech::voxel {

inline constexpr index row_padding = 16;

// Cell stiffness = sum over materials of its weight times the material's element: one material and the presence of a
// cell (or, on a coarse grid, its solid fraction), or two materials that are mixed.
template <class Real>
struct Operator {
  std::vector<Element<Real>> elements;   // one or two
  View<const Real, 4> weights;           // (materials, X, Y, Z)
  std::vector<unsigned char> used_rows;  // (X, Y): whether any cell of row (i, j) exists

  index planes() const { return weights.shape[1]; }
  index rows() const { return weights.shape[2]; }
  index row_length() const { return weights.shape[3]; }
};

template <class Real>
Operator<Real> make_operator(std::vector<Element<Real>> elements, View<const Real, 4> weights);

// out (3, X, Y, Z): one over the diagonal; 0 at nodes without a cell and in the halo.
template <class Real>
void inverse_diagonal(const Operator<Real>& body, View<Real, 4> out);

// y = K x; returns x . y over owned rows, what y holds in their halo along z included: x must be 0 there. The same to
// the bit for any number of threads.
template <class Real>
double multiply(const Operator<Real>& body, View<const Real, 4> x, View<Real, 4> y);

// r = b - K x; r may be b.
template <class Real>
void residual(const Operator<Real>& body, View<const Real, 4> b, View<const Real, 4> x, View<Real, 4> r);

// One step of a polynomial smoother: direction <- alpha direction + beta D^-1 (b - K x), x_new = x + direction.
template <class Real>
void smooth(const Operator<Real>& body, View<const Real, 4> inverse_diagonal, View<const Real, 4> b,
            View<const Real, 4> x, View<Real, 4> direction, Real alpha, Real beta, View<Real, 4> x_new);

// The same for x = 0 and alpha = 0: direction = x_new = beta D^-1 b.
template <class Real>
void smooth_from_zero(View<const Real, 4> inverse_diagonal, View<const Real, 4> b, View<Real, 4> direction, Real beta,
                      View<Real, 4> x_new);

}  // namespace chemomech::voxel
