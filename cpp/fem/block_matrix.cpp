#include "fem/block_matrix.hpp"

#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include "base/simd.hpp"
#include "base/threads.hpp"

namespace chemomech::fem {
namespace {

// Work for about a millisecond each, which waiting for another thread does not spoil: rows of a matrix, and of vectors.
constexpr index rows_per_thread = 1 << 15;
constexpr index vector_rows_per_thread = 1 << 18;
constexpr index rows_per_chunk = 1 << 11;  // of a sum
constexpr index rows_at_once = 64;

template <int value>
using constant = std::integral_constant<int, value>;

// part(width, first) on columns [first, first + width) of k, in parts whose width the compiler knows.
template <class Part>
inline void for_columns(index k, const Part& part) {
  index first = 0;
  for (; first + 8 <= k; first += 8) part(constant<8>{}, first);
  if (k & 4) part(constant<4>{}, first), first += 4;
  if (k & 2) part(constant<2>{}, first), first += 2;
  if (k & 1) part(constant<1>{}, first);
}

// finish(width, at, row, sum) receives (K x) of some columns of a row: component i in sum[i], to go to at + i k.
template <int r, int c, int w, class Real, class Finish>
[[gnu::noinline]] void sweep_rows(const BlockMatrix<Real>& matrix, const Real* x, index k, index first, index begin,
                                  index end, const Finish& finish) {
  const std::int32_t* const indices = matrix.indices.data;
  const std::int32_t* const indptr = matrix.indptr.data;
  const index last = matrix.indices.shape[0] - 1;
  const Real* block = matrix.values.data + r * c * index{indptr[begin]};
  for (index row = begin; row < end; ++row) {
    lanes<Real, w> sum[c][r] = {};  // one a column of the blocks: multiply-adds that do not wait for each other
    for (index at = indptr[row]; at < indptr[row + 1]; ++at, block += r * c) {
      __builtin_prefetch(x + c * k * index{indices[std::min(at + prefetch_distance, last)]} + first);
      const Real* const values = x + c * k * index{indices[at]} + first;
      for (int l = 0; l < c; ++l) {
        const auto value = load<w>(values + l * k);
        for (int i = 0; i < r; ++i) sum[l][i] += block[i * c + l] * value;
      }
    }
    for (int l = 1; l < c; ++l) {
      for (int i = 0; i < r; ++i) sum[0][i] += sum[l][i];
    }
    finish(constant<w>{}, r * k * row + first, row, sum[0]);
  }
}

template <int r, int c, class Real, class Finish>
void sweep(const BlockMatrix<Real>& matrix, View<const Real, 3> x, const Finish& finish) {
  const index k = x.shape[2];
  for_ranges(matrix.indptr.shape[0] - 1, rows_per_thread, [&](index begin, index end) {
    // Further columns find the blocks of a few rows in the cache.
    for (index from = begin; from < end; from += rows_at_once) {
      const index to = std::min(from + rows_at_once, end);
      for_columns(
          k, [&](auto width, index first) { sweep_rows<r, c, width>(matrix, x.data, k, first, from, to, finish); });
    }
  });
}

// call(r, c) with the block's shape as compile-time constants; the binding admits no other shapes.
template <class Real, class Call>
void with_block(const BlockMatrix<Real>& matrix, const Call& call) {
  switch (10 * matrix.values.shape[1] + matrix.values.shape[2]) {
    case 11:
      return call(constant<1>{}, constant<1>{});
    case 22:
      return call(constant<2>{}, constant<2>{});
    case 23:
      return call(constant<2>{}, constant<3>{});
    case 32:
      return call(constant<3>{}, constant<2>{});
    default:
      return call(constant<3>{}, constant<3>{});
  }
}

// call(r) for square blocks.
template <class Call>
void with_size(index size, const Call& call) {
  if (size == 1) return call(constant<1>{});
  if (size == 2) return call(constant<2>{});
  call(constant<3>{});
}

}  // namespace

template <class Real>
void multiply(const BlockMatrix<Real>& matrix, View<const Real, 3> x, View<Real, 3> y) {
  const index k = x.shape[2];
  with_block(matrix, [&](auto r, auto c) {
    sweep<r, c>(matrix, x, [=](auto, index at, index, const auto* sum) {
      for (int i = 0; i < r; ++i) store(y.data + at + i * k, sum[i]);
    });
  });
}

template <class Real>
void add_product(const BlockMatrix<Real>& matrix, View<const Real, 3> b, Real sign, View<const Real, 3> x,
                 View<Real, 3> y) {
  const index k = x.shape[2];
  with_block(matrix, [&](auto r, auto c) {
    sweep<r, c>(matrix, x, [=](auto w, index at, index, const auto* sum) {
      for (int i = 0; i < r; ++i, at += k) store(y.data + at, load<w>(b.data + at) + sign * sum[i]);
    });
  });
}

template <class Real>
void smooth(const BlockMatrix<Real>& matrix, View<const Real, 3> inverse_diagonal, View<const Real, 3> b,
            View<const Real, 3> x, View<Real, 3> direction, Real alpha, Real beta, View<Real, 3> x_new) {
  const index k = x.shape[2];
  with_size(x.shape[1], [&](auto r) {
    sweep<r, r>(matrix, x, [=](auto w, index at, index row, const auto* sum) {
      const Real* inverse = inverse_diagonal.data + r * r * row;
      constexpr int size = r;
      lanes<Real, w> step[size] = {};
      for (int l = 0; l < size; ++l) {
        const auto residual = load<w>(b.data + at + l * k) - sum[l];
        for (int i = 0; i < size; ++i) step[i] += inverse[i * size + l] * residual;
      }
      for (int i = 0; i < size; ++i, at += k) {
        const auto moved = alpha * load<w>(direction.data + at) + beta * step[i];
        store(direction.data + at, moved);
        store(x_new.data + at, load<w>(x.data + at) + moved);
      }
    });
  });
}

template <class Real>
void smooth_from_zero(View<const Real, 3> inverse_diagonal, View<const Real, 3> b, View<Real, 3> direction, Real beta,
                      View<Real, 3> x_new) {
  const index k = b.shape[2];
  with_size(b.shape[1], [&](auto r) {
    for_ranges(b.shape[0], rows_per_thread, [&](index begin, index end) {
      for (index row = begin; row < end; ++row) {
        const Real* inverse = inverse_diagonal.data + r * r * row;
        for (index j = 0; j < k; ++j) {
          for (int i = 0; i < r; ++i) {
            Real step = 0;
            for (int l = 0; l < r; ++l) step += inverse[i * r + l] * b.data[k * (r * row + l) + j];
            direction.data[k * (r * row + i) + j] = x_new.data[k * (r * row + i) + j] = beta * step;
          }
        }
      }
    });
  });
}

template <class Real>
void combine(View<const double, 1> a, View<const Real, 2> x, View<const double, 1> b, View<double, 2> y) {
  const index k = x.shape[1];
  for_ranges(x.shape[0], vector_rows_per_thread, [&](index begin, index end) {
    for_columns(k, [&](auto width, index first) {
      std::array<double, width> of_x, of_y;
      std::copy_n(a.data + first, int{width}, of_x.data());
      std::copy_n(b.data + first, int{width}, of_y.data());
      for (index row = begin; row < end; ++row) {
        const Real* from = x.data + k * row + first;
        double* to = y.data + k * row + first;
        for (std::size_t j = 0; j < width; ++j) to[j] = of_x[j] * static_cast<double>(from[j]) + of_y[j] * to[j];
      }
    });
  });
}

template <class Real>
void dot(View<const double, 2> x, View<const Real, 2> y, View<double, 1> sums) {
  const index n = x.shape[0], k = x.shape[1];
  const index n_chunks = (n + rows_per_chunk - 1) / rows_per_chunk;
  std::vector<double> of_chunk(static_cast<std::size_t>(n_chunks * k));
  for_ranges(n_chunks, vector_rows_per_thread / rows_per_chunk, [&](index begin, index end) {
    for (index chunk = begin; chunk < end; ++chunk) {
      for_columns(k, [&](auto width, index first) {
        std::array<double, width> sum{};
        for (index row = chunk * rows_per_chunk; row < std::min(n, (chunk + 1) * rows_per_chunk); ++row) {
          const double* left = x.data + k * row + first;
          const Real* right = y.data + k * row + first;
          for (std::size_t j = 0; j < width; ++j) sum[j] += left[j] * static_cast<double>(right[j]);
        }
        std::copy_n(sum.data(), int{width}, of_chunk.data() + chunk * k + first);
      });
    }
  });
  std::fill_n(sums.data, k, 0.);
  for (index chunk = 0; chunk < n_chunks; ++chunk) {
    for (index j = 0; j < k; ++j) sums.data[j] += of_chunk[static_cast<std::size_t>(chunk * k + j)];
  }
}

#define CHEMOMECH_INSTANTIATE(Real)                                                                                   \
  template void multiply(const BlockMatrix<Real>&, View<const Real, 3>, View<Real, 3>);                               \
  template void add_product(const BlockMatrix<Real>&, View<const Real, 3>, Real, View<const Real, 3>, View<Real, 3>); \
  template void smooth(const BlockMatrix<Real>&, View<const Real, 3>, View<const Real, 3>, View<const Real, 3>,       \
                       View<Real, 3>, Real, Real, View<Real, 3>);                                                     \
  template void smooth_from_zero(View<const Real, 3>, View<const Real, 3>, View<Real, 3>, Real, View<Real, 3>);       \
  template void combine(View<const double, 1>, View<const Real, 2>, View<const double, 1>, View<double, 2>);          \
  template void dot(View<const double, 2>, View<const Real, 2>, View<double, 1>);
CHEMOMECH_INSTANTIATE(float)
CHEMOMECH_INSTANTIATE(double)
#undef CHEMOMECH_INSTANTIATE

}  // namespace chemomech::fem
