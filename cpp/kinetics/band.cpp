#include "kinetics/band.hpp"

#include <algorithm>
#include <cmath>

#include "base/simd.hpp"

namespace chemomech::kinetics {
namespace {

constexpr int width = 8;
constexpr int registers = lanes_a_chunk / width;
using Eight = lanes<double, width>;

}  // namespace

bool factorise(BandMatrix& matrix) {
  for (index j = 0; j < matrix.n; ++j) {
    double* pivot_column = matrix.column(j);
    const double inverse = 1 / pivot_column[0];
    if (!std::isfinite(inverse)) return false;
    const index reach = std::min(matrix.bandwidth, matrix.n - 1 - j);
    for (index k = 1; k <= reach; ++k) {
      const double factor = pivot_column[k] * inverse;
      double* target = matrix.column(j + k) - k;
      for (index m = k; m <= reach; ++m) target[m] -= factor * pivot_column[m];
    }
    pivot_column[0] = inverse;
    for (index k = 1; k <= reach; ++k) pivot_column[k] *= inverse;
  }
  return true;
}

void solve(const BandMatrix& factor, double* x) {
  for (index j = 0; j < factor.n; ++j) {
    const double* column = factor.column(j);
    const index reach = std::min(factor.bandwidth, factor.n - 1 - j);
    const double value = x[j];
    for (index k = 1; k <= reach; ++k) x[j + k] -= column[k] * value;
    x[j] = value * column[0];
  }
  for (index j = factor.n - 1; j-- > 0;) {
    const double* column = factor.column(j);
    const index reach = std::min(factor.bandwidth, factor.n - 1 - j);
    double partial[4] = {};  // four sums, which the compiler may not make of one
    index k = 1;
    for (; k + 3 <= reach; k += 4) {
      for (int p = 0; p < 4; ++p) partial[p] += column[k + p] * x[j + k + p];
    }
    for (; k <= reach; ++k) partial[0] += column[k] * x[j + k];
    x[j] -= (partial[0] + partial[1]) + (partial[2] + partial[3]);
  }
}

void solve_lanes(const BandMatrix& factor, double* x) {
  const index stride = factor.bandwidth + 1;
  const auto row = [x](index i) { return x + i * lanes_a_chunk; };
  for (index i = 0; i < factor.n; ++i) {
    Eight sum[registers];
    for (int s = 0; s < registers; ++s) sum[s] = load<width>(row(i) + s * width);
    const index reach = std::min(factor.bandwidth, i);
    const double* entry = factor.column(i - reach) + reach;  // [i - k, k] for k = reach..1
    for (index other = i - reach; other < i; ++other, entry += stride - 1) {
      for (int s = 0; s < registers; ++s) sum[s] -= *entry * load<width>(row(other) + s * width);
    }
    for (int s = 0; s < registers; ++s) store(row(i) + s * width, sum[s]);
  }
  for (index j = factor.n; j-- > 0;) {
    const double* column = factor.column(j);
    const index reach = std::min(factor.bandwidth, factor.n - 1 - j);
    Eight sum[registers];
    for (int s = 0; s < registers; ++s) sum[s] = column[0] * load<width>(row(j) + s * width);
    for (index k = 1; k <= reach; ++k) {
      for (int s = 0; s < registers; ++s) sum[s] -= column[k] * load<width>(row(j + k) + s * width);
    }
    for (int s = 0; s < registers; ++s) store(row(j) + s * width, sum[s]);
  }
}

}  // namespace chemomech::kinetics
