#include "voxel/operator.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "base/buffer.hpp"
#include "base/simd.hpp"
#include "base/threads.hpp"

namespace chemomech::voxel {
namespace {

#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#else
constexpr int register_bytes = 32;
#endif
template <class Real>
constexpr int width = register_bytes / static_cast<int>(sizeof(Real));
template <class Real>
using Vector = lanes<Real, width<Real>>;

// What a tile keeps from one plane of cells to the next fits the second-level cache.
constexpr index tile_bytes = 1 << 19;
constexpr index elements_per_thread = 1 << 16;  // of a vector

// The last lane of `before` and all but the last of `values`.
template <class V, int... lane>
inline V shift_in(const V& before, const V& values, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(before, values, (static_cast<int>(sizeof...(lane)) - 1 + lane)...);
}

// Entries 1 .. width of what follows `from`, which ends with entry width - 1 if it is the last of its row.
template <class Real, bool is_last>
inline Vector<Real> load_next(const Real* from) {
  if constexpr (is_last) {
    Vector<Real> values{};
    std::memcpy(&values, from + 1, sizeof values - sizeof(Real));
    return values;
  } else {
    return load<width<Real>>(from + 1);
  }
}

// Coefficients of the cells of one vector: those of the only material (weights are applied to the amplitudes) or the
// weighted sum of two. Elements are copies, which no store can change: they stay in registers.
template <class Real>
struct OneMaterial {
  Element<Real> element;
  const Real* weights;

  explicit OneMaterial(const Operator<Real>& body) : element(body.elements[0]), weights(body.weights.data) {}

  struct Cells {
    const Element<Real>& element;
    Vector<Real> weight;

    Vector<Real> scale(Vector<Real> amplitude) const { return weight * amplitude; }
    template <class Get>
    Real operator()(const Get& get) const {
      return get(element);
    }
  };
  Cells at(index cell) const { return {element, load<width<Real>>(weights + cell)}; }
};

template <class Real>
struct TwoMaterials {
  Element<Real> first, second;
  const Real *first_weights, *second_weights;

  explicit TwoMaterials(const Operator<Real>& body)
      : first(body.elements[0]),
        second(body.elements[1]),
        first_weights(body.weights.data),
        second_weights(body.weights.at(1)) {}

  struct Cells {
    const Element<Real>&first, &second;
    Vector<Real> first_weight, second_weight;

    Vector<Real> scale(Vector<Real> amplitude) const { return amplitude; }
    template <class Get>
    Vector<Real> operator()(const Get& get) const {
      return first_weight * get(first) + second_weight * get(second);
    }
  };
  Cells at(index cell) const {
    return {first, second, load<width<Real>>(first_weights + cell), load<width<Real>>(second_weights + cell)};
  }
};

// Stiffness times amplitudes, in place: even[i][m], odd[i][m] are those of component i with m_x = 0 and 1, and
// m = 2 m_y + m_z.
template <class Real, class Material>
inline void apply_element(const Material& material, Vector<Real> (&even)[3][4], Vector<Real> (&odd)[3][4]) {
  using V = Vector<Real>;
  const auto diagonal = [&](int i, int mode) {
    return material([=](const Element<Real>& e) { return e.diagonal[i][mode]; });
  };
  const auto normal = [&](int pair, int r) {
    return material([=](const Element<Real>& e) { return e.normal[pair][r]; });
  };
  const auto shear = [&](int pair, int r) {
    return material([=](const Element<Real>& e) { return e.shear[pair][r]; });
  };
  const auto couple = [&](int i, V& p, int mode_p, int j, V& q, int mode_q, auto coefficient) {
    const V a = material.scale(p), b = material.scale(q);
    p = diagonal(i, mode_p) * a + coefficient * b;
    q = coefficient * a + diagonal(j, mode_q) * b;
  };
  const auto couple_three = [&](V& p, int mode_p, V& q, int mode_q, V& s, int mode_s, auto qs, auto ps, auto pq) {
    const V a = material.scale(p), b = material.scale(q), c = material.scale(s);
    p = diagonal(0, mode_p) * a + pq * b + ps * c;
    q = pq * a + diagonal(1, mode_q) * b + qs * c;
    s = ps * a + qs * b + diagonal(2, mode_s) * c;
  };
  couple_three(odd[0][0], 4, even[1][2], 2, even[2][1], 1, normal(0, 0), normal(1, 0), normal(2, 0));
  couple_three(even[0][3], 3, odd[1][1], 5, odd[2][2], 6, shear(0, 1), shear(1, 1), shear(2, 1));
  couple(1, even[1][1], 1, 2, even[2][2], 2, shear(0, 0));
  couple(0, even[0][1], 1, 2, odd[2][0], 4, shear(1, 0));
  couple(0, even[0][2], 2, 1, odd[1][0], 4, shear(2, 0));
  couple(1, odd[1][2], 6, 2, odd[2][1], 5, normal(0, 1));
  couple(0, odd[0][2], 6, 2, even[2][3], 3, normal(1, 1));
  couple(0, odd[0][1], 5, 1, even[1][3], 3, normal(2, 1));
  for (int i = 0; i < 3; ++i) odd[i][3] = diagonal(i, 7) * material.scale(odd[i][3]);
}

// The rows of nodes [first, last) of a box, plane after plane. Between planes it keeps, for every row of cells, the
// amplitudes in y and z of the plane behind (`faces`), and what that plane's cells leave for the one ahead (`carry`).
template <class Real, template <class> class Material>
class Tile {
  using V = Vector<Real>;
  static constexpr int w = width<Real>;

 public:
  Tile(const Operator<Real>& body, index first, index last)
      : body_(body),
        first_(first),
        last_(last),
        length_(body.row_length()),
        faces_(static_cast<std::size_t>((last - first + 1) * 12 * length_)),
        carry_(static_cast<std::size_t>((last - first + 1) * 12 * length_)),
        pending_(static_cast<std::size_t>(6 * length_)),
        has_face_(static_cast<std::size_t>(last - first + 1)) {}

  // finish(at, sum) receives K x of the nodes at .. at + width - 1 of a row: component i in sum[i], to go to
  // at + i * size of a component.
  template <class Finish>
  void sweep(const Real* x, const Finish& finish) {
    std::fill_n(carry_.data(), carry_.size(), Real{0});
    std::fill(has_face_.begin(), has_face_.end(), 0);
    for (index plane = 0; plane + 1 < body_.planes(); ++plane) {
      for (index row = first_ - 1; row < last_; ++row) {
        const bool completes = plane > 0 && row >= first_;
        const std::size_t slot = static_cast<std::size_t>(row - first_ + 1);
        if (!body_.used_rows[static_cast<std::size_t>(plane * body_.rows() + row)]) {
          has_face_[slot] = 0;
          completes ? pass<true>(plane, row, finish) : pass<false>(plane, row, finish);
          continue;
        }
        if (!has_face_[slot]) find_face(x, plane, row);
        has_face_[slot] = 1;
        completes ? add_cells<true>(x, plane, row, finish) : add_cells<false>(x, plane, row, finish);
      }
    }
  }

 private:
  Real* face(index row) { return faces_.data() + (row - first_ + 1) * 12 * length_; }
  Real* carry(index row) { return carry_.data() + (row - first_ + 1) * 12 * length_; }

  // Amplitudes of the four nodes of a row and the next, from the first of them.
  template <bool is_last>
  static void amplitudes(const Real* low, index length, V (&face)[4]) {
    const Real* const high = low + length;
    const V a = load<w>(low), b = load_next<Real, is_last>(low);
    const V c = load<w>(high), d = load_next<Real, is_last>(high);
    const V even_low = a + b, odd_low = b - a, even_high = c + d, odd_high = d - c;
    face[0] = even_low + even_high;
    face[1] = odd_low + odd_high;
    face[2] = even_high - even_low;
    face[3] = odd_high - odd_low;
  }

  template <class Part>
  static void for_row(index length, const Part& part) {
    index k = 0;
    for (; k + w < length; k += w) part(std::false_type{}, k);
    part(std::true_type{}, k);
  }

  void find_face(const Real* x, index plane, index row) {
    const index length = length_, component = body_.planes() * body_.rows() * length;
    const Real* const nodes = x + (plane * body_.rows() + row) * length;
    Real* const ahead = face(row);
    for_row(length, [=](auto is_last, index k) {
      for (int i = 0; i < 3; ++i) {
        V values[4];
        amplitudes<is_last>(nodes + i * component + k, length, values);
        for (int m = 0; m < 4; ++m) store(ahead + (4 * i + m) * length + k, values[m]);
      }
    });
  }

  // From what all cells before and behind (plane, row) give their nodes to K x at the nodes of (plane, row).
  template <bool completes, class Finish>
  static void finish_nodes(const V (&cells)[3][4], Real* pending, index length, index at, index k, V (&before)[3],
                           const Finish& finish) {
    V sum[3];
    for (int i = 0; i < 3; ++i) {
      Real* const even_pending = pending + 2 * i * length + k;
      Real* const odd_pending = even_pending + length;
      const V even = cells[i][0] - cells[i][2] + load<w>(even_pending);
      const V odd = cells[i][1] - cells[i][3] + load<w>(odd_pending);
      store(even_pending, cells[i][0] + cells[i][2]);
      store(odd_pending, cells[i][1] + cells[i][3]);
      if constexpr (completes) {
        const V high = even + odd;
        sum[i] = even - odd + shift_in(before[i], high, std::make_integer_sequence<int, w>{});
        before[i] = high;
      }
    }
    if constexpr (completes) finish(at + k, sum);
  }

  template <bool completes, class Finish>
  [[gnu::noinline]] void add_cells(const Real* x, index plane, index row, const Finish& give) {
    if (row < first_) std::fill_n(pending_.data(), pending_.size(), Real{0});
    // Copies: after every store the compiler would read members again.
    const Finish finish = give;
    const Material<Real> material(body_);
    const index length = length_, component = body_.planes() * body_.rows() * length;
    const index at = (plane * body_.rows() + row) * length;
    const Real* const nodes = x + at + body_.rows() * length;
    Real* const behind = face(row);
    Real* const carried = carry(row);
    Real* const pending = pending_.data();
    V before[3] = {};
    for_row(length, [&](auto is_last, index k) {
      V even[3][4], odd[3][4];
      for (int i = 0; i < 3; ++i) {
        V ahead[4];
        amplitudes<is_last>(nodes + i * component + k, length, ahead);
        for (int m = 0; m < 4; ++m) {
          Real* const kept = behind + (4 * i + m) * length + k;
          const V values = load<w>(kept);
          store(kept, ahead[m]);
          even[i][m] = ahead[m] + values;
          odd[i][m] = ahead[m] - values;
        }
      }
      apply_element<Real>(material.at(at + k), even, odd);
      V cells[3][4];
      for (int i = 0; i < 3; ++i) {
        for (int m = 0; m < 4; ++m) {
          Real* const kept = carried + (4 * i + m) * length + k;
          if (m == 0) {  // its even part is a translation
            cells[i][m] = load<w>(kept) - odd[i][m];
            store(kept, odd[i][m]);
          } else {
            cells[i][m] = load<w>(kept) + (even[i][m] - odd[i][m]);
            store(kept, even[i][m] + odd[i][m]);
          }
        }
      }
      finish_nodes<completes>(cells, pending, length, at, k, before, finish);
    });
  }

  // A row without cells: only what others left.
  template <bool completes, class Finish>
  void pass(index plane, index row, const Finish& finish) {
    if (row < first_) std::fill_n(pending_.data(), pending_.size(), Real{0});
    const index length = length_, at = (plane * body_.rows() + row) * length;
    Real* const carried = carry(row);
    Real* const pending = pending_.data();
    V before[3] = {};
    for_row(length, [&](auto, index k) {
      V cells[3][4];
      for (int i = 0; i < 3; ++i) {
        for (int m = 0; m < 4; ++m) {
          Real* const kept = carried + (4 * i + m) * length + k;
          cells[i][m] = load<w>(kept);
          store(kept, V{});
        }
      }
      finish_nodes<completes>(cells, pending, length, at, k, before, finish);
    });
  }

  const Operator<Real>& body_;
  index first_, last_, length_;
  Buffer<Real> faces_, carry_;  // (rows of cells, 12, Z)
  Buffer<Real> pending_;        // (6, Z): what a row of cells leaves for its further row of nodes
  std::vector<unsigned char> has_face_;
};

// make_finish(tile) makes the function that takes the tile's results.
template <class Real, class MakeFinish>
void sweep(const Operator<Real>& body, View<const Real, 4> x, index rows_per_tile, const MakeFinish& make_finish) {
  const index n_rows = body.rows() - 2;
  for_tasks((n_rows + rows_per_tile - 1) / rows_per_tile, [&](index tile) {
    const index first = 1 + tile * rows_per_tile, last = std::min(first + rows_per_tile, n_rows + 1);
    auto&& finish = make_finish(tile);
    if (body.elements.size() == 1) {
      Tile<Real, OneMaterial>(body, first, last).sweep(x.data, finish);
    } else {
      Tile<Real, TwoMaterials>(body, first, last).sweep(x.data, finish);
    }
  });
}

// Of the box alone, so that sums over tiles do not depend on the number of threads.
template <class Real>
index rows_per_tile(const Operator<Real>& body) {
  return std::max<index>(4, tile_bytes / (24 * body.row_length() * static_cast<index>(sizeof(Real))));
}

}  // namespace

template <class Real>
Operator<Real> make_operator(std::vector<Element<Real>> elements, View<const Real, 4> weights) {
  const index n_rows = weights.shape[1] * weights.shape[2], length = weights.shape[3];
  Operator<Real> body{std::move(elements), weights, std::vector<unsigned char>(static_cast<std::size_t>(n_rows), 0)};
  for (index entry = 0; entry < weights.shape[0] * n_rows; ++entry) {
    const Real* const row = weights.data + entry * length;
    if (std::any_of(row, row + length, [](Real weight) { return weight != 0; })) {
      body.used_rows[static_cast<std::size_t>(entry % n_rows)] = 1;
    }
  }
  return body;
}

template <class Real>
void inverse_diagonal(const Operator<Real>& body, View<Real, 4> out) {
  const index planes = body.planes(), rows = body.rows(), length = body.row_length();
  std::fill_n(out.data, out.size(), Real{0});
  for_ranges(planes - 2, 4, [&](index begin, index end) {
    for (index plane = begin + 1; plane < end + 1; ++plane) {
      for (index row = 1; row + 1 < rows; ++row) {
        for (index k = 1; k < length; ++k) {
          Real diagonal[3] = {};
          for (std::size_t material = 0; material < body.elements.size(); ++material) {
            Real sum = 0;
            for (const index i : {plane - 1, plane}) {
              for (const index j : {row - 1, row}) {
                const Real* const weight = body.weights.at(material, i, j, k);
                sum += weight[-1] + weight[0];
              }
            }
            for (int i = 0; i < 3; ++i) diagonal[i] += sum * body.elements[material].corner[i];
          }
          for (int i = 0; i < 3; ++i) *out.at(i, plane, row, k) = diagonal[i] > 0 ? 1 / diagonal[i] : 0;
        }
      }
    }
  });
}

template <class Real>
double multiply(const Operator<Real>& body, View<const Real, 4> x, View<Real, 4> y) {
  const index rows = rows_per_tile(body), component = body.planes() * body.rows() * body.row_length();
  std::vector<Vector<Real>> products(static_cast<std::size_t>((body.rows() - 3 + rows) / rows), Vector<Real>{});
  sweep(body, x, rows, [&](index tile) {
    return [&, product = &products[static_cast<std::size_t>(tile)]](index at, const Vector<Real>(&sum)[3]) {
      for (int i = 0; i < 3; ++i) {
        store(y.data + at + i * component, sum[i]);
        *product += sum[i] * load<width<Real>>(x.data + at + i * component);
      }
    };
  });
  double total = 0;
  for (const Vector<Real>& product : products) {
    for (int lane = 0; lane < width<Real>; ++lane) total += static_cast<double>(product[lane]);
  }
  return total;
}

template <class Real>
void residual(const Operator<Real>& body, View<const Real, 4> b, View<const Real, 4> x, View<Real, 4> r) {
  const index component = body.planes() * body.rows() * body.row_length();
  sweep(body, x, rows_per_tile(body), [&](index) {
    return [=](index at, const Vector<Real>(&sum)[3]) {
      for (int i = 0; i < 3; ++i) {
        const index entry = at + i * component;
        store(r.data + entry, load<width<Real>>(b.data + entry) - sum[i]);
      }
    };
  });
}

template <class Real>
void smooth(const Operator<Real>& body, View<const Real, 4> inverse_diagonal, View<const Real, 4> b,
            View<const Real, 4> x, View<Real, 4> direction, Real alpha, Real beta, View<Real, 4> x_new) {
  constexpr int w = width<Real>;
  const index component = body.planes() * body.rows() * body.row_length();
  sweep(body, x, rows_per_tile(body), [&](index) {
    return [=](index at, const Vector<Real>(&sum)[3]) {
      for (int i = 0; i < 3; ++i) {
        const index entry = at + i * component;
        const Vector<Real> step = load<w>(inverse_diagonal.data + entry) * (load<w>(b.data + entry) - sum[i]);
        const Vector<Real> moved = alpha * load<w>(direction.data + entry) + beta * step;
        store(direction.data + entry, moved);
        store(x_new.data + entry, load<w>(x.data + entry) + moved);
      }
    };
  });
}

template <class Real>
void smooth_from_zero(View<const Real, 4> inverse_diagonal, View<const Real, 4> b, View<Real, 4> direction, Real beta,
                      View<Real, 4> x_new) {
  for_ranges(b.size(), elements_per_thread, [&](index begin, index end) {
#pragma omp simd
    for (index i = begin; i < end; ++i) {
      direction.data[i] = x_new.data[i] = beta * inverse_diagonal.data[i] * b.data[i];
    }
  });
}

#define CHEMOMECH_INSTANTIATE(Real)                                                                          \
  template Operator<Real> make_operator(std::vector<Element<Real>>, View<const Real, 4>);                    \
  template void inverse_diagonal(const Operator<Real>&, View<Real, 4>);                                      \
  template double multiply(const Operator<Real>&, View<const Real, 4>, View<Real, 4>);                       \
  template void residual(const Operator<Real>&, View<const Real, 4>, View<const Real, 4>, View<Real, 4>);    \
  template void smooth(const Operator<Real>&, View<const Real, 4>, View<const Real, 4>, View<const Real, 4>, \
                       View<Real, 4>, Real, Real, View<Real, 4>);                                            \
  template void smooth_from_zero(View<const Real, 4>, View<const Real, 4>, View<Real, 4>, Real, View<Real, 4>);
CHEMOMECH_INSTANTIATE(float)
CHEMOMECH_INSTANTIATE(double)
#undef CHEMOMECH_INSTANTIATE

}  // namespace chemomech::voxel
