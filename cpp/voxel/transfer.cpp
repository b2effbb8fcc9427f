#include "voxel/transfer.hpp"

#include <algorithm>

#include "base/buffer.hpp"
#include "base/threads.hpp"

namespace chemomech::voxel {
namespace {

constexpr index nodes_per_thread = 1 << 15;  // of the target: some tens of microseconds

struct Node {
  index at;
  float weight;
};

struct Nodes {
  std::array<Node, 3> node;
  int count;
  const Node* begin() const { return node.data(); }
  const Node* end() const { return node.data() + count; }
};

// The fine nodes a coarse one gathers from, inside [0, extent).
Nodes children(index coarse, index factor, index extent) {
  if (factor == 1) return {{{{coarse, 1.f}}}, 1};
  Nodes nodes{};
  for (const auto& [at, weight] : {Node{2 * coarse - 2, 0.5f}, {2 * coarse - 1, 1.f}, {2 * coarse, 0.5f}}) {
    if (at < extent) nodes.node[static_cast<std::size_t>(nodes.count++)] = {at, weight};
  }
  return nodes;
}

// The coarse nodes a fine one is interpolated from.
Nodes parents(index fine, index factor) {
  if (factor == 1) return {{{{fine, 1.f}}}, 1};
  if (fine % 2) return {{{{(fine + 1) / 2, 1.f}}}, 1};
  return {{{{fine / 2, 0.5f}, {fine / 2 + 1, 0.5f}}}, 2};
}

// sum (length,) = weighted sum of rows of `from` at component i.
template <class Real>
void add_rows(View<const Real, 4> from, index i, const Nodes& planes, const Nodes& rows, Real* sum) {
  const index length = from.shape[3];
  std::fill_n(sum, length, Real{0});
  for (const Node& plane : planes) {
    for (const Node& row : rows) {
      const Real* const values = from.at(i, plane.at, row.at);
      const Real weight = plane.weight * row.weight;
#pragma omp simd
      for (index k = 0; k < length; ++k) sum[k] += weight * values[k];
    }
  }
}

// body(i, plane, row, buffer) for all owned rows of `out`.
template <class Real, class Body>
void for_rows(View<Real, 4> out, index buffer_length, const Body& body) {
  const index planes_per_thread = std::max<index>(1, nodes_per_thread / (out.shape[2] * out.shape[3]));
  for_ranges(out.shape[1] - 2, planes_per_thread, [&](index begin, index end) {
    Buffer<Real> buffer(static_cast<std::size_t>(buffer_length));
    for (index i = 0; i < out.shape[0]; ++i) {
      for (index plane = begin + 1; plane < end + 1; ++plane) {
        for (index row = 1; row + 1 < out.shape[2]; ++row) body(i, plane, row, buffer.data());
      }
    }
  });
}

}  // namespace

template <class Real>
void restrict_to(const std::array<index, 3>& factors, View<const Real, 4> fine, View<Real, 4> coarse) {
  const index fine_length = fine.shape[3], length = coarse.shape[3];
  for_rows(coarse, fine_length, [&](index i, index plane, index row, Real* sum) {
    add_rows(fine, i, children(plane, factors[0], fine.shape[1]), children(row, factors[1], fine.shape[2]), sum);
    Real* const out = coarse.at(i, plane, row);
    if (factors[2] == 1) {
      std::copy_n(sum, length, out);
      return;
    }
    const index inside = std::min(length - 1, (fine_length - 1) / 2);  // whose three children exist
#pragma omp simd
    for (index k = 1; k <= inside; ++k) out[k] = Real{0.5} * (sum[2 * k - 2] + sum[2 * k]) + sum[2 * k - 1];
    // A coarse node beyond the end of a fine row that is full has a last child outside it, where nothing is.
    if (const index k = fine_length / 2; fine_length % 2 == 0 && k < length) {
      out[k] = Real{0.5} * sum[2 * k - 2] + sum[2 * k - 1];
    }
  });
}

template <class Real>
void add_prolonged(const std::array<index, 3>& factors, View<const Real, 4> coarse, View<Real, 4> fine) {
  const index fine_length = fine.shape[3], length = coarse.shape[3];
  for_rows(fine, length, [&](index i, index plane, index row, Real* sum) {
    add_rows(coarse, i, parents(plane, factors[0]), parents(row, factors[1]), sum);
    Real* const out = fine.at(i, plane, row);
    if (factors[2] == 1) {
      for (index k = 0; k < length; ++k) out[k] += sum[k];
      return;
    }
    const index inside = std::min(length - 1, fine_length / 2);  // both nodes 2 k - 1 and 2 k exist below it
#pragma omp simd
    for (index k = 1; k < inside; ++k) {
      out[2 * k - 1] += sum[k];
      out[2 * k] += Real{0.5} * (sum[k] + sum[k + 1]);
    }
    if (2 * inside - 1 < fine_length) out[2 * inside - 1] += sum[inside];
  });
}

template void restrict_to(const std::array<index, 3>&, View<const float, 4>, View<float, 4>);
template void restrict_to(const std::array<index, 3>&, View<const double, 4>, View<double, 4>);
template void add_prolonged(const std::array<index, 3>&, View<const float, 4>, View<float, 4>);
template void add_prolonged(const std::array<index, 3>&, View<const double, 4>, View<double, 4>);

}  // namespace chemomech::voxel
