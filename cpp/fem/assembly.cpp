#include "fem/assembly.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/groups.hpp"
#include "base/simd.hpp"
#include "base/threads.hpp"

namespace chemomech::fem {
namespace {

using Block = lanes<double, 4>;  // 2 x 2, row by row
using BlockMask = lanes<std::int64_t, 4>;

Block transpose(Block s) {
  return Block{s[0], s[2], s[1], s[3]};
}

// The stiffness as blocks: S_mn = sum over p, q of area grad_m[p] grad_n[q] D_pq, with D_pq[a][b] = C_(ap)(bq).
struct Material {
  Block xx, xy, yx, yy, symmetric;  // symmetric = xy + yx, for m = n

  explicit Material(View<const double, 2> c) {
    const auto at = [&c](int i, int j) { return *c.at(i, j); };
    xx = Block{at(0, 0), at(0, 2), at(2, 0), at(2, 2)};
    xy = Block{at(0, 2), at(0, 1), at(2, 2), at(2, 1)};
    yx = Block{at(2, 0), at(2, 2), at(1, 0), at(1, 2)};
    yy = Block{at(2, 2), at(2, 1), at(1, 2), at(1, 1)};
    symmetric = xy + yx;
  }
};

// Elements are taken in tiles: the geometry of a tile is one vector loop, its scatter a scalar one from L1.
constexpr int tile = 64;

// area grad_m[p] grad_n[q], for (m, n) = 00, 11, 22 (xx, xy, yy) and 12 (xx, xy, yx, yy).
struct Products {
  alignas(64) double mm[3][3][tile];
  alignas(64) double m12[4][tile];
};

// Geometry of elements element(0) .. element(count - 1). Returns the first e that has no positive area, or tile.
template <int nodes, class Element>
int find_products(View<const double, 2> points, View<const std::int32_t, 2> triangles, int count,
                  const Element& element, Products& products) {
  alignas(64) double x[3][tile], y[3][tile];
  for (int e = 0; e < count; ++e) {
    const std::int32_t* triangle = triangles.data + element(e) * nodes;
    for (int m = 0; m < 3; ++m) {
      x[m][e] = points.data[2 * index{triangle[m]}];
      y[m][e] = points.data[2 * index{triangle[m]} + 1];
    }
  }
  int bad = tile;
#pragma omp simd reduction(min : bad)
  for (int e = 0; e < count; ++e) {
    // Twice the area times the gradient of each barycentric coordinate.
    const double gx0 = y[1][e] - y[2][e], gy0 = x[2][e] - x[1][e];
    const double gx1 = y[2][e] - y[0][e], gy1 = x[0][e] - x[2][e];
    const double gx2 = y[0][e] - y[1][e], gy2 = x[1][e] - x[0][e];
    const double twice_area = gx1 * gy2 - gx2 * gy1;
    bad = std::min(bad, twice_area > 0 ? tile : e);
    const double scale = 0.5 / twice_area;
    const double sx0 = scale * gx0, sy0 = scale * gy0;
    const double sx1 = scale * gx1, sy1 = scale * gy1;
    const double sx2 = scale * gx2, sy2 = scale * gy2;
    products.mm[0][0][e] = sx0 * gx0;
    products.mm[0][1][e] = sx0 * gy0;
    products.mm[0][2][e] = sy0 * gy0;
    products.mm[1][0][e] = sx1 * gx1;
    products.mm[1][1][e] = sx1 * gy1;
    products.mm[1][2][e] = sy1 * gy1;
    products.mm[2][0][e] = sx2 * gx2;
    products.mm[2][1][e] = sx2 * gy2;
    products.mm[2][2][e] = sy2 * gy2;
    products.m12[0][e] = sx1 * gx2;
    products.m12[1][e] = sx1 * gy2;
    products.m12[2][e] = sy1 * gx2;
    products.m12[3][e] = sy1 * gy2;
  }
  return bad;
}

// The blocks of an element in the order of ElementBlocks.
template <int nodes>
std::array<Block, ElementBlocks<nodes>::count> element_blocks(const Material& d, const Products& products, int e) {
  const auto diagonal = [&](int m) {
    return products.mm[m][0][e] * d.xx + products.mm[m][1][e] * d.symmetric + products.mm[m][2][e] * d.yy;
  };
  const Block s00 = diagonal(0), s11 = diagonal(1), s22 = diagonal(2);
  const Block s12 =
      products.m12[0][e] * d.xx + products.m12[1][e] * d.xy + products.m12[2][e] * d.yx + products.m12[3][e] * d.yy;
  // Rows of S sum to zero, and S_nm is the transpose of S_mn.
  const Block s21 = transpose(s12);
  const Block s10 = -(s11 + s12), s20 = -(s21 + s22);
  const Block s01 = transpose(s10), s02 = transpose(s20);
  if constexpr (nodes == 3) {
    return {s00, s01, s02, s10, s11, s12, s20, s21, s22};
  } else {
    const Block e01 = s01 * (4. / 3), e10 = s10 * (4. / 3), e12 = s12 * (4. / 3);
    const Block e21 = s21 * (4. / 3), e20 = s20 * (4. / 3), e02 = s02 * (4. / 3);
    const Block edge = (s00 + s11 + s22) * (4. / 3);
    const Block at0 = e12 + e21, at1 = e20 + e02, at2 = e01 + e10;  // the two edges that meet at vertex 0, 1, 2
    return {s00,         e01 * -0.25, e02 * -0.25, e01,  e02,       // columns 0 1 2 3 5
            e10 * -0.25, s11,         e12 * -0.25, e10,  e12,       // 0 1 2 3 4
            e20 * -0.25, e21 * -0.25, s22,         e21,  e20,       // 0 1 2 4 5
            e10,         e01,         edge,        at1,  at0,       // 0 1 3 4 5
            e21,         e12,         at1,         edge, at2,       // 1 2 3 4 5
            e20,         e02,         at0,         at2,  edge};     // 0 2 3 4 5
  }
}

// Without a branch on the first writer, which no predictor learns.
void add(double* values, std::uint32_t target, Block block) {
  double* p = values + 4 * static_cast<std::size_t>(target & block_number);
  const std::int64_t keep = static_cast<std::int64_t>(target >> 31) - 1;
  const Block old = reinterpret_cast<Block>(reinterpret_cast<BlockMask>(load<4>(p)) & keep);
  store(p, old + block);
}

template <int count>
void request(const double* values, const std::uint32_t* targets) {
  for (int s = 0; s < count; ++s) {
    __builtin_prefetch(values + 4 * static_cast<std::size_t>(targets[s] & block_number), 1);
  }
}

// Adds elements element(0) .. element(n - 1), ascending, to the rows(i) this thread owns. Returns the first without
// positive area, where it stops, or no_triangle.
template <int nodes, class Element, class Rows>
index assemble_elements(const Pattern& pattern, View<const double, 2> points, const Material& material, index n,
                        const Element& element, const Rows& rows, double* values) {
  using Blocks = ElementBlocks<nodes>;
  constexpr unsigned all_rows = (1u << nodes) - 1;
  Products products;
  for (index begin = 0; begin < n; begin += tile) {
    const int count = static_cast<int>(std::min<index>(tile, n - begin));
    const auto in_tile = [&](int e) { return element(begin + e); };
    const int bad = find_products<nodes>(points, pattern.triangles(), count, in_tile, products);
    if (bad < tile) return in_tile(bad);
    for (int e = 0; e < count; ++e) {
      const auto blocks = element_blocks<nodes>(material, products, e);
      const std::uint32_t* targets = pattern.scatter.data() + in_tile(e) * Blocks::count;
      const unsigned owned = rows(begin + e);
      if (begin + e + prefetch_distance < n) {
        request<Blocks::count>(values, pattern.scatter.data() + element(begin + e + prefetch_distance) * Blocks::count);
      }
      if (owned == all_rows) {
        for (int s = 0; s < Blocks::count; ++s) add(values, targets[s], blocks[s]);
      } else {
        for (int i = 0; i < nodes; ++i) {
          if (!(owned >> i & 1u)) continue;
          for (int s = Blocks::row_begin[i]; s < Blocks::row_begin[i + 1]; ++s) add(values, targets[s], blocks[s]);
        }
      }
    }
  }
  return no_triangle;
}

template <int nodes>
index assemble(const Pattern& pattern, View<const double, 2> points, View<const double, 2> stiffness, double* values) {
  const Material material(stiffness);
  std::vector<index> bad(pattern.chunks.size(), no_triangle);
  for_tasks(static_cast<index>(pattern.chunks.size()), [&](index c) {
    const Chunk& chunk = pattern.chunks[c];
    const auto own = [&](index i) { return chunk.begin + i; };
    const auto own_rows = [&](index i) { return unsigned{pattern.own_rows[chunk.begin + i]}; };
    bad[c] = assemble_elements<nodes>(pattern, points, material, chunk.end - chunk.begin, own, own_rows, values);
    // Those without area among the foreign ones are named by the chunk that owns them.
    const auto foreign = [&](index i) { return index{chunk.foreign[i]}; };
    const auto foreign_rows = [&](index i) { return unsigned{chunk.foreign_rows[i]}; };
    assemble_elements<nodes>(pattern, points, material, static_cast<index>(chunk.foreign.size()), foreign, foreign_rows,
                             values);
  });
  return *std::min_element(bad.begin(), bad.end());
}

// Gradients of the barycentric coordinates times the area, and the area.
struct Gradients {
  double x[3], y[3], area;

  Gradients(View<const double, 2> points, const std::int32_t* triangle) {
    const double *a = points.at(triangle[0]), *b = points.at(triangle[1]), *c = points.at(triangle[2]);
    x[0] = 0.5 * (b[1] - c[1]), y[0] = 0.5 * (c[0] - b[0]);
    x[1] = 0.5 * (c[1] - a[1]), y[1] = 0.5 * (a[0] - c[0]);
    x[2] = 0.5 * (a[1] - b[1]), y[2] = 0.5 * (b[0] - a[0]);
    area = 2 * (x[1] * y[2] - x[2] * y[1]);
  }
};

// The mean over a triangle of the gradient of a shape function is a multiple of that of one barycentric coordinate.
template <int nodes>
struct MeanGradient;
template <>
struct MeanGradient<3> {
  static constexpr double weight[3]{1, 1, 1};
  static constexpr int coordinate[3]{0, 1, 2};
};
template <>
struct MeanGradient<6> {
  static constexpr double weight[6]{1. / 3, 1. / 3, 1. / 3, -4. / 3, -4. / 3, -4. / 3};
  static constexpr int coordinate[6]{0, 1, 2, 2, 0, 1};
};

template <int nodes>
void load_element(View<const double, 2> points, const std::int32_t* triangle, const double* stress, unsigned owned,
                  View<double, 3> loads) {
  using Mean = MeanGradient<nodes>;
  const index k = loads.shape[2];
  const Gradients gradients(points, triangle);
  const double *xx = stress, *yy = stress + k, *xy = stress + 2 * k;
  for (int i = 0; i < nodes; ++i) {
    if (!(owned >> i & 1u)) continue;
    const double gx = Mean::weight[i] * gradients.x[Mean::coordinate[i]];
    const double gy = Mean::weight[i] * gradients.y[Mean::coordinate[i]];
    double *u = loads.at(triangle[i], 0), *v = u + k;
    for (index j = 0; j < k; ++j) {
      u[j] += gx * xx[j] + gy * xy[j];
      v[j] += gy * yy[j] + gx * xy[j];
    }
  }
}

template <int nodes>
void add_loads(const Pattern& pattern, View<const double, 2> points, View<const std::int32_t, 1> cells,
               View<const double, 3> stress, View<double, 3> loads) {
  const auto triangles = pattern.triangles();
  for_tasks(static_cast<index>(pattern.chunks.size()), [&](index c) {
    const Chunk& chunk = pattern.chunks[c];
    for (index t = chunk.begin; t < chunk.end; ++t) {
      load_element<nodes>(points, triangles.at(t), stress.at(cells.data[t]), pattern.own_rows[t], loads);
    }
    for (std::size_t i = 0; i < chunk.foreign.size(); ++i) {
      const index t = chunk.foreign[i];
      load_element<nodes>(points, triangles.at(t), stress.at(cells.data[t]), chunk.foreign_rows[i], loads);
    }
  });
}

template <int nodes>
void mean_distortions(const Pattern& pattern, View<const double, 2> points, const Groups& of_cell,
                      View<const double, 3> displacement, View<double, 3> distortion) {
  const auto triangles = pattern.triangles();
  using Mean = MeanGradient<nodes>;
  const index k = displacement.shape[2];
  for_ranges(distortion.shape[0], 1024, [&](index first, index last) {
    for (index cell = first; cell < last; ++cell) {
      double* out = distortion.at(cell);
      std::fill_n(out, 4 * k, 0.);
      double area = 0;
      for (index at = of_cell.begin[cell]; at < of_cell.begin[cell + 1]; ++at) {
        const std::int32_t* triangle = triangles.at(of_cell.member[at]);
        const Gradients gradients(points, triangle);
        area += gradients.area;
        for (int i = 0; i < nodes; ++i) {
          const double gx = Mean::weight[i] * gradients.x[Mean::coordinate[i]];
          const double gy = Mean::weight[i] * gradients.y[Mean::coordinate[i]];
          const double *u = displacement.at(triangle[i], 0), *v = u + k;
          for (index j = 0; j < k; ++j) {
            out[j] += gx * u[j];
            out[k + j] += gy * u[j];
            out[2 * k + j] += gx * v[j];
            out[3 * k + j] += gy * v[j];
          }
        }
      }
      const double scale = area > 0 ? 1 / area : std::numeric_limits<double>::quiet_NaN();
      for (index j = 0; j < 4 * k; ++j) out[j] *= scale;
    }
  });
}

}  // namespace

index assemble_stiffness(const Pattern& pattern, View<const double, 2> nodes, View<const double, 2> stiffness,
                         View<double, 3> values) {
  return pattern.nodes_per_triangle == 6 ? assemble<6>(pattern, nodes, stiffness, values.data)
                                         : assemble<3>(pattern, nodes, stiffness, values.data);
}

void stress_loads(const Pattern& pattern, View<const double, 2> nodes, View<const std::int32_t, 1> cells,
                  View<const double, 3> stress, View<double, 3> loads) {
  std::fill_n(loads.data, loads.size(), 0.);
  if (pattern.nodes_per_triangle == 6) {
    add_loads<6>(pattern, nodes, cells, stress, loads);
  } else {
    add_loads<3>(pattern, nodes, cells, stress, loads);
  }
}

void cell_distortions(const Pattern& pattern, View<const double, 2> nodes, View<const std::int32_t, 1> cells,
                      View<const double, 3> displacement, View<double, 3> distortion) {
  const Groups of_cell = group_by(cells, distortion.shape[0]);  // so that cells can be shared out among threads
  if (pattern.nodes_per_triangle == 6) {
    mean_distortions<6>(pattern, nodes, of_cell, displacement, distortion);
  } else {
    mean_distortions<3>(pattern, nodes, of_cell, displacement, distortion);
  }
}

}  // namespace chemomech::fem
