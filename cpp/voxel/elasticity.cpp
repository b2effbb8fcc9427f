#include "voxel/elasticity.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/buffer.hpp"
#include "base/simd.hpp"
#include "base/threads.hpp"

namespace chemomech::voxel {
namespace {

// Layers of cells that one thread works on at a time. The first plane of nodes of a chunk is kept apart and added at
// the end: the order of the sums depends on this number alone.
constexpr index layers = 8;
constexpr std::size_t register_bytes = 64;
constexpr index bytes_of_tile = 1 << 19;  // of displacements and loads, in a cache of a core's own
// Nodes that are worth a thread: a tenth of a millisecond, against which waking one counts little.
constexpr index nodes_per_thread = 1 << 16;

// body(chunk) for all chunks of a box with this many nodes.
template <class Run>
void for_chunks(index n_chunks, index nodes, const Run& run) {
  if (nodes < 2 * nodes_per_thread) {
    for (index chunk = 0; chunk < n_chunks; ++chunk) run(chunk);
  } else {
    for_tasks(n_chunks, run);
  }
}

// Planes of nodes that are worth a thread.
inline index planes_per_thread(index plane) {
  return std::max<index>(1, nodes_per_thread / plane);
}

// Rows of scratch: 12 transformed in x and y; what 24 monomials give to the lower and to the upper node along z.
template <class Real>
class Row {
 public:
  static constexpr int width = register_bytes / sizeof(Real);

  explicit Row(index nz)
      : length_((nz + width) / width * width + width), rows_(static_cast<std::size_t>((36 + 27) * length_)) {
    std::fill_n(rows_.data(), rows_.size(), Real{0});
  }

  // component c, monomial m = mx + 2 my
  Real* in(int c, int m) { return rows_.data() + (4 * c + m) * length_; }
  Real* lower(int c, int m) { return rows_.data() + (12 + 4 * c + m) * length_; }
  Real* upper(int c, int m) { return rows_.data() + (24 + 4 * c + m) * length_; }
  Real* cell(int number) { return rows_.data() + (36 + number) * length_; }  // what the cells are made of

 private:
  index length_;
  Buffer<Real> rows_;
};

// The matrix of an element on the transformed numbers U_i(m), mode[i][mx + 2 my + 4 mz], in place.
template <class Real, class Vector>
inline void multiply_modes(const Element<Real>& e, Vector (&mode)[3][8]) {
  constexpr int X = 1, Y = 2, Z = 4;
  const auto pair = [](const std::array<Real, 3>& k, Vector& first, Vector& second) {
    const Vector a = first, b = second;
    first = k[0] * a + k[2] * b;
    second = k[2] * a + k[1] * b;
  };
  const auto triple = [](const std::array<Real, 6>& k, Vector& x, Vector& y, Vector& z) {
    const Vector a = x, b = y, c = z;
    x = k[0] * a + k[5] * b + k[4] * c;
    y = k[5] * a + k[1] * b + k[3] * c;
    z = k[4] * a + k[3] * b + k[2] * c;
  };
  for (auto& component : mode) component[0] = Vector{};
  triple(e.stretch, mode[0][X], mode[1][Y], mode[2][Z]);
  pair(e.shear_yz, mode[1][Z], mode[2][Y]);
  pair(e.shear_xz, mode[0][Z], mode[2][X]);
  pair(e.shear_xy, mode[0][Y], mode[1][X]);
  pair(e.bend_x, mode[1][X + Y], mode[2][X + Z]);
  pair(e.bend_y, mode[0][X + Y], mode[2][Y + Z]);
  pair(e.bend_z, mode[0][X + Z], mode[1][Y + Z]);
  triple(e.twist, mode[0][Y + Z], mode[1][X + Z], mode[2][X + Y]);
  for (int c = 0; c < 3; ++c) mode[c][X + Y + Z] *= e.warp[c];
}

// Copies numbers of the cells of a row to where whole registers may be read.
template <class Real>
void copy_cells(const float* from, index nz, Real* to) {
#pragma omp simd
  for (index k = 0; k < nz; ++k) to[k] = static_cast<Real>(from[k]);
}

// What `multiply_row` asks of cells: to prepare a row, false when there is nothing in it, and to multiply the modes of
// some cells of it by their matrix, in place.
template <class Real>
bool prepare(const Voxels<Real>& cells, index i, index j, Row<Real>& row) {
  const index nz = cells.weight.shape[2];
  const float* const weight = cells.weight.at(i, j);
  if (std::all_of(weight, weight + nz, [](float value) { return value == 0; })) return false;
  copy_cells(weight, nz, row.cell(0));
  return true;
}

template <class Real, class Vector>
inline void multiply_modes(const Voxels<Real>& cells, Row<Real>& row, index k, Vector (&mode)[3][8]) {
  const auto share = load<Row<Real>::width>(row.cell(0) + k);
  for (auto& component : mode) {
    for (auto& value : component) value *= share;
  }
  multiply_modes(cells.element, mode);
}

template <class Real>
bool prepare(const Porous<Real>& cells, index i, index j, Row<Real>& row) {
  const index nz = cells.moment.shape[3];
  const float* const volume = cells.moment.at(0, i, j);
  if (std::all_of(volume, volume + nz, [](float value) { return value == 0; })) return false;
  for (int p = 0; p < 27; ++p) copy_cells(cells.moment.at(p, i, j), nz, row.cell(p));
  return true;
}

constexpr int voigt[3][3] = {{0, 5, 4}, {5, 1, 3}, {4, 3, 2}};

// A mode is a bit field, mx + 2 my + 4 mz. The gradient of mode m along j is the monomial m without j.
constexpr bool has(int mode, int axis) {
  return (mode >> axis & 1) != 0;
}

// The moment of the product of two monomials.
constexpr int product(int m, int n) {
  return 9 * (has(m, 0) + has(n, 0)) + 3 * (has(m, 1) + has(n, 1)) + (has(m, 2) + has(n, 2));
}

template <class Real, class Vector>
inline void multiply_modes(const Porous<Real>& cells, Row<Real>& row, index k, Vector (&mode)[3][8]) {
  const Stiffness& c = cells.stiffness;
  const double volume = cells.spacing[0] * cells.spacing[1] * cells.spacing[2];
  Real slope[3];
  for (int j = 0; j < 3; ++j) slope[j] = static_cast<Real>(std::sqrt(volume) / (4 * cells.spacing[j]));
  const auto real = [](double value) { return static_cast<Real>(value); };
  const Real c11 = real(c.c11), c22 = real(c.c22), c33 = real(c.c33), c44 = real(c.c44), c55 = real(c.c55),
             c66 = real(c.c66), c12 = real(c.c12), c13 = real(c.c13), c23 = real(c.c23);
  Vector stress[7][6];
#pragma GCC unroll 7
  for (int n = 0; n < 7; ++n) {
    Vector strain[6] = {};
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      if (has(n, j)) continue;
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) strain[voigt[i][j]] += slope[j] * mode[i][n | 1 << j];
    }
    stress[n][0] = c11 * strain[0] + c12 * strain[1] + c13 * strain[2];
    stress[n][1] = c12 * strain[0] + c22 * strain[1] + c23 * strain[2];
    stress[n][2] = c13 * strain[0] + c23 * strain[1] + c33 * strain[2];
    stress[n][3] = c44 * strain[3];
    stress[n][4] = c55 * strain[4];
    stress[n][5] = c66 * strain[5];
  }
  for (auto& component : mode) {
    for (auto& value : component) value = Vector{};
  }
#pragma GCC unroll 7
  for (int n = 0; n < 7; ++n) {
    Vector total[6] = {};
#pragma GCC unroll 7
    for (int m = 0; m < 7; ++m) {
      const auto moment = load<Row<Real>::width>(row.cell(product(n, m)) + k);
#pragma GCC unroll 6
      for (int component = 0; component < 6; ++component) total[component] += moment * stress[m][component];
    }
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      if (has(n, j)) continue;
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) mode[i][n | 1 << j] += slope[j] * total[voigt[i][j]];
    }
  }
}

// Adds sign K x of a row of cells to the four rows of nodes around it: at[component][my][mx].
template <int sign, class Cells, class Real>
void multiply_row(const Cells& cells, index nz, const Real* const (&x)[3][2][2], Real* const (&y)[3][2][2],
                  Row<Real>& row) {
  constexpr int w = Row<Real>::width;
  for (int c = 0; c < 3; ++c) {
    const Real *x00 = x[c][0][0], *x10 = x[c][0][1], *x01 = x[c][1][0], *x11 = x[c][1][1];
    Real *m00 = row.in(c, 0), *m10 = row.in(c, 1), *m01 = row.in(c, 2), *m11 = row.in(c, 3);
#pragma omp simd
    for (index k = 0; k <= nz; ++k) {
      const Real near_sum = x00[k] + x10[k], near_difference = x10[k] - x00[k];
      const Real far_sum = x01[k] + x11[k], far_difference = x11[k] - x01[k];
      m00[k] = near_sum + far_sum;
      m10[k] = near_difference + far_difference;
      m01[k] = far_sum - near_sum;
      m11[k] = far_difference - near_difference;
    }
  }
  for (index k = 0; k < nz; k += w) {
    lanes<Real, w> mode[3][8];
    for (int c = 0; c < 3; ++c) {
      for (int m = 0; m < 4; ++m) {
        const auto low = load<w>(row.in(c, m) + k), high = load<w>(row.in(c, m) + k + 1);
        mode[c][m] = high + low;
        mode[c][m + 4] = high - low;
      }
    }
    multiply_modes(cells, row, k, mode);
    for (int c = 0; c < 3; ++c) {
      for (int m = 0; m < 4; ++m) {
        store(row.lower(c, m) + k, mode[c][m] - mode[c][m + 4]);
        store(row.upper(c, m) + k + 1, mode[c][m] + mode[c][m + 4]);
      }
    }
  }
  for (int c = 0; c < 3; ++c) {
    for (int m = 0; m < 4; ++m) row.lower(c, m)[nz] = row.upper(c, m)[0] = 0;
    const Real *l00 = row.lower(c, 0), *l10 = row.lower(c, 1), *l01 = row.lower(c, 2), *l11 = row.lower(c, 3);
    const Real *u00 = row.upper(c, 0), *u10 = row.upper(c, 1), *u01 = row.upper(c, 2), *u11 = row.upper(c, 3);
    Real *y00 = y[c][0][0], *y10 = y[c][0][1], *y01 = y[c][1][0], *y11 = y[c][1][1];
#pragma omp simd
    for (index k = 0; k <= nz; ++k) {
      const Real constant = l00[k] + u00[k], along_x = l10[k] + u10[k];
      const Real along_y = l01[k] + u01[k], both = l11[k] + u11[k];
      const Real near = constant - along_y, near_slope = along_x - both;
      const Real far = constant + along_y, far_slope = along_x + both;
      y00[k] += sign * (near - near_slope);
      y10[k] += sign * (near + near_slope);
      y01[k] += sign * (far - far_slope);
      y11[k] += sign * (far + far_slope);
    }
  }
}

// y = start + sign K x without regard to held displacements: start(offset, n) fills numbers of y. Then finish(begin,
// end) on ranges that are complete: offsets in y.
template <int sign, class Cells, class Real, class Start, class Finish>
void sweep(const Cells& cells, View<const Real, 4> x, View<Real, 4> y, const Start& start, const Finish& finish) {
  const index nx = x.shape[1] - 1, ny = x.shape[2] - 1, nz = x.shape[3] - 1;
  const index line = nz + 1, plane = (ny + 1) * line, component = (nx + 1) * plane;
  const index n_chunks = (nx + layers - 1) / layers;
  const index rows = std::max<index>(bytes_of_tile / (12 * line * index{sizeof(Real)}), 4);
  Buffer<Real> first_planes(static_cast<std::size_t>(n_chunks * 3 * plane));
  for_chunks(n_chunks, component, [&](index chunk) {
    const index begin = chunk * layers, end = std::min(begin + layers, nx);
    Real* const apart = first_planes.data() + chunk * 3 * plane;
    Row<Real> row(nz);
    for (index tile = 0; tile < ny; tile += rows) {  // what two planes of a tile hold stays in the cache
      const index tile_end = std::min(tile + rows, ny);
      const index first = (tile == 0 ? 0 : tile + 1) * line, count = (tile_end + 1) * line - first;
      for (int c = 0; c < 3; ++c) {
        std::fill_n(apart + c * plane + first, count, Real{0});
        if (chunk == 0) start(c * component + first, count);
      }
      for (index i = begin; i < end; ++i) {
        for (int c = 0; c < 3; ++c) start(c * component + (i + 1) * plane + first, count);
        for (index j = tile; j < tile_end; ++j) {
          if (!prepare(cells, i, j, row)) continue;
          const Real* from[3][2][2];
          Real* to[3][2][2];
          for (int c = 0; c < 3; ++c) {
            for (int b = 0; b < 2; ++b) {
              const index low = c * component + i * plane + (j + b) * line, high = low + plane;
              from[c][b][0] = x.data + low;
              from[c][b][1] = x.data + high;
              to[c][b][0] = i == begin ? apart + c * plane + (j + b) * line : y.data + low;
              to[c][b][1] = y.data + high;
            }
          }
          multiply_row<sign>(cells, nz, from, to, row);
        }
      }
    }
  });
  for_chunks(n_chunks, component, [&](index chunk) {
    const index begin = chunk * layers, end = chunk + 1 == n_chunks ? nx + 1 : begin + layers;
    const Real* const apart = first_planes.data() + chunk * 3 * plane;
    for (int c = 0; c < 3; ++c) {
      Real* const shared = y.data + c * component + begin * plane;
      for (index k = 0; k < plane; ++k) shared[k] += apart[c * plane + k];
      finish(c * component + begin * plane, c * component + end * plane);
    }
  });
}

// diagonal_of(cells, i, j, k, corner, component) of one cell; corners are bit fields like modes.
template <class Real>
Real diagonal_of(const Voxels<Real>& cells, const std::array<Real, 3>& element, index i, index j, index k, int,
                 int component) {
  return static_cast<Real>(*cells.weight.at(i, j, k)) * element[component];
}

template <class Real>
Real diagonal_of(const Porous<Real>& cells, const std::array<Real, 3>&, index i, index j, index k, int corner,
                 int component) {
  const Stiffness& c = cells.stiffness;
  const double modulus[3][3] = {{c.c11, c.c66, c.c55}, {c.c66, c.c22, c.c44}, {c.c55, c.c44, c.c33}};
  const double volume = cells.spacing[0] * cells.spacing[1] * cells.spacing[2];
  double total = 0;
  for (int axis = 0; axis < 3; ++axis) {
    double square = 0;  // of the gradient of the corner's shape function along the axis
    for (int m = 0; m < 7; ++m) {
      for (int n = 0; n < 7; ++n) {
        if (has(m, axis) || has(n, axis)) continue;
        int sign = 1;
        for (int d = 0; d < 3; ++d) {
          if (has(m ^ n, d) && !has(corner, d)) sign = -sign;
        }
        square += sign * static_cast<double>(*cells.moment.at(product(m, n), i, j, k));
      }
    }
    total += modulus[component][axis] * square / (16 * cells.spacing[axis] * cells.spacing[axis]);
  }
  return static_cast<Real>(volume * total);
}

template <class Real>
std::array<Real, 3> element_diagonal(const Voxels<Real>& cells) {
  return diagonal(cells.element);
}

template <class Real>
std::array<Real, 3> element_diagonal(const Porous<Real>&) {
  return {};
}

}  // namespace

template <class Real, template <class> class Cells>
void invert_diagonal(const Cells<Real>& cells, View<const std::uint8_t, 4> free, View<Real, 4> inverse) {
  const index nx = free.shape[1] - 1, ny = free.shape[2] - 1, nz = free.shape[3] - 1;
  const auto element = element_diagonal(cells);
  for_ranges(nx + 1, planes_per_thread((ny + 1) * (nz + 1)), [&](index begin, index end) {
    for (int c = 0; c < 3; ++c) {
      for (index i = begin; i < end; ++i) {
        for (index j = 0; j <= ny; ++j) {
          for (index k = 0; k <= nz; ++k) {
            Real total = 0;
            for (int corner = 0; corner < 8; ++corner) {  // of the cell, that is this node
              const index cell_i = i - (corner & 1), cell_j = j - (corner >> 1 & 1), cell_k = k - (corner >> 2);
              if (cell_i < 0 || cell_j < 0 || cell_k < 0 || cell_i >= nx || cell_j >= ny || cell_k >= nz) continue;
              total += diagonal_of(cells, element, cell_i, cell_j, cell_k, corner, c);
            }
            *inverse.at(c, i, j, k) = *free.at(c, i, j, k) && total > 0 ? 1 / total : Real{0};
          }
        }
      }
    }
  });
}

namespace {

// 0 where a displacement is held; what is absent is 0 already.
template <class Cells, class Real>
auto release(const Body<Cells, Real>& body, View<Real, 4> y) {
  return [&body, y](index begin, index end) {
    if (!body.held) return;
    const Real* const moves = body.inverse_diagonal.data;
#pragma omp simd
    for (index k = begin; k < end; ++k) y.data[k] = moves[k] > 0 ? y.data[k] : Real{0};
  };
}

}  // namespace

template <class Real, template <class> class Cells>
void multiply(const Body<Cells<Real>, Real>& body, View<const Real, 4> x, View<Real, 4> y) {
  const auto zero = [&](index first, index count) { std::fill_n(y.data + first, count, Real{0}); };
  sweep<1>(body.cells, x, y, zero, release(body, y));
}

template <class Real, template <class> class Cells>
void residual(const Body<Cells<Real>, Real>& body, View<const Real, 4> b, View<const Real, 4> x, View<Real, 4> r) {
  const auto load = [&](index first, index count) { std::copy_n(b.data + first, count, r.data + first); };
  sweep<-1>(body.cells, x, r, load, release(body, r));
}

template <class Real, template <class> class Cells>
void smooth(const Body<Cells<Real>, Real>& body, View<const Real, 4> b, View<Real, 4> x, View<Real, 4> d, Real alpha,
            Real beta, View<Real, 4> spare) {
  const Real* const inverse = body.inverse_diagonal.data;
  const View<const Real, 4> old{x.data, x.shape};
  const auto load = [&](index first, index count) { std::copy_n(b.data + first, count, spare.data + first); };
  sweep<-1>(body.cells, old, spare, load, [&](index begin, index end) {
#pragma omp simd
    for (index k = begin; k < end; ++k) {
      const Real step = alpha * d.data[k] + beta * inverse[k] * spare.data[k];
      d.data[k] = step;
      x.data[k] += step;
    }
  });
}

template <class Real, template <class> class Cells>
void smooth_from_zero(const Body<Cells<Real>, Real>& body, View<const Real, 4> b, View<Real, 4> x, View<Real, 4> d,
                      Real beta) {
  const Real* const inverse = body.inverse_diagonal.data;
  for_ranges(x.size(), 3 * nodes_per_thread, [&](index begin, index end) {
#pragma omp simd
    for (index k = begin; k < end; ++k) x.data[k] = d.data[k] = beta * inverse[k] * b.data[k];
  });
}

void stress_loads(View<const double, 4> stress, const std::array<double, 3>& spacing, View<double, 4> loads) {
  const index nx = stress.shape[1], ny = stress.shape[2], nz = stress.shape[3];
  const index cells = nx * ny * nz, line = nz + 1, component = (nx + 1) * (ny + 1) * line;
  const double face[3] = {spacing[1] * spacing[2] / 4, spacing[0] * spacing[2] / 4, spacing[0] * spacing[1] / 4};
  // A node gathers from the eight cells around it: sign times stress times a quarter of a face.
  for_ranges(nx + 1, planes_per_thread((ny + 1) * (nz + 1)), [&](index begin, index end) {
    for (index i = begin; i < end; ++i) {
      for (index j = 0; j <= ny; ++j) {
        for (int c = 0; c < 3; ++c) {
          double* const out = loads.data + c * component + (i * (ny + 1) + j) * line;
          std::fill_n(out, line, 0.0);
          for (int a = 0; a < 2; ++a) {
            for (int b = 0; b < 2; ++b) {
              const index cell_i = i - a, cell_j = j - b;
              if (cell_i < 0 || cell_i >= nx || cell_j < 0 || cell_j >= ny) continue;
              const index row = (cell_i * ny + cell_j) * nz;
              const double* const along_x = stress.data + voigt[c][0] * cells + row;
              const double* const along_y = stress.data + voigt[c][1] * cells + row;
              const double* const along_z = stress.data + voigt[c][2] * cells + row;
              const double x = (2 * a - 1) * face[0], y = (2 * b - 1) * face[1], z = face[2];
              for (index k = 0; k < nz; ++k) {
                const double across = x * along_x[k] + y * along_y[k];
                out[k] += across - z * along_z[k];
                out[k + 1] += across + z * along_z[k];
              }
            }
          }
        }
      }
    }
  });
}

void strain(View<const double, 4> displacement, const std::array<double, 3>& spacing, View<double, 4> strain) {
  const index nx = strain.shape[1], ny = strain.shape[2], nz = strain.shape[3];
  const index cells = nx * ny * nz, line = nz + 1, plane = (ny + 1) * line, component = (nx + 1) * plane;
  for_ranges(nx, planes_per_thread(plane), [&](index begin, index end) {
    for (index i = begin; i < end; ++i) {
      for (index j = 0; j < ny; ++j) {
        double* const out = strain.data + (i * ny + j) * nz;
        for (index k = 0; k < nz; ++k) {
          double slope[3][3];
          for (int c = 0; c < 3; ++c) {
            const double* const u = displacement.data + c * component + i * plane + j * line + k;
            const double u00 = u[0] + u[1], u01 = u[line] + u[line + 1];
            const double u10 = u[plane] + u[plane + 1], u11 = u[plane + line] + u[plane + line + 1];
            const double below = u[0] + u[line] + u[plane] + u[plane + line];
            slope[c][0] = (u10 + u11 - u00 - u01) / (4 * spacing[0]);
            slope[c][1] = (u01 + u11 - u00 - u10) / (4 * spacing[1]);
            slope[c][2] = (u00 + u01 + u10 + u11 - 2 * below) / (4 * spacing[2]);
          }
          out[k] = slope[0][0];
          out[cells + k] = slope[1][1];
          out[2 * cells + k] = slope[2][2];
          out[3 * cells + k] = slope[1][2] + slope[2][1];
          out[4 * cells + k] = slope[0][2] + slope[2][0];
          out[5 * cells + k] = slope[0][1] + slope[1][0];
        }
      }
    }
  });
}

namespace {

// Coarse nodes that a fine node lies between, and whether it is halfway.
struct Between {
  index low, high;
  bool half;
};

Between between(index fine, bool doubled) {
  if (!doubled) return {fine, fine, false};
  return {fine / 2, (fine + 1) / 2, fine % 2 == 1};
}

}  // namespace

template <class Real>
void add_interpolation(View<const Real, 4> coarse, const std::array<bool, 3>& doubled, View<Real, 4> fine) {
  const index nz = fine.shape[3], coarse_nz = coarse.shape[3];
  for_ranges(fine.shape[1], planes_per_thread(fine.shape[2] * nz), [&](index begin, index end) {
    std::vector<Real> row(static_cast<std::size_t>(coarse_nz));
    for (int c = 0; c < 3; ++c) {
      for (index i = begin; i < end; ++i) {
        const auto along_x = between(i, doubled[0]);
        for (index j = 0; j < fine.shape[2]; ++j) {
          const auto along_y = between(j, doubled[1]);
          const Real* const c00 = coarse.at(c, along_x.low, along_y.low);
          const Real* const c01 = coarse.at(c, along_x.low, along_y.high);
          const Real* const c10 = coarse.at(c, along_x.high, along_y.low);
          const Real* const c11 = coarse.at(c, along_x.high, along_y.high);
          for (index k = 0; k < coarse_nz; ++k) row[k] = Real(0.25) * (c00[k] + c01[k] + c10[k] + c11[k]);
          Real* const out = fine.at(c, i, j);
          if (!doubled[2]) {
            for (index k = 0; k < nz; ++k) out[k] += row[k];
            continue;
          }
          for (index k = 0; 2 * k < nz; ++k) out[2 * k] += row[k];
          for (index k = 0; 2 * k + 1 < nz; ++k) out[2 * k + 1] += Real(0.5) * (row[k] + row[k + 1]);
        }
      }
    }
  });
}

template <class Real>
void restrict_to(View<const Real, 4> fine, const std::array<bool, 3>& doubled, View<Real, 4> coarse) {
  const index nz = fine.shape[3], coarse_nz = coarse.shape[3];
  for_ranges(coarse.shape[1], planes_per_thread(coarse.shape[2] * coarse_nz), [&](index begin, index end) {
    std::vector<Real> row(static_cast<std::size_t>(nz) + 3);
    for (int c = 0; c < 3; ++c) {
      for (index i = begin; i < end; ++i) {
        for (index j = 0; j < coarse.shape[2]; ++j) {
          std::fill(row.begin(), row.end(), Real{0});
          for (int a = -1; a <= 1; ++a) {
            if (a != 0 && !doubled[0]) continue;
            const index fine_i = doubled[0] ? 2 * i + a : i;
            if (fine_i < 0 || fine_i >= fine.shape[1]) continue;
            for (int b = -1; b <= 1; ++b) {
              if (b != 0 && !doubled[1]) continue;
              const index fine_j = doubled[1] ? 2 * j + b : j;
              if (fine_j < 0 || fine_j >= fine.shape[2]) continue;
              const Real share = Real(a == 0 ? 1 : 0.5) * Real(b == 0 ? 1 : 0.5);
              const Real* const from = fine.at(c, fine_i, fine_j);
              for (index k = 0; k < nz; ++k) row[k + 1] += share * from[k];
            }
          }
          Real* const out = coarse.at(c, i, j);
          if (!doubled[2]) {
            std::copy_n(row.data() + 1, nz, out);
            continue;
          }
          for (index k = 0; k < coarse_nz; ++k) {
            // row[k + 1] is fine node k; beyond the grid it is 0.
            out[k] = row[2 * k + 1] + Real(0.5) * (row[2 * k] + row[2 * k + 2]);
          }
        }
      }
    }
  });
}

namespace {

// own(i, j, k, moment) gives the 27 moments of a fine cell.
template <class Own>
void coarsen_cells(const std::array<index, 3>& fine, const std::array<bool, 3>& doubled, View<float, 4> coarse,
                   const Own& moments_of) {
  const auto [nx, ny, nz] = fine;
  for_ranges(coarse.shape[1], planes_per_thread(coarse.shape[2] * coarse.shape[3]), [&](index begin, index end) {
    for (index i = begin; i < end; ++i) {
      for (index j = 0; j < coarse.shape[2]; ++j) {
        for (index k = 0; k < coarse.shape[3]; ++k) {
          float total[27] = {};
          for (int child = 0; child < 8; ++child) {
            const int part[3] = {child & 1, child >> 1 & 1, child >> 2};
            const index at[3] = {doubled[0] ? 2 * i + part[0] : i, doubled[1] ? 2 * j + part[1] : j,
                                 doubled[2] ? 2 * k + part[2] : k};
            bool exists = at[0] < nx && at[1] < ny && at[2] < nz;
            for (int axis = 0; axis < 3; ++axis) exists = exists && (doubled[axis] || part[axis] == 0);
            if (!exists) continue;
            float own[27];
            moments_of(at[0], at[1], at[2], own);
            // xi of the coarse cell is (xi' + s) / 2 of the child, s = +-1.
            for (int axis = 0, stride = 9; axis < 3; ++axis, stride /= 3) {
              if (!doubled[axis]) continue;
              const float s = part[axis] ? 1.0f : -1.0f;
              for (int other = 0; other < 9; ++other) {
                const int first = stride == 9 ? other : stride == 3 ? other / 3 * 9 + other % 3 : 3 * other;
                float &constant = own[first], &linear = own[first + stride], &square = own[first + 2 * stride];
                square = (square + 2 * s * linear + constant) / 8;
                linear = (linear + s * constant) / 4;
                constant /= 2;
              }
            }
            for (int p = 0; p < 27; ++p) total[p] += own[p];
          }
          for (int p = 0; p < 27; ++p) *coarse.at(p, i, j, k) = total[p];
        }
      }
    }
  });
}

}  // namespace

void coarsen(View<const float, 3> weight, const std::array<bool, 3>& doubled, View<float, 4> coarse) {
  constexpr float mean[3] = {1.0f, 0.0f, 1.0f / 3};  // of 1, xi, xi^2 over a cell
  coarsen_cells(weight.shape, doubled, coarse, [&](index i, index j, index k, float* own) {
    const float share = *weight.at(i, j, k);
    for (int p = 0; p < 27; ++p) own[p] = share * mean[p / 9] * mean[p / 3 % 3] * mean[p % 3];
  });
}

void coarsen(View<const float, 4> moment, const std::array<bool, 3>& doubled, View<float, 4> coarse) {
  const auto [powers, nx, ny, nz] = moment.shape;
  coarsen_cells({nx, ny, nz}, doubled, coarse, [&](index i, index j, index k, float* own) {
    for (int p = 0; p < 27; ++p) own[p] = *moment.at(p, i, j, k);
  });
}

#define CHEMOMECH_INSTANTIATE_CELLS(Cells, Real)                                                                      \
  template void smooth_from_zero(const Body<Cells<Real>, Real>&, View<const Real, 4>, View<Real, 4>, View<Real, 4>,   \
                                 Real);                                                                               \
  template void invert_diagonal(const Cells<Real>&, View<const std::uint8_t, 4>, View<Real, 4>);                      \
  template void multiply(const Body<Cells<Real>, Real>&, View<const Real, 4>, View<Real, 4>);                         \
  template void residual(const Body<Cells<Real>, Real>&, View<const Real, 4>, View<const Real, 4>, View<Real, 4>);    \
  template void smooth(const Body<Cells<Real>, Real>&, View<const Real, 4>, View<Real, 4>, View<Real, 4>, Real, Real, \
                       View<Real, 4>);
CHEMOMECH_INSTANTIATE_CELLS(Voxels, double)
CHEMOMECH_INSTANTIATE_CELLS(Voxels, float)
CHEMOMECH_INSTANTIATE_CELLS(Porous, float)
#undef CHEMOMECH_INSTANTIATE_CELLS
template void add_interpolation(View<const float, 4>, const std::array<bool, 3>&, View<float, 4>);
template void restrict_to(View<const float, 4>, const std::array<bool, 3>&, View<float, 4>);

}  // namespace chemomech::voxel
