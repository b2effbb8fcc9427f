// Between cells and their corners: loads of an eigenstrain, mean strains. Vectors as in operator.hpp; cells in the
// order of the user's arrays, (nx, ny, nz, 6), Voigt with engineering shears, cell (i, j, k) at (i + 1, j + 1, k + 1)
// of the box. What a corner stands for beyond the box, a periodic image or a neighbour's node, is the caller's to fill
// or add.
#pragma once

#include <array>

#include "base/views.hpp"

namespace chemomech::voxel {

// Cell stiffness = sum over materials of weights (materials, X, Y, Z) times stiffness (materials, 6, 6), GPa.
struct Cells {
  View<const double, 3> stiffness;
  View<const double, 4> weights;
  std::array<double, 3> spacing;  // nm
};

// loads (3, X, Y, Z) = integral of B^T C eps0 over the cells, GPa nm^2; all corners are written. What eps0
// (nx, ny, nz, 6) holds where there is no cell does not matter. Returns the integral of eps0 : C eps0, GPa nm^3.
double eigenstrain_loads(const Cells& cells, View<const double, 4> eigenstrain, View<double, 4> loads);

// strain (nx, ny, nz, 6): mean over each cell of the strain of u (3, X, Y, Z), halo filled, less eps0; stress: C times
// it, GPa. NaN where there is no cell. Returns their elastic energy, GPa nm^3.
double elastic_fields(const Cells& cells, View<const double, 4> eigenstrain, View<const double, 4> u,
                      View<double, 4> strain, View<double, 4> stress);

}  // namespace chemomech::voxel
