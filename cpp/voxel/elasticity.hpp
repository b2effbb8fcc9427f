// Linear elasticity on a box of voxels without a matrix: trilinear hexahedra, of which a part or nothing may be solid.
//
// Axes are the crystal's a, b, c; z runs fastest. Displacements are (3, nx + 1, ny + 1, nz + 1): a plane of numbers for
// each component, so that a row of cells is vectorised along z. Every function works on one box; a box of a larger grid
// brings its halo of cells and sums what its halo nodes get. Sums do not depend on the number of threads.
//
// Real is double, or float inside a preconditioner.
#pragma once

#include "base/views.hpp"
#include "voxel/element.hpp"

namespace chemomech::voxel {

// Voxels: a cell is solid or absent.
template <class Real>
struct Voxels {
  Element<Real> element;
  View<const float, 3> weight;  // (nx, ny, nz) 1 or 0
};

// Cells of a coarse grid, of which a part is solid: a Galerkin operator. The energy of a trilinear displacement needs
// the means over the cell, solid or not, of xi^p over the solid, p in {0, 1, 2}^3 and xi in [-1, 1]^3.
template <class Real>
struct Porous {
  Stiffness stiffness;
  std::array<double, 3> spacing;
  View<const float, 4> moment;  // (27, nx, ny, nz), 9 px + 3 py + pz
};

template <class Cells, class Real>
struct Body {
  Cells cells;
  View<const Real, 4> inverse_diagonal;  // (3, nx + 1, ny + 1, nz + 1); 0 where a displacement is held or absent
  bool held;                             // whether any is held
};

// D^-1; 0 at nodes without an element and where `free` (same shape) is 0.
template <class Real, template <class> class Cells>
void invert_diagonal(const Cells<Real>& cells, View<const std::uint8_t, 4> free, View<Real, 4> inverse);

// y = K x, 0 where a displacement is held or absent; x must be 0 where it is held.
template <class Real, template <class> class Cells>
void multiply(const Body<Cells<Real>, Real>& body, View<const Real, 4> x, View<Real, 4> y);

// r = b - K x, with the same rule; b must be 0 where a displacement is absent.
template <class Real, template <class> class Cells>
void residual(const Body<Cells<Real>, Real>& body, View<const Real, 4> b, View<const Real, 4> x, View<Real, 4> r);

// One step of a Chebyshev iteration:  d <- alpha d + beta D^-1 (b - K x),  x <- x + d;  `spare` is overwritten.
template <class Real, template <class> class Cells>
void smooth(const Body<Cells<Real>, Real>& body, View<const Real, 4> b, View<Real, 4> x, View<Real, 4> d, Real alpha,
            Real beta, View<Real, 4> spare);

// The first step, from x = 0:  x = d = beta D^-1 b.
template <class Real, template <class> class Cells>
void smooth_from_zero(const Body<Cells<Real>, Real>& body, View<const Real, 4> b, View<Real, 4> x, View<Real, 4> d,
                      Real beta);

// Loads (3, nodes) of mean stresses (6, nx, ny, nz) in the cells, Voigt order; the transpose of `strain` times volume.
void stress_loads(View<const double, 4> stress, const std::array<double, 3>& spacing, View<double, 4> loads);

// Mean strains (6, nx, ny, nz), engineering shears, of displacements (3, nodes).
void strain(View<const double, 4> displacement, const std::array<double, 3>& spacing, View<double, 4> strain);

// Trilinear interpolation from a grid whose cells are twice as long along the axes in `doubled`, and its transpose.
// A coarse grid of (n + 1) / 2 cells may stick out beyond the fine one.
template <class Real>
void add_interpolation(View<const Real, 4> coarse, const std::array<bool, 3>& doubled, View<Real, 4> fine);
template <class Real>
void restrict_to(View<const Real, 4> fine, const std::array<bool, 3>& doubled, View<Real, 4> coarse);

// Moments (27, cells) of the solid in cells twice as long along the axes in `doubled`, from voxels of weight 1 or 0 and
// from moments.
void coarsen(View<const float, 3> weight, const std::array<bool, 3>& doubled, View<float, 4> coarse);
void coarsen(View<const float, 4> moment, const std::array<bool, 3>& doubled, View<float, 4> coarse);

}  // namespace chemomech::voxel
