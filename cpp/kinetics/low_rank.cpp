#include "kinetics/low_rank.hpp"

#include <algorithm>
#include <type_traits>

namespace chemomech::kinetics {
namespace {

constexpr int wide = lanes_a_chunk;

void solve_columns(const BandMatrix& factor, double* x, std::integral_constant<int, 1>) { solve(factor, x); }
void solve_columns(const BandMatrix& factor, double* x, std::integral_constant<int, wide>) { solve_lanes(factor, x); }

template <int width>
void solve_with(const StepMatrix& factor, const LowRank& addition, double* x) {
  constexpr std::integral_constant<int, width> columns;
  if (addition.rank == 0) return solve_columns(factor.band, x, columns);
  const std::size_t size = static_cast<std::size_t>(factor.band.n) * width;
  std::vector<double> right(x, x + size), amplitude(static_cast<std::size_t>(addition.rank) * width);
  solve_columns(factor.band, x, columns);
  addition.project<width>(x, amplitude.data());
  solve_columns(factor.capacity, amplitude.data(), columns);
  for (double& value : amplitude) value = -value;
  addition.spread<width>(amplitude.data(), right.data());
  std::copy(right.begin(), right.end(), x);
  solve_columns(factor.band, x, columns);
}

}  // namespace

template <int width>
void LowRank::project(const double* x, double* t) const {
  std::vector<double> sum(static_cast<std::size_t>(n_pixels) * width, 0.0);
  for (std::size_t i = 0; i < pixel.size(); ++i) {
    for (int l = 0; l < width; ++l) sum[pixel[i] * width + l] += x[i * width + l];
  }
  std::fill_n(t, rank * width, 0.0);
  for (index p = 0; p < n_pixels; ++p) {
    const double* row = rows.data() + p * rank;
    for (index r = 0; r < rank; ++r) {
      for (int l = 0; l < width; ++l) t[r * width + l] += row[r] * sum[p * width + l];
    }
  }
}

template <int width>
void LowRank::spread(const double* t, double* x) const {
  std::vector<double> sum(static_cast<std::size_t>(n_pixels) * width, 0.0);
  for (index p = 0; p < n_pixels; ++p) {
    const double* row = rows.data() + p * rank;
    double* to = sum.data() + p * width;
    for (index r = 0; r < rank; ++r) {
      for (int l = 0; l < width; ++l) to[l] += row[r] * t[r * width + l];
    }
  }
  for (std::size_t i = 0; i < pixel.size(); ++i) {
    for (int l = 0; l < width; ++l) x[i * width + l] += sum[pixel[i] * width + l];
  }
}

template void LowRank::project<1>(const double*, double*) const;
template void LowRank::spread<1>(const double*, double*) const;

bool factorise(StepMatrix& matrix, const LowRank& addition) {
  if (!factorise(matrix.band)) return false;
  const index rank = addition.rank;
  std::vector<double> columns(static_cast<std::size_t>(matrix.band.n) * wide);
  std::vector<double> products(static_cast<std::size_t>(rank) * wide);
  for (index first = 0; first < rank; first += wide) {
    const index count = std::min<index>(wide, rank - first);
    std::fill(columns.begin(), columns.end(), 0.0);
    for (std::size_t i = 0; i < addition.pixel.size(); ++i) {
      std::copy_n(addition.rows.data() + addition.pixel[i] * rank + first, count, columns.data() + i * wide);
    }
    solve_lanes(matrix.band, columns.data());
    addition.project<wide>(columns.data(), products.data());
    for (index l = 0; l < count; ++l) {
      double* column = matrix.capacity.column(first + l);
      for (index r = first + l; r < rank; ++r) column[r - first - l] = products[r * wide + l];
      column[0] += 1;
    }
  }
  return rank == 0 || factorise(matrix.capacity);
}

void solve(const StepMatrix& factor, const LowRank& addition, double* x) { solve_with<1>(factor, addition, x); }

void solve_lanes(const StepMatrix& factor, const LowRank& addition, double* x) {
  solve_with<wide>(factor, addition, x);
}

}  // namespace chemomech::kinetics
