// The stiffness of a trilinear hexahedron aligned with the axes of an orthorhombic crystal, in monomials.
//
// With corners at s = (+-1, +-1, +-1) a displacement is u_i(xi) = 1/8 sum over m in {0,1}^3 of U_i(m) xi^m, where
// U_i(m) = sum over corners of s^m u_i is a Hadamard transform. Monomials of different m are orthogonal on the cube,
// with squares (1/3)^|m|, and the nine constants couple few of the 24 numbers U_i(m): the transformed matrix has 45
// entries in blocks of 1, 2 and 3.
#pragma once

#include <array>

namespace chemomech::voxel {

// GPa; orthorhombic, Voigt order xx, yy, zz, yz, xz, xy with engineering shears.
struct Stiffness {
  double c11, c22, c33, c44, c55, c66, c12, c13, c23;
};

// Blocks named by the U_i(m) they couple, as i(m). A pair is {first, second, coupling}, a triple {xx, yy, zz, yz, xz,
// xy}.
template <class Real>
struct Element {
  std::array<Real, 6> stretch;   // x(100), y(010), z(001)
  std::array<Real, 3> shear_yz;  // y(001), z(010)
  std::array<Real, 3> shear_xz;  // x(001), z(100)
  std::array<Real, 3> shear_xy;  // x(010), y(100)
  std::array<Real, 3> bend_x;    // y(110), z(101)
  std::array<Real, 3> bend_y;    // x(110), z(011)
  std::array<Real, 3> bend_z;    // x(101), y(011)
  std::array<Real, 6> twist;     // x(011), y(101), z(110)
  std::array<Real, 3> warp;      // x(111), y(111), z(111)
};

// spacing: edges of a cell, nm. Entries are in GPa nm.
template <class Real>
Element<Real> make_element(const Stiffness& c, const std::array<double, 3>& spacing) {
  const double volume = spacing[0] * spacing[1] * spacing[2];
  const double x = 1 / (4 * spacing[0]), y = 1 / (4 * spacing[1]), z = 1 / (4 * spacing[2]);
  const auto real = [](double value) { return static_cast<Real>(value); };
  const auto triple = [&](double f, double xx, double yy, double zz, double yz, double xz, double xy) {
    return std::array<Real, 6>{real(f * xx), real(f * yy), real(f * zz), real(f * yz), real(f * xz), real(f * xy)};
  };
  const auto pair = [&](double f, double first, double second, double coupling) {
    return std::array<Real, 3>{real(f * first), real(f * second), real(f * coupling)};
  };
  const double one = volume, third = volume / 3, ninth = volume / 9;
  Element<Real> e;
  e.stretch = triple(one, c.c11 * x * x, c.c22 * y * y, c.c33 * z * z, c.c23 * y * z, c.c13 * x * z, c.c12 * x * y);
  e.shear_yz = pair(one, c.c44 * z * z, c.c44 * y * y, c.c44 * y * z);
  e.shear_xz = pair(one, c.c55 * z * z, c.c55 * x * x, c.c55 * x * z);
  e.shear_xy = pair(one, c.c66 * y * y, c.c66 * x * x, c.c66 * x * y);
  e.bend_x = pair(third, c.c22 * y * y + c.c66 * x * x, c.c33 * z * z + c.c55 * x * x, c.c23 * y * z);
  e.bend_y = pair(third, c.c11 * x * x + c.c66 * y * y, c.c33 * z * z + c.c44 * y * y, c.c13 * x * z);
  e.bend_z = pair(third, c.c11 * x * x + c.c55 * z * z, c.c22 * y * y + c.c44 * z * z, c.c12 * x * y);
  e.twist = triple(third, c.c55 * z * z + c.c66 * y * y, c.c44 * z * z + c.c66 * x * x, c.c44 * y * y + c.c55 * x * x,
                   c.c44 * y * z, c.c55 * x * z, c.c66 * x * y);
  e.warp = {real(ninth * (c.c11 * x * x + c.c66 * y * y + c.c55 * z * z)),
            real(ninth * (c.c66 * x * x + c.c22 * y * y + c.c44 * z * z)),
            real(ninth * (c.c55 * x * x + c.c44 * y * y + c.c33 * z * z))};
  return e;
}

// The diagonal of the element matrix, x, y and z of any corner: the same for all eight.
template <class Real>
std::array<Real, 3> diagonal(const Element<Real>& e) {
  return {e.stretch[0] + e.shear_xz[0] + e.shear_xy[0] + e.bend_y[0] + e.bend_z[0] + e.twist[0] + e.warp[0],
          e.stretch[1] + e.shear_yz[0] + e.shear_xy[1] + e.bend_x[0] + e.bend_z[1] + e.twist[1] + e.warp[1],
          e.stretch[2] + e.shear_yz[1] + e.shear_xz[1] + e.bend_x[1] + e.bend_y[1] + e.twist[2] + e.warp[2]};
}

}  // namespace chemomech::voxel
