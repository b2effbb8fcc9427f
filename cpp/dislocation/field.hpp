// Fields of parallel straight dislocations at many points: sums over lines of the functions of sextic.hpp.
#pragma once

#include "base/views.hpp"

namespace chemomech::dislocation {

// out[n, i, j] = sum over lines m of signs[m] du_i/dx_j at points[n] - lines[m]. With r^2 = x^2 + y^2 and h_i =
// du_i/dphi,
//   du_i/dx = (radial[i] x - h_i y) / (r^2 + core^2)        du_i/dy = (radial[i] y + h_i x) / (r^2 + core^2)
// At a distance r the softened field is the line's times r^2 / (r^2 + core^2); it is zero on the line. With core = 0
// it is the line's own, and NaN on the line.
// radial (2 or 3,), hoop (2 or 3, 7), denominator (7,), points (n, 2), lines (m, 2), signs (m,), out (n, 2 or 3, 2).
void evaluate(View<const double, 1> radial, View<const double, 2> hoop, View<const double, 1> denominator,
              View<const double, 2> points, View<const double, 2> lines, View<const double, 1> signs, double core,
              View<double, 3> out);

// out[n, i] = sum over lines m of signs[m] u_i(points[n] - lines[m]) with, at the polar coordinates r, phi,
//   2 pi u_i = radial[i] ln r + burgers[i] phi + sum over k of series[k, i, 0] cos 2(k+1)phi + series[k, i, 1] sin ...
// phi in (-pi, pi]: the cut runs from the line along -x. radial, burgers (3,), series (K, 3, 2), out (n, 3).
void displacement(View<const double, 1> radial, View<const double, 1> burgers, View<const double, 3> series,
                  View<const double, 2> points, View<const double, 2> lines, View<const double, 1> signs,
                  View<double, 2> out);

}  // namespace chemomech::dislocation
