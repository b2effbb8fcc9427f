// Plane elasticity on straight-sided triangles: stiffness matrix, loads of a cell-wise stress, cell means of the
// distortion. Frame: x, y in nm; displacements (u, v) interleaved node by node; plane-stress stiffness in GPa times
// unit thickness, Voigt order xx, yy, xy with engineering shear.
//
// Closed form of a 6-node triangle. With S_mn = area B_m^T C B_n the blocks of the 3-node triangle (B_m from the
// constant gradient of the barycentric coordinate m; the S sum to zero along rows and columns):
//   vertex i, vertex i      S_ii                  vertex i, vertex j       -S_ij / 3
//   vertex i, edge ij       4/3 S_ij              edge ij, vertex i        4/3 S_ji
//   edge ij, edge ij        4/3 (S_00 + S_11 + S_22)
//   edge ij, edge jk        4/3 (S_ik + S_ki)
#pragma once

#include <limits>

#include "base/views.hpp"
#include "fem/pattern.hpp"

namespace chemomech::fem {

inline constexpr index no_triangle = std::numeric_limits<index>::max();

// values (n_blocks, 2, 2) of the block CSR matrix. Returns the first triangle whose area is not positive (the values
// are then meaningless) or no_triangle.
index assemble_stiffness(const Pattern& pattern, View<const double, 2> nodes, View<const double, 2> stiffness,
                         View<double, 3> values);

// loads (n_nodes, 2, k) = sum over triangles of the integral of B^T sigma; sigma = stress[cells[t]] (3, k) is constant
// in a cell. GPa nm for stress in GPa.
void stress_loads(const Pattern& pattern, View<const double, 2> nodes, View<const std::int32_t, 1> cells,
                  View<const double, 3> stress, View<double, 3> loads);

// distortion (n_cells, 4, k): area-weighted mean over the triangles of a cell of du/dx, du/dy, dv/dx, dv/dy; NaN in a
// cell without triangles.
void cell_distortions(const Pattern& pattern, View<const double, 2> nodes, View<const std::int32_t, 1> cells,
                      View<const double, 3> displacement, View<double, 3> distortion);

}  // namespace chemomech::fem
