#include "phasefield/conservation.hpp"

#include <algorithm>

#include "base/buffer.hpp"
#include "base/simd.hpp"
#include "base/threads.hpp"
#include "voxel/operator.hpp"

namespace chemomech::phasefield {
namespace {

constexpr int w = 8;
using V = lanes<double, w>;

// Nodes that are worth a thread: a hundred microseconds, against which waking one counts little.
constexpr index nodes_per_thread = 1 << 15;

index planes_per_thread(const std::array<index, 3>& box) {
  return std::max<index>(1, nodes_per_thread / (box[1] * box[2]));
}

struct Box {
  explicit Box(const std::array<index, 3>& shape)
      : row(shape[2]), plane(shape[1] * shape[2]), size(shape[0] * shape[1] * shape[2]) {}
  index row, plane, size;  // from a node to its neighbour along the second axis, the first; to the next component
};

// body(first plane, last plane) of owned planes.
template <class Body>
void for_planes(const std::array<index, 3>& box, const Body& body) {
  for_ranges(box[0] - 2, planes_per_thread(box), [&](index begin, index end) { body(begin + 1, end + 1); });
}

// The edges of a node and of those before it: sum of g over all, and sum of g u over the neighbours.
inline V total(const double* g, const Box& box, index at) {
  return load<w>(g + at) + load<w>(g + at - box.plane) + load<w>(g + box.size + at) +
         load<w>(g + box.size + at - box.row) + load<w>(g + 2 * box.size + at) + load<w>(g + 2 * box.size + at - 1);
}

inline V across(const double* g, const Box& box, index at, const double* u) {
  const double* const gz = g + 2 * box.size;
  return load<w>(g + at) * load<w>(u + at + box.plane) + load<w>(g + at - box.plane) * load<w>(u + at - box.plane) +
         load<w>(gz + at) * load<w>(u + at + 1) + load<w>(gz + at - 1) * load<w>(u + at - 1);
}

inline V along(const double* g, const Box& box, index at, const double* u) {
  const double* const gy = g + box.size;
  return load<w>(gy + at) * load<w>(u + at + box.row) + load<w>(gy + at - box.row) * load<w>(u + at - box.row);
}

}  // namespace

void factorise_lines(const System& system, View<double, 4> factors) {
  const Box box(system.mass.shape);
  const index rows = system.mass.shape[1], nz = system.mass.shape[2];
  const double *const m = system.mass.data, *const g = system.mobility.data, *const k = system.gradient.data;
  const double *const h = system.curvature.data, *const e = system.exchange.data;
  double* const f = factors.data;
  const double rate = system.rate;
  std::fill_n(f, 4 * box.size, 0.0);
  for_planes(system.mass.shape, [=](index first, index last) {
    for (index i = first; i < last; ++i) {
      for (index j = 1; j + 1 < rows; ++j) {
        const index row = i * box.plane + j * box.row;
        for (index lane = 0; lane < nz; lane += w) {
          const index at = row + lane, before = at - box.row;
          const V mass = load<w>(m + at);
          const V a = load<w>(g + box.size + before), b = load<w>(k + box.size + before);
          const V p = load<w>(f + before), q = load<w>(f + box.size + before), r = load<w>(f + 2 * box.size + before),
                  s = load<w>(f + 3 * box.size + before);
          // The block of a node less what eliminating the one before it leaves.
          const V xx = rate * mass + a * b * s;
          const V xy = total(g, box, at) + load<w>(e + at) - a * a * r;
          const V yx = -(load<w>(h + at) + total(k, box, at)) - b * b * q;
          const V yy = mass + a * b * p;
          const V determinant = xx * yy - xy * yx;
          const V zero{};
          const auto exists = mass > zero;
          const V inverse = 1.0 / (exists ? determinant : zero + 1.0);
          store(f + at, exists ? yy * inverse : zero);
          store(f + box.size + at, exists ? -xy * inverse : zero);
          store(f + 2 * box.size + at, exists ? -yx * inverse : zero);
          store(f + 3 * box.size + at, exists ? xx * inverse : zero);
        }
      }
    }
  });
}

void smooth_lines(const System& system, View<const double, 4> factors, View<const double, 4> right, int parity,
                  View<double, 4> solution) {
  const Box box(system.mass.shape);
  const index rows = system.mass.shape[1], nz = system.mass.shape[2];
  const double *const g = system.mobility.data, *const k = system.gradient.data, *const f = factors.data;
  const double* const r = right.data;
  double *const x = solution.data, *const y = x + box.size;
  for_planes(system.mass.shape, [=](index first, index last) {
    Buffer<double> eliminated(static_cast<std::size_t>(2 * rows * nz));
    double *const ex = eliminated.data(), *const ey = ex + rows * nz;
    std::fill_n(ex, nz, 0.0);
    std::fill_n(ey, nz, 0.0);
    for (index i = first; i < last; ++i) {
      for (index j = 1; j + 1 < rows; ++j) {
        const index row = i * box.plane + j * box.row;
        for (index lane = 0; lane < nz; lane += w) {
          const index at = row + lane, before = at - box.row, slot = j * nz + lane;
          const V a = load<w>(g + box.size + before), b = load<w>(k + box.size + before);
          const V tx = load<w>(r + at) + across(g, box, at, y) + a * load<w>(ey + slot - nz);
          const V ty = load<w>(r + box.size + at) - across(k, box, at, x) - b * load<w>(ex + slot - nz);
          store(ex + slot, load<w>(f + at) * tx + load<w>(f + box.size + at) * ty);
          store(ey + slot, load<w>(f + 2 * box.size + at) * tx + load<w>(f + 3 * box.size + at) * ty);
        }
      }
      // Lanes whose first and third index add up to `parity`; blocks of lanes begin at an even third index. The others
      // are stored with the value they had, which a thread at work on the next plane may be reading: it discards it.
      static_assert(w == 8 && voxel::row_padding % w == 0);
      const long long odd = (i + parity) & 1;
      using Mask = decltype(V{} > V{});
      const Mask even_lanes{-1, 0, -1, 0, -1, 0, -1, 0};
      const Mask chosen = odd ? ~even_lanes : even_lanes;
      for (index j = rows - 2; j >= 1; --j) {
        const index row = i * box.plane + j * box.row;
        for (index lane = 0; lane < nz; lane += w) {
          const index at = row + lane, slot = j * nz + lane;
          V nx = load<w>(ex + slot), ny = load<w>(ey + slot);
          if (j + 2 < rows) {
            const V from_y = load<w>(g + box.size + at) * load<w>(ey + slot + nz);
            const V from_x = load<w>(k + box.size + at) * load<w>(ex + slot + nz);
            nx += load<w>(f + at) * from_y - load<w>(f + box.size + at) * from_x;
            ny += load<w>(f + 2 * box.size + at) * from_y - load<w>(f + 3 * box.size + at) * from_x;
            store(ex + slot, nx);
            store(ey + slot, ny);
          }
          store(x + at, chosen ? nx : load<w>(x + at));
          store(y + at, chosen ? ny : load<w>(y + at));
        }
      }
    }
  });
}

void residual(const System& system, View<const double, 4> right, View<const double, 4> solution, View<double, 4> out) {
  const Box box(system.mass.shape);
  const index rows = system.mass.shape[1], nz = system.mass.shape[2];
  const double *const m = system.mass.data, *const g = system.mobility.data, *const k = system.gradient.data;
  const double *const h = system.curvature.data, *const e = system.exchange.data;
  const double *const r = right.data, *const x = solution.data, *const y = x + box.size;
  double* const o = out.data;
  const double rate = system.rate;
  for_planes(system.mass.shape, [=](index first, index last) {
    for (index i = first; i < last; ++i) {
      for (index j = 1; j + 1 < rows; ++j) {
        const index row = i * box.plane + j * box.row;
        for (index lane = 0; lane < nz; lane += w) {
          const index at = row + lane;
          const V mass = load<w>(m + at), vx = load<w>(x + at), vy = load<w>(y + at);
          const V flow = (total(g, box, at) + load<w>(e + at)) * vy - across(g, box, at, y) - along(g, box, at, y);
          const V bend = (total(k, box, at) + load<w>(h + at)) * vx - across(k, box, at, x) - along(k, box, at, x);
          store(o + at, load<w>(r + at) - rate * mass * vx - flow);
          store(o + box.size + at, load<w>(r + box.size + at) - mass * vy + bend);
        }
      }
    }
  });
}

void spread(View<const double, 4> edges, View<const double, 3> u, View<double, 3> out) {
  const Box box(u.shape);
  const index rows = u.shape[1], nz = u.shape[2];
  const double *const g = edges.data, *const from = u.data;
  double* const to = out.data;
  const double *const gy = g + box.size, *const gz = gy + box.size;
  for_planes(u.shape, [=](index first, index last) {
    for (index i = first; i < last; ++i) {
      for (index j = 1; j + 1 < rows; ++j) {
        const index row = i * box.plane + j * box.row;
        for (index lane = 0; lane < nz; lane += w) {
          const index at = row + lane;
          const V value = load<w>(from + at);
          // Of differences, so that a constant gives 0 exactly.
          const auto edge = [&](const double* of, index step) {
            return load<w>(of + at) * (value - load<w>(from + at + step)) +
                   load<w>(of + at - step) * (value - load<w>(from + at - step));
          };
          store(to + at, edge(g, box.plane) + edge(gy, box.row) + edge(gz, 1));
        }
      }
    }
  });
}

}  // namespace chemomech::phasefield
