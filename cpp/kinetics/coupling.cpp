#include "kinetics/coupling.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/simd.hpp"

namespace chemomech::kinetics {
namespace {

constexpr int iteration_limit = 500;
// Of the square of the right side, (4.5 eps)^2: below it residuals are rounding, of one that is next to constant, say.
template <class Real>
constexpr Real rounding = 20 * std::numeric_limits<Real>::epsilon() * std::numeric_limits<Real>::epsilon();
// Part of the diagonal of G below which no entry of the preconditioner falls.
constexpr double least_diagonal = 0.1;

// What is done at once to vectors (n, width): a cell's row of columns or, of a single column, several cells side by
// side.
template <class Real, int width>
struct Pack {
  static constexpr int register_width = 64 / sizeof(Real);
  static constexpr int cells = width == 1 ? register_width : 1;
  static constexpr int w = std::min(width * cells, register_width), count = width * cells / w;
  lanes<Real, w> part[count];

  static Pack all(Real value) {
    Pack pack;
    for (int s = 0; s < count; ++s) pack.part[s] = lanes<Real, w>{} + value;
    return pack;
  }
  // Of the cells from i on, zero beyond the n-th.
  static Pack at(const Real* from, index i, index n) {
    if constexpr (cells > 1) {
      if (i + cells > n) {
        Real some[cells] = {};
        std::copy(from + i, from + n, some);
        return at(some, 0, cells);
      }
    }
    Pack pack;
    for (int s = 0; s < count; ++s) pack.part[s] = load<w>(from + i * width + s * w);
    return pack;
  }
  void to(Real* out, index i, index n) const {
    if constexpr (cells > 1) {
      if (i + cells > n) {
        Real some[cells];
        to(some, 0, cells);
        std::copy(some, some + (n - i), out + i);
        return;
      }
    }
    for (int s = 0; s < count; ++s) store(out + i * width + s * w, part[s]);
  }
  // The same for every column, by cell.
  static Pack by_cell(const double* values, index i, index n) {
    if constexpr (cells > 1) {
      return at(values, i, n);
    } else {
      return all(static_cast<Real>(values[i]));
    }
  }
  // The same for every cell, by column.
  static Pack by_column(const Real* values) {
    if constexpr (cells > 1) {
      return all(values[0]);
    } else {
      return at(values, 0, 1);
    }
  }
  // Of each column, where packs of all cells have been added up.
  void total(Real* out) const {
    if constexpr (cells > 1) {
      out[0] = 0;
      for (int l = 0; l < w; ++l) out[0] += part[0][l];
    } else {
      to(out, 0, 1);
    }
  }
  void add(const Pack& a, const Pack& b) {  // + a b
    for (int s = 0; s < count; ++s) part[s] += a.part[s] * b.part[s];
  }
  void add(const Pack& a) {
    for (int s = 0; s < count; ++s) part[s] += a.part[s];
  }
  void subtract(const Pack& a) {
    for (int s = 0; s < count; ++s) part[s] -= a.part[s];
  }
};

template <class Real, int width>
Pack<Real, width> product(const Pack<Real, width>& a, const Pack<Real, width>& b) {
  auto result = Pack<Real, width>::all(0);
  result.add(a, b);
  return result;
}

template <class Real, int width>
void add_coherency(const Coupling& coupling, const Real* x, Real* out) {
  const index n = coupling.n_cells(), rank = coupling.rank;
  std::vector<Real> sum(coupling.n_pixels * width, Real(0)), amplitude(rank * width, Real(0));
  const auto add = [](Real a, const Real* from, Real* to) {
    for (int l = 0; l < width; ++l) to[l] += a * from[l];
  };
  for (index i = 0; i < n; ++i) add(1, x + i * width, sum.data() + coupling.pixel[i] * width);
  for (index p = 0; p < coupling.n_pixels; ++p) {
    for (index r = 0; r < rank; ++r) {
      add(static_cast<Real>(coupling.rows[p * rank + r]), sum.data() + p * width, amplitude.data() + r * width);
    }
  }
  std::fill(sum.begin(), sum.end(), Real(0));
  for (index p = 0; p < coupling.n_pixels; ++p) {
    for (index r = 0; r < rank; ++r) {
      add(static_cast<Real>(coupling.rows[p * rank + r]), amplitude.data() + r * width, sum.data() + p * width);
    }
  }
  for (index i = 0; i < n; ++i) add(1, sum.data() + coupling.pixel[i] * width, out + i * width);
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
  using P = Pack<Real, width>;
  const index n = coupling.n_cells();
  const Real inverse_sum = static_cast<Real>(matrix.inverse_sum);
  const double *diagonal = matrix.diagonal.data(), *inverse = matrix.inverse.data();
  Real *remainder = work.remainder.data(), *direction = work.direction.data(), *image = work.image.data();
  Real first[width], second[width], shift[width], norm[width], limit[width];
  // Projection on the plane of the sum (Gould, Hribar & Nocedal 2001): the constant to take from r so that inverse r
  // sums to zero, and the product of the two after that.
  const auto project = [&](const P& sum, const P& square, Real* out) {
    sum.total(first), square.total(second);
    for (int l = 0; l < width; ++l) {
      shift[l] = matrix.conserves ? first[l] / inverse_sum : 0;
      out[l] = second[l] - shift[l] * first[l];
    }
  };
  coupling.apply<Real, width>(x, image);
  P sum = P::all(0), square = P::all(0), right_sum = P::all(0), right_square = P::all(0);
  for (index i = 0; i < n; i += P::cells) {
    const P right = P::at(b, i, n), scale = P::by_cell(inverse, i, n);
    P left = right;
    left.subtract(product(P::by_cell(diagonal, i, n), P::at(x, i, n)));
    left.subtract(P::at(image, i, n));
    left.to(remainder, i, n);
    const P scaled = product(scale, left), right_scaled = product(scale, right);
    sum.add(scaled), square.add(scaled, left);
    right_sum.add(right_scaled), right_square.add(right_scaled, right);
  }
  Real whole[width];
  right_square.total(whole);
  project(right_sum, right_square, limit);
  project(sum, square, norm);
  std::copy_n(shift, width, constant);
  // Once more without the constant, in which a small residual would drown.
  P away = P::by_column(shift);
  sum = P::all(0), square = P::all(0);
  for (index i = 0; i < n; i += P::cells) {
    P left = P::at(remainder, i, n);
    left.subtract(away);
    left.to(remainder, i, n);
    const P scaled = product(P::by_cell(inverse, i, n), left);
    sum.add(scaled), square.add(scaled, left);
  }
  project(sum, square, norm);
  for (int l = 0; l < width; ++l) {
    const bool by_guess = relative_to_guess || limit[l] == 0;  // only the sum of the guess is given then
    // Squares below the least normal number are zero before a residual can meet them.
    limit[l] = std::max({tolerance * tolerance * (by_guess ? norm[l] : limit[l]), rounding<Real> * whole[l],
                         std::numeric_limits<Real>::min()});
  }
  std::fill_n(direction, n * width, Real(0));
  Real turn[width] = {}, along[width];
  for (int iteration = 0; iteration < iteration_limit; ++iteration) {
    bool done = true;
    for (int l = 0; l < width; ++l) done = done && norm[l] <= limit[l];
    for (int l = 0; l < width; ++l) constant[l] += shift[l];
    if (done) return true;
    const P keep = P::by_column(turn);
    away = P::by_column(shift);
    for (index i = 0; i < n; i += P::cells) {
      P left = P::at(remainder, i, n);
      left.subtract(away);
      left.to(remainder, i, n);
      P next = product(P::by_cell(inverse, i, n), left);
      next.add(keep, P::at(direction, i, n));
      next.to(direction, i, n);
    }
    coupling.apply<Real, width>(direction, image);
    P bend = P::all(0);
    for (index i = 0; i < n; i += P::cells) {
      P out = P::at(image, i, n);
      const P own = P::at(direction, i, n);
      out.add(P::by_cell(diagonal, i, n), own);
      out.to(image, i, n);
      bend.add(own, out);
    }
    bend.total(along);
    for (int l = 0; l < width; ++l) {
      if (norm[l] <= limit[l]) {
        along[l] = 0;  // converged columns rest, and a zero one has nothing to divide by
      } else {
        if (!(along[l] > 0)) return false;
        along[l] = norm[l] / along[l];
      }
    }
    const P step = P::by_column(along);
    sum = P::all(0), square = P::all(0);
    for (index i = 0; i < n; i += P::cells) {
      P to = P::at(x, i, n), left = P::at(remainder, i, n);
      to.add(step, P::at(direction, i, n));
      to.to(x, i, n);
      left.subtract(product(step, P::at(image, i, n)));
      left.to(remainder, i, n);
      const P scaled = product(P::by_cell(inverse, i, n), left);
      sum.add(scaled), square.add(scaled, left);
    }
    std::copy_n(norm, width, turn);
    project(sum, square, norm);
    for (int l = 0; l < width; ++l) turn[l] = along[l] > 0 ? norm[l] / turn[l] : 0;
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
