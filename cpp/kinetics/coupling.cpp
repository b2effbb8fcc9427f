#include "kinetics/coupling.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/simd.hpp"

namespace chemomech::kinetics {
namespace {

constexpr int iteration_limit = 500;
// Of the square of the right side: below it residuals are rounding, of a right side that is next to constant, say.
template <class Real>
constexpr Real rounding = 20 * std::numeric_limits<Real>::epsilon() * std::numeric_limits<Real>::epsilon();
// Part of the diagonal of G below which no entry of the preconditioner falls.
constexpr double least_diagonal = 0.1;

// `width` values as registers, or as one value.
template <class Real, int width>
struct Row {
  static constexpr int register_width = 64 / sizeof(Real);
  static constexpr int w = width < register_width ? width : register_width, count = width / w;
  lanes<Real, w> part[count];

  static Row at(const Real* from) {
    Row row;
    for (int s = 0; s < count; ++s) row.part[s] = load<w>(from + s * w);
    return row;
  }
  static Row all(Real value) {
    Row row;
    for (int s = 0; s < count; ++s) row.part[s] = lanes<Real, w>{} + value;
    return row;
  }
  void to(Real* out) const {
    for (int s = 0; s < count; ++s) store(out + s * w, part[s]);
  }
  void add(const Row& a, const Row& b) {  // + a b
    for (int s = 0; s < count; ++s) part[s] += a.part[s] * b.part[s];
  }
  void add(Real a, const Row& b) {
    for (int s = 0; s < count; ++s) part[s] += a * b.part[s];
  }
};

template <class Real, int width>
void add_coherency(const Coupling& coupling, const Real* x, Real* out) {
  using R = Row<Real, width>;
  const index n = coupling.n_cells(), rank = coupling.rank;
  std::vector<Real> sum(coupling.n_pixels * width, Real(0)), amplitude(rank * width, Real(0));
  for (index i = 0; i < n; ++i) {
    Real* to = sum.data() + coupling.pixel[i] * width;
    R total = R::at(to);
    total.add(Real(1), R::at(x + i * width));
    total.to(to);
  }
  for (index p = 0; p < coupling.n_pixels; ++p) {
    const R own = R::at(sum.data() + p * width);
    for (index r = 0; r < rank; ++r) {
      R total = R::at(amplitude.data() + r * width);
      total.add(Real(coupling.rows[p * rank + r]), own);
      total.to(amplitude.data() + r * width);
    }
  }
  for (index p = 0; p < coupling.n_pixels; ++p) {
    R total = R::all(0);
    for (index r = 0; r < rank; ++r) total.add(Real(coupling.rows[p * rank + r]), R::at(amplitude.data() + r * width));
    total.to(sum.data() + p * width);
  }
  for (index i = 0; i < n; ++i) {
    R total = R::at(out + i * width);
    total.add(Real(1), R::at(sum.data() + coupling.pixel[i] * width));
    total.to(out + i * width);
  }
}

// out = the sum of a run's entries times x, for `count` registers of consecutive values from i on.
template <int count, class Real>
void apply_run(const Coupling& coupling, const Coupling::Run& run, index width, const Real* x, index i, Real* out) {
  constexpr int w = 64 / sizeof(Real);
  lanes<Real, w> sum[count] = {};
  for (index e = run.first_entry; e < run.end_entry; ++e) {
    const Real value = static_cast<Real>(coupling.value[e]);
    const Real* from = x + i + coupling.distance[e] * width;
    for (int s = 0; s < count; ++s) sum[s] += value * load<w>(from + s * w);
  }
  for (int s = 0; s < count; ++s) store(out + i + s * w, sum[s]);
}

}  // namespace

Coupling::Coupling(View<const std::int32_t, 1> indptr, View<const std::int32_t, 1> indices,
                   View<const double, 1> values, View<const std::int32_t, 1> pixel_of, View<const double, 2> coherency)
    : diagonal(pixel_of.size(), 0.0),
      pixel(pixel_of.data, pixel_of.data + pixel_of.size()),
      rows(coherency.data, coherency.data + coherency.size()),
      n_pixels(coherency.shape[0]),
      rank(coherency.shape[1]) {
  for (index i = 0; i < n_cells(); ++i) {
    const index begin = indptr.data[i], count = indptr.data[i + 1] - begin;
    const auto continues = [&](const Run& run) {
      if (run.end_entry - run.first_entry != count) return false;
      for (index e = 0; e < count; ++e) {
        const index own = run.first_entry + e;
        if (distance[own] != indices.data[begin + e] - i || value[own] != values.data[begin + e]) return false;
      }
      return true;
    };
    if (runs.empty() || !continues(runs.back())) {
      const index first_entry = static_cast<index>(value.size());
      for (index e = begin; e < begin + count; ++e) {
        distance.push_back(indices.data[e] - i);
        value.push_back(values.data[e]);
      }
      runs.push_back({i, i, first_entry, first_entry + count});
    }
    runs.back().end = i + 1;
    for (index e = begin; e < begin + count; ++e) {
      if (indices.data[e] == i) diagonal[i] += values.data[e];
    }
  }
}

template <class Real, int width>
void Coupling::apply(const Real* x, Real* out) const {
  constexpr index w = 64 / sizeof(Real);
  for (const Run& run : runs) {
    index i = run.first * width;
    const index end = run.end * width;
    if (end - i < w) {
      for (; i < end; ++i) {
        Real sum = 0;
        for (index e = run.first_entry; e < run.end_entry; ++e) {
          sum += static_cast<Real>(value[e]) * x[i + distance[e] * width];
        }
        out[i] = sum;
      }
      continue;
    }
    for (; i + 4 * w <= end; i += 4 * w) apply_run<4>(*this, run, width, x, i, out);
    for (; i + w <= end; i += w) apply_run<1>(*this, run, width, x, i, out);
    if (i < end) apply_run<1>(*this, run, width, x, end - w, out);  // some values once more
  }
  if (rank > 0) add_coherency<Real, width>(*this, x, out);
}

StepMatrix::StepMatrix(std::vector<double> entries, const Coupling& coupling, bool conserving)
    : diagonal(std::move(entries)), inverse(diagonal.size()), conserves(conserving) {
  for (std::size_t i = 0; i < diagonal.size(); ++i) {
    const double own = coupling.diagonal[i];
    inverse[i] = 1 / std::max(diagonal[i] + own, least_diagonal * own + 1e-300);
    inverse_sum += inverse[i];
  }
}

template <class Real, int width>
bool solve(const StepMatrix& matrix, const Coupling& coupling, const Real* b, Real tolerance, bool relative_to_guess,
           Real* x, Real* constant, Workspace<Real>& work) {
  using R = Row<Real, width>;
  const index n = coupling.n_cells();
  const Real inverse_sum = static_cast<Real>(matrix.inverse_sum);
  Real *remainder = work.remainder.data(), *direction = work.direction.data(), *image = work.image.data();
  Real first[width], second[width], shift[width], product[width], limit[width];
  // Projection on the plane of the sum (Gould, Hribar & Nocedal 2001): the constant to take from r so that inverse r
  // sums to zero, and the product of the two after that.
  const auto project = [&](const R& sum, const R& square, Real* out) {
    sum.to(first), square.to(second);
    for (int l = 0; l < width; ++l) {
      shift[l] = matrix.conserves ? first[l] / inverse_sum : 0;
      out[l] = second[l] - shift[l] * first[l];
    }
  };
  coupling.apply<Real, width>(x, image);
  R sum = R::all(0), square = R::all(0), right_sum = R::all(0), right_square = R::all(0);
  for (index i = 0; i < n; ++i) {
    const R right = R::at(b + i * width);
    R left = right;
    left.add(Real(-matrix.diagonal[i]), R::at(x + i * width));
    left.add(Real(-1), R::at(image + i * width));
    left.to(remainder + i * width);
    R scaled = R::all(0), right_scaled = R::all(0);
    scaled.add(Real(matrix.inverse[i]), left), right_scaled.add(Real(matrix.inverse[i]), right);
    sum.add(Real(1), scaled), square.add(scaled, left);
    right_sum.add(Real(1), right_scaled), right_square.add(right_scaled, right);
  }
  Real whole[width];
  right_square.to(whole);
  project(right_sum, right_square, limit);
  project(sum, square, product);
  std::copy_n(shift, width, constant);
  // Once more without the constant, in which a small residual would drown.
  R away = R::at(shift);
  sum = R::all(0), square = R::all(0);
  for (index i = 0; i < n; ++i) {
    R left = R::at(remainder + i * width), scaled = R::all(0);
    left.add(Real(-1), away);
    left.to(remainder + i * width);
    scaled.add(Real(matrix.inverse[i]), left);
    sum.add(Real(1), scaled), square.add(scaled, left);
  }
  project(sum, square, product);
  for (int l = 0; l < width; ++l) {
    const bool by_guess = relative_to_guess || limit[l] == 0;  // only the sum of the guess is given then
    limit[l] = std::max(tolerance * tolerance * (by_guess ? product[l] : limit[l]), rounding<Real> * whole[l]);
  }
  std::fill_n(direction, n * width, Real(0));
  Real turn[width] = {}, along[width];
  for (int iteration = 0; iteration < iteration_limit; ++iteration) {
    bool done = true;
    for (int l = 0; l < width; ++l) done = done && product[l] <= limit[l];
    for (int l = 0; l < width; ++l) constant[l] += shift[l];
    if (done) return true;
    const R keep = R::at(turn);
    away = R::at(shift);
    for (index i = 0; i < n; ++i) {
      R next = R::all(0), left = R::at(remainder + i * width);
      left.add(Real(-1), away);
      left.to(remainder + i * width);
      next.add(Real(matrix.inverse[i]), left);
      next.add(keep, R::at(direction + i * width));
      next.to(direction + i * width);
    }
    coupling.apply<Real, width>(direction, image);
    R bend = R::all(0);
    for (index i = 0; i < n; ++i) {
      R out = R::at(image + i * width);
      const R own = R::at(direction + i * width);
      out.add(Real(matrix.diagonal[i]), own);
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
    back.add(Real(-1), step);
    for (index i = 0; i < n; ++i) {
      R to = R::at(x + i * width), left = R::at(remainder + i * width);
      to.add(step, R::at(direction + i * width));
      to.to(x + i * width);
      left.add(back, R::at(image + i * width));
      left.to(remainder + i * width);
      R scaled = R::all(0);
      scaled.add(Real(matrix.inverse[i]), left);
      sum.add(Real(1), scaled), square.add(scaled, left);
    }
    std::copy_n(product, width, turn);
    project(sum, square, product);
    for (int l = 0; l < width; ++l) turn[l] = along[l] > 0 ? product[l] / turn[l] : 0;
  }
  return false;
}

template void Coupling::apply<double, 1>(const double*, double*) const;
template bool solve<double, 1>(const StepMatrix&, const Coupling&, const double*, double, bool, double*, double*,
                               Workspace<double>&);
template bool solve<double, lanes_a_chunk>(const StepMatrix&, const Coupling&, const double*, double, bool, double*,
                                           double*, Workspace<double>&);
template bool solve<float, lanes_a_chunk>(const StepMatrix&, const Coupling&, const float*, float, bool, float*, float*,
                                          Workspace<float>&);

}  // namespace chemomech::kinetics
