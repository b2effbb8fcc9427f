#include "kinetics/coupling.hpp"

#include <algorithm>
#include <cstdlib>
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
    for (int s = 0; s < count; ++s) pack.part[s] = value - lanes<Real, w>{};
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
  static Pack by_cell(const Real* values, index i, index n) {
    if constexpr (cells > 1) {
      return at(values, i, n);
    } else {
      return all(values[i]);
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
  Pack<Real, width> result;
  for (int s = 0; s < result.count; ++s) result.part[s] = a.part[s] * b.part[s];
  return result;
}

// A number for each column, such as sums over cells: those of a block in its own precision, all of them in double.
template <class Real, int width>
class Columns {
 public:
  double& operator[](int l) { return value_[l]; }
  double operator[](int l) const { return value_[l]; }

  void add(const Pack<Real, width>& block) {
    Real own[width];
    block.total(own);
    for (int l = 0; l < width; ++l) value_[l] += own[l];
  }
  Pack<Real, width> pack() const {
    Real own[width];
    for (int l = 0; l < width; ++l) own[l] = static_cast<Real>(value_[l]);
    return Pack<Real, width>::by_column(own);
  }

 private:
  double value_[width] = {};
};

// The same for all cells of a pixel, (n_pixels, width): E x.
template <class Real, int width>
std::vector<Real> coherency_of(const Coupling& coupling, const Real* x) {
  const index rank = coupling.rank;
  std::vector<Real> sum(coupling.n_pixels * width, Real(0)), amplitude(rank * width, Real(0));
  const auto add = [](Real a, const Real* from, Real* to) {
    for (int l = 0; l < width; ++l) to[l] += a * from[l];
  };
  for (index i = 0; i < coupling.n_cells(); ++i) add(1, x + i * width, sum.data() + coupling.pixel[i] * width);
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
  return sum;
}

// out = the sum of a run's entries times x, for `count` registers of consecutive values from x on.
template <int count, class Real>
void apply_run(const Coupling& coupling, const Coupling::Run& run, index width, const Real* x, Real* out) {
  constexpr int w = 64 / sizeof(Real);
  lanes<Real, w> sum[count] = {};
  for (index e = run.first_entry; e < run.end_entry; ++e) {
    const Real value = static_cast<Real>(coupling.value[e]);
    const Real* from = x + coupling.distance[e] * width;
    for (int s = 0; s < count; ++s) sum[s] += value * load<w>(from + s * w);
  }
  for (int s = 0; s < count; ++s) store(out + s * w, sum[s]);
}

// out (last - first, width) = the rows from first to last of G x.
template <class Real, int width>
void apply_rows(const Coupling& coupling, const Real* x, index first, index last, Real* out) {
  constexpr index w = 64 / sizeof(Real);
  const auto ends_before = [](index row, const Coupling::Run& run) { return row < run.end; };
  auto run = std::upper_bound(coupling.runs.begin(), coupling.runs.end(), first, ends_before);
  for (; first < last; ++run) {
    const index rows = std::min(run->end, last) - first, size = rows * width;
    const Real* from = x + first * width;
    index i = 0;
    if (size < w) {
      for (; i < size; ++i) {
        Real sum = 0;
        for (index e = run->first_entry; e < run->end_entry; ++e) {
          sum += static_cast<Real>(coupling.value[e]) * from[i + coupling.distance[e] * width];
        }
        out[i] = sum;
      }
    }
    for (; i + 4 * w <= size; i += 4 * w) apply_run<4>(coupling, *run, width, from + i, out + i);
    for (; i + w <= size; i += w) apply_run<1>(coupling, *run, width, from + i, out + i);
    if (i < size) apply_run<1>(coupling, *run, width, from + size - w, out + size - w);  // some values once more
    first += rows, out += size;
  }
}

// Products with G + E a block of rows at a time, which stays in the first-level cache.
template <class Real, int width>
class BlockProducts {
 public:
  static constexpr index block = 1024 / width;  // rows

  explicit BlockProducts(const Coupling& coupling) : coupling_(coupling) {}

  // Calls ahead(first, last) for all blocks of rows one after the other, which writes them to x, and for each
  // behind(first, last, rows of the product), as soon as all that it needs of x is there: x passes through the caches
  // once.
  template <class Ahead, class Behind>
  void follow(const Real* x, const Ahead& ahead, const Behind& behind) {
    const index n = coupling_.n_cells(), reach = coupling_.rank > 0 ? n : coupling_.reach;
    index done = 0;
    for (index first = 0; first < n; first += block) {
      const index last = std::min(first + block, n);
      ahead(first, last);
      if (last == n && coupling_.rank > 0) coherency_ = coherency_of<Real, width>(coupling_, x);
      const index ready = last == n ? n : last - reach;
      for (; done < ready; done = std::min(done + block, ready)) {
        behind(done, std::min(done + block, ready), rows_of(x, done, std::min(done + block, ready)));
      }
    }
  }

 private:
  const Real* rows_of(const Real* x, index first, index last) {
    apply_rows<Real, width>(coupling_, x, first, last, rows_);
    if (coupling_.rank > 0) {
      for (index i = first; i < last; ++i) {
        const Real* own = coherency_.data() + coupling_.pixel[i] * width;
        for (int l = 0; l < width; ++l) rows_[(i - first) * width + l] += own[l];
      }
    }
    return rows_;
  }

  const Coupling& coupling_;
  std::vector<Real> coherency_;
  alignas(64) Real rows_[block * width];
};

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
        reach = std::max(reach, std::abs(distance.back()));
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
  BlockProducts<Real, width> products(*this);
  products.follow(
      x, [](index, index) {},
      [&](index first, index last, const Real* rows) { std::copy_n(rows, (last - first) * width, out + first * width); });
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
bool solve(const StepMatrix& matrix, const Coupling& coupling, Real tolerance, bool relative_to_guess,
           const std::function<void(index, index)>& begin, Real* x, ColumnSums<width>& out, Workspace<Real>& work) {
  using P = Pack<Real, width>;
  const index n = coupling.n_cells();
  std::copy_n(matrix.diagonal.data(), n, work.diagonal.data());
  std::copy_n(matrix.inverse.data(), n, work.inverse.data());
  const Real *diagonal = work.diagonal.data(), *inverse = work.inverse.data();
  Real *remainder = work.remainder.data(), *direction = work.direction.data(), *turned = work.image.data();
  BlockProducts<Real, width> products(coupling);
  // The remainder is kept with the constant that the solution takes from it: after the projection on the plane of the
  // sum (Gould, Hribar & Nocedal 2001), inverse (remainder - constant) sums to zero.
  Columns<Real, width> constant, total, sum, square, norm, right_sum, right_square, limit, along, step, keep;
  const auto projected = [&] {  // what `square`, that of the remainder less the constant so far, becomes
    Columns<Real, width> result;
    for (int l = 0; l < width; ++l) {
      const double shift = matrix.conserves ? sum[l] / matrix.inverse_sum : 0;
      constant[l] += shift;
      result[l] = square[l] - shift * sum[l];
    }
    return result;
  };
  products.follow(x, begin, [&](index first, index last, const Real* image) {
    P scaled_left = P::all(0), scaled_right = P::all(0), right_product = P::all(0), values = P::all(0);
    for (index i = first; i < last; i += P::cells) {
      const P right = P::at(remainder, i, last), scale = P::by_cell(inverse, i, last), own = P::at(x, i, last);
      P left = right;
      left.subtract(product(P::by_cell(diagonal, i, last), own));
      left.subtract(P::at(image, i - first, last - first));
      left.to(remainder, i, last);
      const P scaled = product(scale, right);
      scaled_left.add(scale, left), scaled_right.add(scaled), right_product.add(scaled, right), values.add(own);
    }
    sum.add(scaled_left), right_sum.add(scaled_right), right_square.add(right_product), total.add(values);
  });
  projected();
  for (int l = 0; l < width; ++l) {
    const double shift = matrix.conserves ? right_sum[l] / matrix.inverse_sum : 0;
    limit[l] = right_square[l] - shift * right_sum[l];
  }
  for (int iteration = 0; iteration < iteration_limit; ++iteration) {
    const P away = constant.pack(), kept = keep.pack();
    along = {}, square = {};
    products.follow(
        direction,
        [&](index first, index last) {
          P own_square = P::all(0);
          for (index i = first; i < last; i += P::cells) {
            P left = P::at(remainder, i, last);
            left.subtract(away);
            P next = product(P::by_cell(inverse, i, last), left);
            own_square.add(next, left);
            if (iteration > 0) next.add(kept, P::at(direction, i, last));
            next.to(direction, i, last);
          }
          square.add(own_square);
        },
        [&](index first, index last, const Real* image) {
          P bend = P::all(0);
          for (index i = first; i < last; i += P::cells) {
            P all = P::at(image, i - first, last - first);
            const P own = P::at(direction, i, last);
            all.add(P::by_cell(diagonal, i, last), own);
            all.to(turned, i, last);
            bend.add(own, all);
          }
          along.add(bend);
        });
    if (iteration == 0) {
      norm = square;
      for (int l = 0; l < width; ++l) {
        const bool by_guess = relative_to_guess || limit[l] == 0;  // only the sum of the guess is given then
        // Squares below the least normal number are zero before a residual can meet them.
        limit[l] = std::max({tolerance * tolerance * (by_guess ? norm[l] : limit[l]),
                             rounding<Real> * right_square[l], double(std::numeric_limits<Real>::min())});
      }
    }
    bool done = true;
    for (int l = 0; l < width; ++l) {
      done = done && norm[l] <= limit[l];
      if (norm[l] <= limit[l]) {
        step[l] = 0;  // converged columns rest, and a zero one has nothing to divide by
      } else {
        if (!(along[l] > 0)) return false;
        step[l] = norm[l] / along[l];
      }
    }
    if (done) break;
    const P by = step.pack();
    sum = {}, square = {}, total = {};
    for (index first = 0; first < n; first += products.block) {
      const index last = std::min(first + products.block, n);
      P scaled_left = P::all(0), own_square = P::all(0), values = P::all(0);
      for (index i = first; i < last; i += P::cells) {
        P to = P::at(x, i, last), left = P::at(remainder, i, last);
        to.add(by, P::at(direction, i, last));
        to.to(x, i, last);
        values.add(to);
        left.subtract(product(by, P::at(turned, i, last)));
        left.to(remainder, i, last);
        left.subtract(away);
        const P scaled = product(P::by_cell(inverse, i, last), left);
        scaled_left.add(scaled), own_square.add(scaled, left);
      }
      sum.add(scaled_left), square.add(own_square), total.add(values);
    }
    const Columns<Real, width> before = norm;
    norm = projected();
    for (int l = 0; l < width; ++l) keep[l] = step[l] > 0 ? norm[l] / before[l] : 0;
    done = true;
    for (int l = 0; l < width; ++l) done = done && norm[l] <= limit[l];
    if (done) break;
    if (iteration + 1 == iteration_limit) return false;
  }
  for (int l = 0; l < width; ++l) out.constant[l] = constant[l], out.total[l] = total[l];
  return true;
}

template void Coupling::apply<double, 1>(const double*, double*) const;
#define CHEMOMECH_SOLVE(Real, width)                                                       \
  template bool solve<Real, width>(const StepMatrix&, const Coupling&, Real, bool,         \
                                   const std::function<void(index, index)>&, Real*,        \
                                   ColumnSums<width>&, Workspace<Real>&);
CHEMOMECH_SOLVE(double, 1)
CHEMOMECH_SOLVE(double, lanes_a_chunk)
CHEMOMECH_SOLVE(float, lanes_a_chunk)
#undef CHEMOMECH_SOLVE

}  // namespace chemomech::kinetics
