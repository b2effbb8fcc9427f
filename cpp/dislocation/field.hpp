// Fields of parallel straight dislocations at many points: sums over lines of the rational functions of sextic.hpp.
#pragma once

#include "base/views.hpp"

namespace chemomech::dislocation {

// out[n, c] = sum over lines m of signs[m] f_c(points[n] - lines[m]), with r^2 = x^2 + y^2 and
//   f_c = r^2 / (r^2 + core^2) * sum over k of numerators[c, k] x^(5-k) y^k / sum over k of denominator[k] x^(6-k) y^k
// At a distance r the softened field is the line's times r^2 / (r^2 + core^2); it is zero on the line. With core = 0
// it is the line's own, and NaN on the line.
// numerators (4, 6) or (6, 6), denominator (7,), points (n, 2), lines (m, 2), signs (m,), out (n, 4 or 6).
void evaluate(View<const double, 2> numerators, View<const double, 1> denominator, View<const double, 2> points,
              View<const double, 2> lines, View<const double, 1> signs, double core, View<double, 2> out);

// out[n, i] = sum over lines m of signs[m] u_i(points[n] - lines[m]) with, at the polar coordinates r, phi,
//   2 pi u_i = radial[i] ln r + burgers[i] phi + sum over k of series[k, i, 0] cos 2(k+1)phi + series[k, i, 1] sin ...
// phi in (-pi, pi]: the cut runs from the line along -x. radial, burgers (3,), series (K, 3, 2), out (n, 3).
void displacement(View<const double, 1> radial, View<const double, 1> burgers, View<const double, 3> series,
                  View<const double, 2> points, View<const double, 2> lines, View<const double, 1> signs,
                  View<double, 2> out);

}  // namespace chemomech::dislocation
