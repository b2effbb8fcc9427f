#include "kinetics/coupling.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/simd.hpp"

namespace chemomech::kinetics {
namespace {

constexpr int iteration_limit = 500;
// Of the square of the right side: below it residuals are rounding, of a right side that is next to constant, say.
constexpr double rounding = 1e-30;
// Part of the diagonal of G below which no entry of the preconditioner falls.
constexpr double least_diagonal = 0.1;

// `width` values as registers of eight, or as one.
template <int width>
struct Row {
  static constexpr int w = width < 8 ? width : 8, count = width / w;
  lanes<double, w> part[count];

  static Row at(const double* from) {
    Row row;
    for (int s = 0; s < count; ++s) row.part[s] = load<w>(from + s * w);
    return row;
  }
  static Row all(double value) {
    Row row;
    for (int s = 0; s < count; ++s) row.part[s] = lanes<double, w>{} + value;
    return row;
  }
  void to(double* out) const {
    for (int s = 0; s < count; ++s) store(out + s * w, part[s]);
  }
  void add(const Row& a, const Row& b) {  // + a b
    for (int s = 0; s < count; ++s) part[s] += a.part[s] * b.part[s];
  }
  void add(double a, const Row& b) {
    for (int s = 0; s < count; ++s) part[s] += a * b.part[s];
  }
};

template <int width>
void add_coherency(const Coupling& coupling, const double* x, double* out) {
  using R = Row<width>;
  const index n = coupling.n_cells(), rank = coupling.rank;
  std::vector<double> sum(coupling.n_pixels * width, 0.0), amplitude(rank * width, 0.0);
  for (index i = 0; i < n; ++i) {
    double* to = sum.data() + coupling.pixel[i] * width;
    R total = R::at(to);
    total.add(1.0, R::at(x + i * width));
    total.to(to);
  }
  for (index p = 0; p < coupling.n_pixels; ++p) {
    const R own = R::at(sum.data() + p * width);
    for (index r = 0; r < rank; ++r) {
      R total = R::at(amplitude.data() + r * width);
      total.add(coupling.rows[p * rank + r], own);
      total.to(amplitude.data() + r * width);
    }
  }
  for (index p = 0; p < coupling.n_pixels; ++p) {
    R total = R::all(0);
    for (index r = 0; r < rank; ++r) total.add(coupling.rows[p * rank + r], R::at(amplitude.data() + r * width));
    total.to(sum.data() + p * width);
  }
  for (index i = 0; i < n; ++i) {
    R total = R::at(out + i * width);
    total.add(1.0, R::at(sum.data() + coupling.pixel[i] * width));
    total.to(out + i * width);
  }
}

}  // namespace

template <int width>
void Coupling::apply(const double* x, double* out) const {
  using R = Row<width>;
  for (index i = 0; i < n_cells(); ++i) {
    R sum = R::all(0);
    for (std::int32_t e = indptr[i]; e < indptr[i + 1]; ++e) sum.add(values[e], R::at(x + indices[e] * width));
    sum.to(out + i * width);
  }
  if (rank > 0) add_coherency<width>(*this, x, out);
}

StepMatrix::StepMatrix(std::vector<double> entries, const Coupling& coupling, bool conserving)
    : diagonal(std::move(entries)), inverse(diagonal.size()), conserves(conserving) {
  for (std::size_t i = 0; i < diagonal.size(); ++i) {
    const double own = coupling.diagonal[i];
    inverse[i] = 1 / std::max(diagonal[i] + own, least_diagonal * own + 1e-300);
    inverse_sum += inverse[i];
  }
}

template <int width>
bool solve(const StepMatrix& matrix, const Coupling& coupling, const double* b, double tolerance,
           bool relative_to_guess, double* x, double* constant, Workspace& work) {
  using R = Row<width>;
  const index n = coupling.n_cells();
  double *remainder = work.remainder.data(), *direction = work.direction.data(), *image = work.image.data();
  double first[width], second[width], shift[width], product[width], limit[width];
  // Projection on the plane of the sum (Gould, Hribar & Nocedal 2001): the constant to take from r so that inverse r
  // sums to zero, and the product of the two after that.
  const auto project = [&](const R& sum, const R& square, double* out) {
    sum.to(first), square.to(second);
    for (int l = 0; l < width; ++l) {
      shift[l] = matrix.conserves ? first[l] / matrix.inverse_sum : 0;
      out[l] = second[l] - shift[l] * first[l];
    }
  };
  coupling.apply<width>(x, image);
  R sum = R::all(0), square = R::all(0), right_sum = R::all(0), right_square = R::all(0);
  for (index i = 0; i < n; ++i) {
    const R right = R::at(b + i * width);
    R left = right;
    left.add(-matrix.diagonal[i], R::at(x + i * width));
    left.add(-1.0, R::at(image + i * width));
    left.to(remainder + i * width);
    R scaled = R::all(0), right_scaled = R::all(0);
    scaled.add(matrix.inverse[i], left), right_scaled.add(matrix.inverse[i], right);
    sum.add(1.0, scaled), square.add(scaled, left);
    right_sum.add(1.0, right_scaled), right_square.add(right_scaled, right);
  }
  double whole[width];
  right_square.to(whole);
  project(right_sum, right_square, limit);
  project(sum, square, product);
  std::copy_n(shift, width, constant);
  // Once more without the constant, in which a small residual would drown.
  R away = R::at(shift);
  sum = R::all(0), square = R::all(0);
  for (index i = 0; i < n; ++i) {
    R left = R::at(remainder + i * width), scaled = R::all(0);
    left.add(-1.0, away);
    left.to(remainder + i * width);
    scaled.add(matrix.inverse[i], left);
    sum.add(1.0, scaled), square.add(scaled, left);
  }
  project(sum, square, product);
  for (int l = 0; l < width; ++l) {
    const bool by_guess = relative_to_guess || limit[l] == 0;  // only the sum of the guess is given then
    limit[l] = std::max(tolerance * tolerance * (by_guess ? product[l] : limit[l]), rounding * whole[l]);
  }
  std::fill_n(direction, n * width, 0.0);
  double turn[width] = {}, along[width];
  for (int iteration = 0; iteration < iteration_limit; ++iteration) {
    bool done = true;
    for (int l = 0; l < width; ++l) done = done && product[l] <= limit[l];
    for (int l = 0; l < width; ++l) constant[l] += shift[l];
    if (done) return true;
    const R keep = R::at(turn);
    away = R::at(shift);
    for (index i = 0; i < n; ++i) {
      R next = R::all(0), left = R::at(remainder + i * width);
      left.add(-1.0, away);
      left.to(remainder + i * width);
      next.add(matrix.inverse[i], left);
      next.add(keep, R::at(direction + i * width));
      next.to(direction + i * width);
    }
    coupling.apply<width>(direction, image);
    R bend = R::all(0);
    for (index i = 0; i < n; ++i) {
      R out = R::at(image + i * width);
      const R own = R::at(direction + i * width);
      out.add(matrix.diagonal[i], own);
      out.to(image + i * width);
      bend.add(own, out);
    }
    bend.to(along);
    for (int l = 0; l < width; ++l) {
      if (product[l] <= limit[l]) {
        along[l] = 0;  // converged columns rest, and a zero one has nothing to divide by
      } else {
        if (!(along[l] > 0)) return false;
        along[l] = product[l] / along[l];
      }
    }
    const R step = R::at(along);
    sum = R::all(0), square = R::all(0);
    R back = R::all(0);
    back.add(-1.0, step);
    for (index i = 0; i < n; ++i) {
      R to = R::at(x + i * width), left = R::at(remainder + i * width);
      to.add(step, R::at(direction + i * width));
      to.to(x + i * width);
      left.add(back, R::at(image + i * width));
      left.to(remainder + i * width);
      R scaled = R::all(0);
      scaled.add(matrix.inverse[i], left);
      sum.add(1.0, scaled), square.add(scaled, left);
    }
    std::copy_n(product, width, turn);
    project(sum, square, product);
    for (int l = 0; l < width; ++l) turn[l] = along[l] > 0 ? product[l] / turn[l] : 0;
  }
  return false;
}

template void Coupling::apply<1>(const double*, double*) const;
template bool solve<1>(const StepMatrix&, const Coupling&, const double*, double, bool, double*, double*, Workspace&);
template bool solve<lanes_a_chunk>(const StepMatrix&, const Coupling&, const double*, double, bool, double*, double*,
                                   Workspace&);

}  // namespace chemomech::kinetics
