// Between a grid and the one below, whose cells are twice as long along some axes: trilinear interpolation and its
// transpose. Vectors as in operator.hpp, with filled halos; owned node P of the coarse grid is node 2 P - 1 of the fine
// one along an axis that was coarsened. Any number of components, in either precision.
#pragma once

#include <array>

#include "base/views.hpp"

namespace chemomech::voxel {

// coarse = P^T fine; factors: 1 or 2 for every axis.
template <class Real>
void restrict_to(const std::array<index, 3>& factors, View<const Real, 4> fine, View<Real, 4> coarse);

// fine += P coarse.
template <class Real>
void add_prolonged(const std::array<index, 3>& factors, View<const Real, 4> coarse, View<Real, 4> fine);

}  // namespace chemomech::voxel
