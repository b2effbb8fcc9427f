// One implicit step of Cahn and Hilliard's equation, linearised, on a box of nodes with a halo:
//
//   rate m x + (K_M + e) y = r_0      what flows into a node stays there;  e: exchange through its surface
//   -(h + K_k) x + m y = r_1          chemical potential y of the composition x;  h = m f''
//
// K are sums over the edges between neighbouring nodes, (K u)_i = sum over j of g_ij (u_i - u_j), M for mobility, k for
// the gradient penalty. Fields are (X, Y, Z) boxes as in voxel/operator.hpp; vectors (2, X, Y, Z) hold x, then y. Nodes
// that do not exist have m = 0 and no edges.
//
// Along the second axis, the crystal's b, lithium is so fast and gradients so dear that only whole lines can be relaxed
// together: a line is a block tridiagonal system, factorised once for a step of Newton's method.
#pragma once

#include "base/views.hpp"

namespace chemomech::phasefield {

struct System {
  double rate;                     // 1/s
  View<const double, 3> mass;      // m: nm^3
  View<const double, 4> mobility;  // (3, X, Y, Z) g of the edge from a node to the next along each axis, nm^3 / s
  View<const double, 4> gradient;  // likewise, nm^3 kT
  View<const double, 3> curvature;
  View<const double, 3> exchange;
};

// factors (4, X, Y, Z) of the lines: the inverses of the eliminated blocks, 0 where a node is not owned or absent.
void factorise_lines(const System& system, View<double, 4> factors);

// Solves for every other line: those whose first and third index add up to an even (0) or odd (1) number.
void smooth_lines(const System& system, View<const double, 4> factors, View<const double, 4> right, int parity,
                  View<double, 4> solution);

// out = right - A solution.
void residual(const System& system, View<const double, 4> right, View<const double, 4> solution, View<double, 4> out);

// out = K u.
void spread(View<const double, 4> edges, View<const double, 3> u, View<double, 3> out);

}  // namespace chemomech::phasefield
