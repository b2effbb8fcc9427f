// Stiffness of a trilinear brick of an orthorhombic crystal whose axes are those of the grid.
//
// The brick and the crystal share three mirror planes, so the 24 x 24 matrix falls apart in the basis of the even and
// odd combinations of its corners (a Hadamard transform). Mode m = (m_x, m_y, m_z) in {0, 1}^3 of component i has the
// amplitude hat_i(m) = sum over corners of u_i times, for every axis with m = 1, -1 at the low and +1 at the high end;
// the displacement it stands for is hat / 8 times the product of the local coordinates (-1..1) with m = 1. Integrating
// the strain energy of these products over the brick leaves 45 nonzeros: 21 on the diagonal, and for each pair of axes
// a, b with third axis c and r = m_c
//   (u_a, e_a + r e_c) with (u_b, e_b + r e_c)   V C_ab / (16 h_a h_b 3^r)    normal strains
//   (u_a, e_b + r e_c) with (u_b, e_a + r e_c)   V G_ab / (16 h_a h_b 3^r)    shear strains
#pragma once

#include <array>

namespace chemomech::voxel {

// The axes of the pairs 0, 1, 2 and the third axis, in Voigt order of the shears: bc, ac, ab.
inline constexpr std::array<std::array<int, 3>, 3> pairs{{{1, 2, 0}, {0, 2, 1}, {0, 1, 2}}};

template <class Real>
struct Element {
  Real diagonal[3][8];  // component, mode 4 m_x + 2 m_y + m_z; mode 0 is a translation: 0
  Real normal[3][2];    // pair, r
  Real shear[3][2];
  Real corner[3];  // component: the entry of every corner on the diagonal of the element matrix
};

// constants: C11 C22 C33 C44 C55 C66 C12 C13 C23 in GPa; spacing in nm. Entries in GPa nm.
template <class Real>
Element<Real> make_element(const double* constants, const double* spacing) {
  const double volume = spacing[0] * spacing[1] * spacing[2];
  const double c_normal[3] = {constants[8], constants[7], constants[6]};
  const double* const c_shear = constants + 3;
  Element<Real> element{};
  for (int component = 0; component < 3; ++component) {
    double corner = 0;
    for (int mode = 1; mode < 8; ++mode) {
      double weight = volume / 16, sum = 0;
      for (int axis = 0; axis < 3; ++axis) {
        if (!(mode >> (2 - axis) & 1)) continue;
        const double c = axis == component ? constants[component] : c_shear[3 - axis - component];
        sum += c / (spacing[axis] * spacing[axis]);
        weight /= 3;
      }
      element.diagonal[component][mode] = static_cast<Real>(3 * weight * sum);
      corner += 3 * weight * sum;
    }
    element.corner[component] = static_cast<Real>(corner);
  }
  for (int pair = 0; pair < 3; ++pair) {
    const double scale = volume / (16 * spacing[pairs[pair][0]] * spacing[pairs[pair][1]]);
    for (int r = 0; r < 2; ++r) {
      element.normal[pair][r] = static_cast<Real>(scale * c_normal[pair] / (r ? 3 : 1));
      element.shear[pair][r] = static_cast<Real>(scale * c_shear[pair] / (r ? 3 : 1));
    }
  }
  return element;
}

}  // namespace chemomech::voxel
