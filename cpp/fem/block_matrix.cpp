#include "fem/block_matrix.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "base/threads.hpp"

namespace chemomech::fem {
namespace {

constexpr index rows_per_thread = 2048;

// finish(row, u, v) receives the two components of (K x) of a row, k values each. With `width` known to the compiler
// they stay in registers; width 0 takes k at run time.
template <int width, class Finish>
void sweep(const BlockMatrix& matrix, View<const double, 3> x, const Finish& finish) {
  const index k = width > 0 ? width : x.shape[2];
  for_ranges(x.shape[0], rows_per_thread, [&](index begin, index end) {
    constexpr std::size_t fixed = width > 0 ? 2 * width : 1;
    std::array<double, fixed> registers;
    std::vector<double> memory(width > 0 ? 0 : static_cast<std::size_t>(2 * k));
    double* u = width > 0 ? registers.data() : memory.data();
    double* v = u + k;
    for (index row = begin; row < end; ++row) {
      std::fill_n(u, 2 * k, 0.);
      for (index at = matrix.indptr.data[row]; at < matrix.indptr.data[row + 1]; ++at) {
        const double* block = matrix.values.data + 4 * at;
        const double* xu = x.data + 2 * k * index{matrix.indices.data[at]};
        const double* xv = xu + k;
        for (index j = 0; j < k; ++j) {
          u[j] += block[0] * xu[j] + block[1] * xv[j];
          v[j] += block[2] * xu[j] + block[3] * xv[j];
        }
      }
      finish(row, u, v);
    }
  });
}

// call(width) with k as a compile-time constant for the usual numbers of columns, 0 for the others.
template <class Call>
void with_width(index k, const Call& call) {
  switch (k) {
    case 1:
      return call(std::integral_constant<int, 1>{});
    case 2:
      return call(std::integral_constant<int, 2>{});
    case 3:
      return call(std::integral_constant<int, 3>{});
    case 4:
      return call(std::integral_constant<int, 4>{});
    case 6:
      return call(std::integral_constant<int, 6>{});
    case 8:
      return call(std::integral_constant<int, 8>{});
    default:
      return call(std::integral_constant<int, 0>{});
  }
}

}  // namespace

void multiply(const BlockMatrix& matrix, View<const double, 3> x, View<double, 3> y) {
  with_width(x.shape[2], [&](auto width) {
    const index k = width > 0 ? width : x.shape[2];
    sweep<width>(matrix, x,
                 [&](index row, const double* u, const double*) { std::copy_n(u, 2 * k, y.data + 2 * k * row); });
  });
}

void residual(const BlockMatrix& matrix, View<const double, 3> right_hand_side, View<const double, 3> x,
              View<double, 3> r) {
  with_width(x.shape[2], [&](auto width) {
    const index k = width > 0 ? width : x.shape[2];
    sweep<width>(matrix, x, [&](index row, const double* u, const double*) {
      const double* b = right_hand_side.data + 2 * k * row;
      double* out = r.data + 2 * k * row;
      for (index j = 0; j < 2 * k; ++j) out[j] = b[j] - u[j];
    });
  });
}

void smooth(const BlockMatrix& matrix, View<const double, 3> inverse_diagonal, View<const double, 3> right_hand_side,
            View<const double, 3> x, View<double, 3> direction, double alpha, double beta, View<double, 3> x_new) {
  with_width(x.shape[2], [&](auto width) {
    const index k = width > 0 ? width : x.shape[2];
    sweep<width>(matrix, x, [&](index row, const double* u, const double* v) {
      const index at = 2 * k * row;
      const double *bu = right_hand_side.data + at, *bv = bu + k;
      const double *xu = x.data + at, *xv = xu + k;
      const double* inverse = inverse_diagonal.data + 4 * row;
      double *du = direction.data + at, *dv = du + k;
      double *nu = x_new.data + at, *nv = nu + k;
      for (index j = 0; j < k; ++j) {
        const double ru = bu[j] - u[j], rv = bv[j] - v[j];
        du[j] = alpha * du[j] + beta * (inverse[0] * ru + inverse[1] * rv);
        dv[j] = alpha * dv[j] + beta * (inverse[2] * ru + inverse[3] * rv);
        nu[j] = xu[j] + du[j];
        nv[j] = xv[j] + dv[j];
      }
    });
  });
}

}  // namespace chemomech::fem
