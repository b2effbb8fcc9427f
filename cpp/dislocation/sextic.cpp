#include "dislocation/sextic.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

namespace chemomech::dislocation {
namespace {

template <int n>
using Square = std::array<std::array<double, n>, n>;
using Vector6 = std::array<double, 6>;

template <int n>
Square<n> multiply(const Square<n>& a, const Square<n>& b) {
  Square<n> product{};
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < n; ++k) {
      for (int j = 0; j < n; ++j) product[i][j] += a[i][k] * b[k][j];
    }
  }
  return product;
}

Vector6 apply(const Square<6>& a, const Vector6& x) {
  Vector6 product{};
  for (int i = 0; i < 6; ++i) {
    for (int j = 0; j < 6; ++j) product[i] += a[i][j] * x[j];
  }
  return product;
}

template <int n>
struct Inverse {
  Square<n> matrix;
  double determinant;
};

// Gauss and Jordan with row pivoting.
template <int n>
Inverse<n> invert(Square<n> a) {
  Inverse<n> inverse{{}, 1};
  for (int i = 0; i < n; ++i) inverse.matrix[i][i] = 1;
  for (int column = 0; column < n; ++column) {
    int pivot = column;
    for (int i = column + 1; i < n; ++i) {
      if (std::abs(a[i][column]) > std::abs(a[pivot][column])) pivot = i;
    }
    std::swap(a[column], a[pivot]);
    std::swap(inverse.matrix[column], inverse.matrix[pivot]);
    inverse.determinant *= (pivot == column ? 1 : -1) * a[column][column];
    const double scale = 1 / a[column][column];
    for (int j = 0; j < n; ++j) {
      a[column][j] *= scale;
      inverse.matrix[column][j] *= scale;
    }
    for (int i = 0; i < n; ++i) {
      const double factor = a[i][column];
      if (i == column || factor == 0) continue;
      for (int j = 0; j < n; ++j) {
        a[i][j] -= factor * a[column][j];
        inverse.matrix[i][j] -= factor * inverse.matrix[column][j];
      }
    }
  }
  return inverse;
}

// C_(i j)(k l) with j and l held: Q, R and T of Ting (5.2-5).
Square<3> contract(View<const double, 2> stiffness, int j, int l, double scale) {
  constexpr int voigt[3][3] = {{0, 5, 4}, {5, 1, 3}, {4, 3, 2}};
  Square<3> result;
  for (int i = 0; i < 3; ++i) {
    for (int k = 0; k < 3; ++k) result[i][k] = scale * *stiffness.at(voigt[i][j], voigt[k][l]);
  }
  return result;
}

// Stroh's matrix [[N1, N2], [N3, N1^T]], N1 = -T^-1 R^T, N2 = T^-1, N3 = R T^-1 R^T - Q (Ting 5.5-4).
Square<6> stroh_matrix(View<const double, 2> stiffness, double scale) {
  const Square<3> q = contract(stiffness, 0, 0, scale), r = contract(stiffness, 0, 1, scale);
  const Square<3> inverse = invert<3>(contract(stiffness, 1, 1, scale)).matrix;
  const Square<3> r_inverse = multiply<3>(r, inverse);  // the transpose of T^-1 R^T
  Square<6> n;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      n[i][j] = -r_inverse[j][i];
      n[i][3 + j] = inverse[i][j];
      n[3 + i][j] = -q[i][j];
      for (int k = 0; k < 3; ++k) n[3 + i][j] += r_inverse[i][k] * r[j][k];
      n[3 + i][3 + j] = -r_inverse[i][j];
    }
  }
  return n;
}

// J has N's eigenvectors with i for every root above the real axis and -i below: i times the matrix sign of -i N.
// Newton's iteration for the sign (Higham 2008, section 5.3, scaled by the determinant), written without the i, is
// Y <- (Y - Y^-1) / 2. It converges quadratically whether or not N can be diagonalised.
Square<6> mean_over_directions(const Square<6>& n) {
  Square<6> y = n;
  constexpr int most = 64;  // 8 to 12 are usual; rounding ends the decrease of the steps
  double last = std::numeric_limits<double>::infinity();
  for (int iteration = 0; iteration < most; ++iteration) {
    const Inverse<6> inverse = invert<6>(y);
    const double scale = last > 1e-2 ? std::pow(std::abs(inverse.determinant), -1. / 6) : 1;
    double step = 0, size = 0;
    for (int i = 0; i < 6; ++i) {
      for (int j = 0; j < 6; ++j) {
        const double next = 0.5 * (scale * y[i][j] - inverse.matrix[i][j] / scale);
        step += (next - y[i][j]) * (next - y[i][j]);
        size += next * next;
        y[i][j] = next;
      }
    }
    step = std::sqrt(step / size);
    if (step < 1e-15 || (last < 1e-6 && step >= last)) break;
    last = step;
  }
  return y;
}

}  // namespace

void solve_sextic(View<const double, 2> stiffness, View<const double, 1> burgers, View<double, 1> radial,
                  View<double, 2> hoop, View<double, 1> denominator, View<double, 2> barnett_lothe) {
  double modulus = 0;  // makes N a pure number
  for (int i = 0; i < 6; ++i) modulus += *stiffness.at(i, i) / 6;
  const Square<6> n = stroh_matrix(stiffness, 1 / modulus);
  const Square<6> j = mean_over_directions(n);

  // Faddeev: (x + y N) sum_k x^(5-k) y^k B_k = D, hence B_0 = 1, B_k = d_k - N B_(k-1), d_k = trace(N B_(k-1)) / k.
  // With a_k = B_k J (b, 0): u,phi = x u,y - y u,x has x (N a_k) and -y a_k.
  Square<6> b{};
  for (int i = 0; i < 6; ++i) b[i][i] = 1;
  denominator.data[0] = 1;
  const Vector6 start = apply(j, Vector6{burgers.data[0], burgers.data[1], burgers.data[2], 0, 0, 0});
  std::fill_n(hoop.data, hoop.size(), 0.);
  for (int i = 0; i < 3; ++i) radial.data[i] = -start[i] / (2 * std::numbers::pi);
  for (int k = 0; k < 6; ++k) {
    const Vector6 along_x = apply(b, start), along_y = apply(n, along_x);
    for (int i = 0; i < 3; ++i) {
      *hoop.at(i, k) -= along_y[i] / (2 * std::numbers::pi);
      *hoop.at(i, k + 1) += along_x[i] / (2 * std::numbers::pi);
    }
    const Square<6> nb = multiply<6>(n, b);
    double trace = 0;
    for (int i = 0; i < 6; ++i) trace += nb[i][i];
    denominator.data[k + 1] = trace / (k + 1);
    for (int i = 0; i < 6; ++i) {
      for (int m = 0; m < 6; ++m) b[i][m] = (i == m ? denominator.data[k + 1] : 0) - nb[i][m];
    }
  }
  for (int i = 0; i < 6; ++i) {
    for (int k = 0; k < 6; ++k) {
      const double unit = (i < 3) == (k < 3) ? 1 : (i < 3 ? 1 / modulus : modulus);
      *barnett_lothe.at(i, k) = unit * j[i][k];
    }
  }
}

}  // namespace chemomech::dislocation
