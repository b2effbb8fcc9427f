// Symbolic phase of assembly: which nodes couple, and where every block of every element goes. Built once a mesh.
//
// Triangles have straight sides and 6 nodes (vertices 0 1 2 counter-clockwise, midsides of 01, 12, 20) or 3 (vertices).
// With a stiffness constant in each triangle a vertex does not couple to the midside opposite to it: these blocks are
// exactly zero and are left out, 26 % of the matrix. 30 blocks of 2 x 2 remain in a 6-node element, 9 in a 3-node one.
//
// Threads. Triangles are cut into contiguous chunks and a node belongs to the chunk of its first triangle. A chunk
// visits its own triangles and then the `foreign` ones of later chunks that touch its nodes, and adds to its own nodes
// only. No two threads write one address, and every sum runs in ascending order of triangles, whatever the chunks:
// results have the same bits for any number of threads.
#pragma once

#include <array>
#include <vector>

#include "base/buffer.hpp"
#include "base/views.hpp"

namespace chemomech::fem {

// The blocks of an element, row by row: block s of local row i couples it to local node column[s],
// row_begin[i] <= s < row_begin[i + 1].
template <int nodes>
struct ElementBlocks;

template <>
struct ElementBlocks<3> {
  static constexpr int count = 9;
  static constexpr std::array<int, 4> row_begin{0, 3, 6, 9};
  static constexpr std::array<int, 9> column{0, 1, 2, 0, 1, 2, 0, 1, 2};
};

template <>
struct ElementBlocks<6> {
  static constexpr int count = 30;
  static constexpr std::array<int, 7> row_begin{0, 5, 10, 15, 20, 25, 30};
  static constexpr std::array<int, 30> column{0, 1, 2, 3, 5, 0, 1, 2, 3, 4, 0, 1, 2, 4, 5,
                                              0, 1, 3, 4, 5, 1, 2, 3, 4, 5, 0, 2, 3, 4, 5};
};

// An entry of the scatter map: a block number, and in the sign bit whether its triangle is the first to write the
// block. The first stores instead of adding, so that nobody has to clear the matrix.
inline constexpr std::uint32_t first_writer = 0x80000000u;
inline constexpr std::uint32_t block_number = 0x7fffffffu;

struct Chunk {
  index begin = 0, end = 0;  // its own triangles
  std::vector<std::int32_t> foreign;
  std::vector<std::uint8_t> foreign_rows;  // bit i: local node i belongs to this chunk
};

struct Pattern {
  index n_nodes = 0, n_triangles = 0;
  int nodes_per_triangle = 0;
  Buffer<std::int32_t> corners;   // (n_triangles, nodes_per_triangle), the nodes of each triangle
  Buffer<std::int32_t> indptr;    // (n_nodes + 1,)
  Buffer<std::int32_t> indices;   // (n_blocks,), ascending in a row
  Buffer<std::uint32_t> scatter;  // (n_triangles, ElementBlocks::count)
  Buffer<std::uint8_t> own_rows;  // (n_triangles,), bit i: local node i belongs to the triangle's own chunk
  std::vector<Chunk> chunks;

  View<const std::int32_t, 2> triangles() const { return {corners.data(), {n_triangles, index{nodes_per_triangle}}}; }
  index n_blocks() const { return static_cast<index>(indices.size()); }
};

// triangles: (n_triangles, nodes_per_triangle), every entry in [0, n_nodes); the pattern keeps them, because its
// scatter map is true for no others. nodes_per_triangle is 6 or 3. Throws std::overflow_error when node, triangle or
// block numbers do not fit 31 bits.
Pattern make_pattern(Buffer<std::int32_t> triangles, int nodes_per_triangle, index n_nodes);

}  // namespace chemomech::fem
