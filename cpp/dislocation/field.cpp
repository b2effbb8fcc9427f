#include "dislocation/field.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/simd.hpp"
#include "base/threads.hpp"

namespace chemomech::dislocation {
namespace {

// As many points as fit a register; compilers that split a wider one pass its halves through memory (1.7 times slower).
#if defined(__AVX512F__)
constexpr int width = 8;
#elif defined(__AVX__)
constexpr int width = 4;
#else
constexpr int width = 2;
#endif
using Points = lanes<double, width>;

// Below this many pairs a thread costs more than it gives.
constexpr index pairs_worth_a_thread = 20000;

template <int n>
struct Coefficients {
  double hoop[n][6], denominator[7];
  double core2, floor;
};

// Adds sign / (r^2 + core^2) times x and y to the first two sums, then times -y h_i and x h_i for each i. Even and odd
// powers of y apart, every polynomial is a sum of the same products.
template <int n>
void add_line(const Coefficients<n>& f, Points x, Points y, double sign, Points (&sum)[2 * n + 2]) {
  const Points xx = x * x, yy = y * y, xy = x * y, a = xx * xx, b = xx * yy, c = yy * yy;
  const Points even_a = xx * a, even_b = xx * b, even_c = xx * c, odd_a = xy * a, odd_b = xy * b, odd_c = xy * c;
  const auto polynomial = [&](const double* k) {
    return k[0] * even_a + k[1] * odd_a + k[2] * even_b + k[3] * odd_b + k[4] * even_c + k[5] * odd_c;
  };
  const Points bottom = polynomial(f.denominator) + f.denominator[6] * (yy * c);
  const Points scale = sign / (bottom * (xx + yy + f.core2) + f.floor);
  const Points scaled_x = scale * x, scaled_y = scale * y;
  sum[0] += scaled_x * bottom;
  sum[1] += scaled_y * bottom;
  for (int i = 0; i < n; ++i) {
    const Points top = polynomial(f.hoop[i]);
    sum[2 * i + 2] -= scaled_y * top;
    sum[2 * i + 3] += scaled_x * top;
  }
}

template <int n>
void evaluate_as(View<const double, 1> radial, View<const double, 2> hoop, View<const double, 1> denominator,
                 View<const double, 2> points, View<const double, 2> lines, View<const double, 1> signs, double core,
                 View<double, 3> out) {
  Coefficients<n> f;
  std::copy_n(denominator.data, 7, f.denominator);
  double constant[n];  // h_i on the y axis, taken out of it so that its y^6 is zero
  for (int i = 0; i < n; ++i) {
    constant[i] = *hoop.at(i, 6) / denominator.data[6];
    for (int k = 0; k < 6; ++k) f.hoop[i][k] = *hoop.at(i, k) - constant[i] * denominator.data[k];
  }
  f.core2 = core * core;
  f.floor = core > 0 ? std::numeric_limits<double>::min() : 0;  // 0 on a softened line, not 0 / 0
  const index n_lines = lines.shape[0];
  const index grain = std::max<index>(width, pairs_worth_a_thread / std::max<index>(n_lines, 1));
  for_ranges(points.shape[0], grain, [&](index first, index last) {
    for (index begin = first; begin < last; begin += width) {
      const int count = static_cast<int>(std::min<index>(width, last - begin));
      double coordinates[2][width];
      for (int p = 0; p < width; ++p) {
        const double* point = points.at(begin + std::min(p, count - 1));
        coordinates[0][p] = point[0];
        coordinates[1][p] = point[1];
      }
      const Points x = load<width>(coordinates[0]), y = load<width>(coordinates[1]);
      Points sum[2 * n + 2] = {};
      for (index m = 0; m < n_lines; ++m) {
        const double* line = lines.at(m);
        add_line(f, x - line[0], y - line[1], signs.data[m], sum);
      }
      double values[2 * n][width];
      for (int i = 0; i < n; ++i) {
        const double r = radial.data[i], h = constant[i];
        store(values[2 * i], r * sum[0] - h * sum[1] + sum[2 * i + 2]);
        store(values[2 * i + 1], r * sum[1] + h * sum[0] + sum[2 * i + 3]);
      }
      double* to = out.at(begin);
      for (int p = 0; p < count; ++p) {
        for (int i = 0; i < 2 * n; ++i) to[2 * n * p + i] = values[i][p];
      }
    }
  });
}

}  // namespace

void evaluate(View<const double, 1> radial, View<const double, 2> hoop, View<const double, 1> denominator,
              View<const double, 2> points, View<const double, 2> lines, View<const double, 1> signs, double core,
              View<double, 3> out) {
  if (hoop.shape[0] == 2) {
    evaluate_as<2>(radial, hoop, denominator, points, lines, signs, core, out);
  } else {
    evaluate_as<3>(radial, hoop, denominator, points, lines, signs, core, out);
  }
}

void displacement(View<const double, 1> radial, View<const double, 1> burgers, View<const double, 3> series,
                  View<const double, 2> points, View<const double, 2> lines, View<const double, 1> signs,
                  View<double, 2> out) {
  const index n_lines = lines.shape[0], n_terms = series.shape[0];
  const index grain = std::max<index>(1, pairs_worth_a_thread / 10 / std::max<index>(n_lines, 1));
  for_ranges(points.shape[0], grain, [&](index first, index last) {
    for (index n = first; n < last; ++n) {
      double sum[3] = {};
      for (index m = 0; m < n_lines; ++m) {
        const double x = points.at(n)[0] - lines.at(m)[0], y = points.at(n)[1] - lines.at(m)[1];
        const double r2 = x * x + y * y, log_r = 0.5 * std::log(r2), phi = std::atan2(y, x);
        const double c1 = (x * x - y * y) / r2, s1 = 2 * x * y / r2;
        double u[3], c = c1, s = s1;
        for (int i = 0; i < 3; ++i) u[i] = radial.data[i] * log_r + burgers.data[i] * phi;
        for (index k = 0; k < n_terms; ++k) {
          const double* term = series.at(k);
          for (int i = 0; i < 3; ++i) u[i] += term[2 * i] * c + term[2 * i + 1] * s;
          const double next = c * c1 - s * s1;
          s = s * c1 + c * s1;
          c = next;
        }
        for (int i = 0; i < 3; ++i) sum[i] += signs.data[m] / (2 * std::numbers::pi) * u[i];
      }
      std::copy_n(sum, 3, out.at(n));
    }
  });
}

}  // namespace chemomech::dislocation
