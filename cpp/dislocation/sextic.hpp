// Field of a straight dislocation in an anisotropic medium: Stroh's sextic formalism (Ting 1996, ch. 5 to 7) without
// its roots and eigenvectors, so that equal roots (isotropy) are no exception and nothing is perturbed.
// Frame: line along x3, fields depend on x and y. Lengths nm, stiffness GPa.
//
// The displacement and the stress function are w = (u, phi) = -1/(2 pi) J ln(x + y N) (b, 0): N is Stroh's real matrix,
// J = [[S, H], [-L, S^T]] the mean of N over all directions of x (Barnett and Lothe 1973). Hence
//   w,x = -1/(2 pi) (x + y N)^-1 J (b, 0)   and   w,y = N w,x.
// An inverse is adjugate over determinant: homogeneous polynomials of degree 5 and 6 in x and y with real coefficients.
// Along the radius r w,r = -1/(2 pi) J (b, 0) is constant, so only the derivative along the angle needs them.
#pragma once

#include "base/views.hpp"

namespace chemomech::dislocation {

// stiffness (6, 6): Voigt, engineering shears, positive definite, in the frame of the line. burgers (3,).
//   r du_i/dr = radial[i]        du_i/dphi = sum over k of hoop[i, k] x^(6-k) y^k / sum over k of denominator[k]
//   x^(6-k) y^k
// radial (3,), hoop (3, 7), denominator (7,), positive off the line. barnett_lothe (6, 6) is J; its square is -1 up to
// rounding.
void solve_sextic(View<const double, 2> stiffness, View<const double, 1> burgers, View<double, 1> radial,
                  View<double, 2> hoop, View<double, 1> denominator, View<double, 2> barnett_lothe);

}  // namespace chemomech::dislocation
