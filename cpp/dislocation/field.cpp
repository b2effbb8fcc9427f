#include "dislocation/field.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/simd.hpp"
#include "base/threads.hpp"

namespace chemomech::dislocation {
namespace {

// Two registers of eight points at a time: one waits for its division while the other multiplies.
constexpr int width = 8, registers = 2, block = width * registers;
using Points = lanes<double, width>;

// Below this many pairs a thread costs more than it gives.
constexpr index pairs_worth_a_thread = 20000;

template <int n_fields>
struct Rational {
  double top[n_fields][6], bottom[7];
  double core2, floor;
};

// Every polynomial is split into parts even and odd in y, so that all of them share x^4, x^2 y^2 and y^4.
template <int n_fields>
void add_line(const Rational<n_fields>& f, Points x, Points y, double sign, Points (&sum)[n_fields]) {
  const Points xx = x * x, yy = y * y, a = xx * xx, b = xx * yy, c = yy * yy;
  const double* d = f.bottom;
  const Points bottom = xx * (d[0] * a + d[2] * b + d[4] * c) + d[6] * (yy * c) +  //
                        x * y * (d[1] * a + d[3] * b + d[5] * c);
  const Points r2 = xx + yy;
  const Points scale = sign * r2 / (bottom * (r2 + f.core2) + f.floor);
  const Points sx = scale * x, sy = scale * y;
  for (int i = 0; i < n_fields; ++i) {
    const double* p = f.top[i];
    sum[i] += sx * (p[0] * a + p[2] * b + p[4] * c) + sy * (p[1] * a + p[3] * b + p[5] * c);
  }
}

template <int n_fields>
void evaluate_as(View<const double, 2> numerators, View<const double, 1> denominator, View<const double, 2> points,
                 View<const double, 2> lines, View<const double, 1> signs, double core, View<double, 2> out) {
  Rational<n_fields> f;
  std::copy_n(numerators.data, 6 * n_fields, f.top[0]);
  std::copy_n(denominator.data, 7, f.bottom);
  f.core2 = core * core;
  f.floor = core > 0 ? std::numeric_limits<double>::min() : 0;  // 0 on a softened line, not 0 / 0
  const index n = points.shape[0], n_lines = lines.shape[0];
  const index grain = std::max<index>(block, pairs_worth_a_thread / std::max<index>(n_lines, 1));
  for_ranges(n, grain, [&](index first, index last) {
    for (index begin = first; begin < last; begin += block) {
      const int count = static_cast<int>(std::min<index>(block, last - begin));
      double coordinates[2][block];
      for (int p = 0; p < block; ++p) {
        const double* point = points.at(begin + std::min(p, count - 1));
        coordinates[0][p] = point[0];
        coordinates[1][p] = point[1];
      }
      Points sum[registers][n_fields] = {};
      Points x[registers], y[registers];
      for (int v = 0; v < registers; ++v) {
        x[v] = load<width>(coordinates[0] + width * v);
        y[v] = load<width>(coordinates[1] + width * v);
      }
      for (index m = 0; m < n_lines; ++m) {
        const double* line = lines.at(m);
        for (int v = 0; v < registers; ++v) add_line(f, x[v] - line[0], y[v] - line[1], signs.data[m], sum[v]);
      }
      double values[n_fields][block];
      for (int i = 0; i < n_fields; ++i) {
        for (int v = 0; v < registers; ++v) store(values[i] + width * v, sum[v][i]);
      }
      double* to = out.at(begin);
      for (int p = 0; p < count; ++p) {
        for (int i = 0; i < n_fields; ++i) to[p * n_fields + i] = values[i][p];
      }
    }
  });
}

}  // namespace

void evaluate(View<const double, 2> numerators, View<const double, 1> denominator, View<const double, 2> points,
              View<const double, 2> lines, View<const double, 1> signs, double core, View<double, 2> out) {
  if (numerators.shape[0] == 4) {
    evaluate_as<4>(numerators, denominator, points, lines, signs, core, out);
  } else {
    evaluate_as<6>(numerators, denominator, points, lines, signs, core, out);
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
        for (int i = 0; i < 3; ++i) sum[i] += signs.data[m] / (2 * M_PI) * u[i];
      }
      std::copy_n(sum, 3, out.at(n));
    }
  });
}

}  // namespace chemomech::dislocation
