#include "kinetics/coupling.hpp"

#include <algorithm>
#include <cmath>
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

template <class Real>
constexpr int register_width = 64 / sizeof(Real);

// What is done at once to vectors (n, width): a cell's row of columns or, of a single column, several cells side by
// side.
template <class Real, int width>
struct Pack {
  static constexpr int cells = width == 1 ? register_width<Real> : 1;
  static constexpr int w = std::min(width * cells, register_width<Real>), count = width * cells / w;
  lanes<Real, w> part[count];

  static Pack all(Real value) {
    Pack pack;  // value - 0 is value for -0 too and only a broadcast, value + 0 an addition that compilers must keep
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
  constexpr int w = register_width<Real>;
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
  constexpr index w = register_width<Real>;
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

// Adds E x, as `coherency_of` gives it, to the rows from first to last.
template <class Real, int width>
void add_of_pixels(const Coupling& coupling, const std::vector<Real>& coherency, index first, index last, Real* out) {
  for (index i = first; i < last; ++i) {
    const Real* own = coherency.data() + coupling.pixel[i] * width;
    for (int l = 0; l < width; ++l) out[(i - first) * width + l] += own[l];
  }
}

// Products with G + E a block of rows at a time, which stays in the first-level cache.
template <class Real, int width>
class BlockProducts {
 public:
  static constexpr index block = 1024 / width;  // rows

  explicit BlockProducts(const Coupling& coupling) : coupling_(coupling) {}

  // Calls ahead(first, last) for all blocks of rows one after the other, which writes them to x, and
  // behind(first, last, rows of the product) for each as soon as all that it needs of x is there: x passes through the
  // caches once.
  template <class Ahead, class Behind>
  void sweep(const Real* x, const Ahead& ahead, const Behind& behind) {
    const index n = coupling_.n_cells(), reach = coupling_.rank > 0 ? n : coupling_.reach;
    index done = 0;
    for (index first = 0; first < n; first += block) {
      const index last = std::min(first + block, n);
      ahead(first, last);
      if (last == n && coupling_.rank > 0) coherency_ = coherency_of<Real, width>(coupling_, x);
      const index ready = last == n ? n : last - reach;
      for (index end; done < ready; done = end) {
        end = std::min(done + block, ready);
        apply_rows<Real, width>(coupling_, x, done, end, rows_);
        if (coupling_.rank > 0) add_of_pixels<Real, width>(coupling_, coherency_, done, end, rows_);
        behind(done, end, rows_);
      }
    }
  }

 private:
  const Coupling& coupling_;
  std::vector<Real> coherency_;
  alignas(64) Real rows_[block * width];
};

// The iteration on A x + constant 1 = b. The remainder b - A x is kept with the constant in it: after the projection on
// the plane of the sum (Gould, Hribar & Nocedal 2001) inverse (remainder - constant) sums to zero. Vectors pass through
// the caches twice an iteration.
template <class Real, int width>
class ConjugateGradients {
 public:
  ConjugateGradients(const StepMatrix& matrix, const Coupling& coupling, Real* x, Workspace<Real>& work)
      : matrix_(matrix),
        n_(coupling.n_cells()),
        products_(coupling),
        x_(x),
        remainder_(work.remainder.data()),
        direction_(work.direction.data()),
        image_(work.image.data()),
        diagonal_(in_own_precision(matrix.diagonal, work.diagonal)),
        inverse_(in_own_precision(matrix.inverse, work.inverse)) {}

  // The remainder of a guess, where `prepare` writes the guess to x and the right side to the remainder.
  void begin(const std::function<void(index, index)>& prepare) {
    Columns<Real, width> scaled_sums, right_sums;
    products_.sweep(x_, prepare, [&](index first, index last, const Real* rows) {
      P sum = P::all(0), scaled_sum = P::all(0), right_scaled_sum = P::all(0), right_square = P::all(0);
      for (index i = first; i < last; i += P::cells) {
        const P right = P::at(remainder_, i, last), own = P::at(x_, i, last), scale = P::by_cell(inverse_, i, last);
        P left = right;
        left.subtract(product(P::by_cell(diagonal_, i, last), own));
        left.subtract(P::at(rows, i - first, last - first));
        left.to(remainder_, i, last);
        P::all(0).to(direction_, i, last);
        sum.add(own);
        scaled_sum.add(scale, left);
        const P scaled = product(scale, right);
        right_scaled_sum.add(scaled), right_square.add(scaled, right);
      }
      total_.add(sum), scaled_sums.add(scaled_sum);
      right_sums.add(right_scaled_sum), right_square_.add(right_square);
    });
    for (int l = 0; l < width; ++l) {
      constant_[l] = shift_of(scaled_sums[l]);
      right_norm_[l] = right_square_[l] - shift_of(right_sums[l]) * right_sums[l];
    }
  }

  // The norm of the remainder, the next direction, and its product with A.
  void turn() {
    const P away = constant_.pack(), kept = kept_.pack();
    along_ = {}, norm_ = {};
    const auto turn_rows = [&](index first, index last) {
      P square = P::all(0);
      for (index i = first; i < last; i += P::cells) {
        P left = P::at(remainder_, i, last);
        left.subtract(away);
        P next = product(P::by_cell(inverse_, i, last), left);
        square.add(next, left);
        next.add(kept, P::at(direction_, i, last));
        next.to(direction_, i, last);
      }
      norm_.add(square);
    };
    products_.sweep(direction_, turn_rows, [&](index first, index last, const Real* rows) {
      P bend = P::all(0);
      for (index i = first; i < last; i += P::cells) {
        P image = P::at(rows, i - first, last - first);
        const P own = P::at(direction_, i, last);
        image.add(P::by_cell(diagonal_, i, last), own);
        image.to(image_, i, last);
        bend.add(own, image);
      }
      along_.add(bend);
    });
  }

  // The norms to reach, from those of the right side and of the first remainder.
  void aim(Real tolerance, bool relative_to_guess) {
    for (int l = 0; l < width; ++l) {
      const bool by_guess = relative_to_guess || right_norm_[l] == 0;  // only the sum of the guess is given then
      // What the remainder is stored with is rounded; squares below the least normal number are zero before it can meet
      // them, and those beyond the largest would let anything pass.
      const double stored = right_square_[l] + constant_[l] * constant_[l] * matrix_.inverse_sum;
      const double limit = std::max({tolerance * tolerance * (by_guess ? norm_[l] : right_norm_[l]),
                                     rounding<Real> * stored, double{std::numeric_limits<Real>::min()}});
      limit_[l] = std::isfinite(limit) ? limit : 0;
    }
  }

  // Along the direction, for columns that are not there yet.
  void improve() {
    Columns<Real, width> length;  // converged columns rest, and a zero one has nothing to divide by
    for (int l = 0; l < width; ++l) length[l] = is_there(l) ? 0 : norm_[l] / along_[l];
    const P away = constant_.pack(), by = length.pack();
    total_ = {};
    Columns<Real, width> scaled_sums, squares;
    for (index first = 0; first < n_; first += products_.block) {
      const index last = std::min(first + products_.block, n_);
      P sum = P::all(0), scaled_sum = P::all(0), square = P::all(0);
      for (index i = first; i < last; i += P::cells) {
        P own = P::at(x_, i, last), left = P::at(remainder_, i, last);
        own.add(by, P::at(direction_, i, last));
        own.to(x_, i, last);
        sum.add(own);
        left.subtract(product(by, P::at(image_, i, last)));
        left.to(remainder_, i, last);
        left.subtract(away);
        const P scaled = product(P::by_cell(inverse_, i, last), left);
        scaled_sum.add(scaled), square.add(scaled, left);
      }
      total_.add(sum), scaled_sums.add(scaled_sum), squares.add(square);
    }
    for (int l = 0; l < width; ++l) {
      const double shift = shift_of(scaled_sums[l]), before = norm_[l];
      constant_[l] += shift;
      norm_[l] = squares[l] - shift * scaled_sums[l];
      kept_[l] = length[l] > 0 ? norm_[l] / before : 0;
    }
  }

  bool is_there() const {
    bool all = true;
    for (int l = 0; l < width; ++l) all = all && is_there(l);
    return all;
  }
  bool is_positive() const {
    bool all = true;
    for (int l = 0; l < width; ++l) all = all && (is_there(l) || along_[l] > 0);
    return all;
  }
  ByColumn<width> by_column() const {
    ByColumn<width> result;
    for (int l = 0; l < width; ++l) result.constant[l] = constant_[l], result.total[l] = total_[l];
    return result;
  }

 private:
  using P = Pack<Real, width>;

  // The values where they are, or rounded in `own`.
  static const Real* in_own_precision(const std::vector<double>& values, Buffer<Real>& own) {
    if constexpr (std::is_same_v<Real, double>) {
      return values.data();
    } else {
      std::copy(values.begin(), values.end(), own.data());
      return own.data();
    }
  }
  bool is_there(int l) const { return norm_[l] <= limit_[l]; }
  double shift_of(double scaled_sum) const { return matrix_.conserves ? scaled_sum / matrix_.inverse_sum : 0; }

  const StepMatrix& matrix_;
  const index n_;
  BlockProducts<Real, width> products_;
  Real *x_, *remainder_, *direction_, *image_;
  const Real *diagonal_, *inverse_;
  // By column: the constant so far and the sum of x, squares of the right side, norms in the plane of the sum.
  Columns<Real, width> constant_, total_, right_square_, right_norm_, norm_, limit_;
  Columns<Real, width> along_, kept_;  // direction A direction, and how much of the last direction goes into the next
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

void Coupling::apply(const double* x, double* out) const {
  apply_rows<double, 1>(*this, x, 0, n_cells(), out);
  if (rank > 0) add_of_pixels<double, 1>(*this, coherency_of<double, 1>(*this, x), 0, n_cells(), out);
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
std::optional<ByColumn<width>> solve(const StepMatrix& matrix, const Coupling& coupling, Real tolerance,
                                     bool relative_to_guess, const std::function<void(index, index)>& prepare, Real* x,
                                     Workspace<Real>& work) {
  ConjugateGradients<Real, width> search(matrix, coupling, x, work);
  search.begin(prepare);
  search.turn();
  search.aim(tolerance, relative_to_guess);
  for (int iteration = 0; !search.is_there(); ++iteration) {
    if (iteration == iteration_limit || !search.is_positive()) return std::nullopt;
    search.improve();
    if (!search.is_there()) search.turn();
  }
  return search.by_column();
}

using Rows = const std::function<void(index, index)>&;
template std::optional<ByColumn<1>> solve<double, 1>(const StepMatrix&, const Coupling&, double, bool, Rows, double*,
                                                     Workspace<double>&);
template std::optional<ByColumn<lanes_a_chunk>> solve<double, lanes_a_chunk>(const StepMatrix&, const Coupling&, double,
                                                                             bool, Rows, double*, Workspace<double>&);
template std::optional<ByColumn<lanes_a_chunk>> solve<float, lanes_a_chunk>(const StepMatrix&, const Coupling&, float,
                                                                            bool, Rows, float*, Workspace<float>&);

}  // namespace chemomech::kinetics
