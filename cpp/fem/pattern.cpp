#include "fem/pattern.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/groups.hpp"
#include "base/threads.hpp"

namespace chemomech::fem {
namespace {

constexpr index int32_most = std::numeric_limits<std::int32_t>::max();
constexpr index rows_per_thread = 4096;      // below this a thread costs more than it saves
constexpr index triangles_per_chunk = 4096;  // triangles on the border of two chunks are visited twice: keep them few

void require_int32(index count, const char* what) {
  if (count > int32_most) {
    throw std::overflow_error(std::to_string(count) + " " + what + " do not fit 32-bit indices (at most " +
                              std::to_string(int32_most) + ")");
  }
}

// The triangles at each node, ascending: an item is triangle * nodes + local node.
using Incidence = Groups;

// The sorted columns of one row. Rows are short (7 and 13 in a regular mesh): insertion beats any set.
template <int nodes>
void merge_columns(View<const std::int32_t, 2> triangles, const Incidence& incidence, index node,
                   std::vector<std::int32_t>& columns) {
  using Blocks = ElementBlocks<nodes>;
  columns.clear();
  for (index at = incidence.begin[node]; at < incidence.begin[node + 1]; ++at) {
    const std::int32_t* triangle = triangles.at(incidence.member[at] / nodes);
    const int local = incidence.member[at] % nodes;
    for (int s = Blocks::row_begin[local]; s < Blocks::row_begin[local + 1]; ++s) {
      const std::int32_t column = triangle[Blocks::column[s]];
      std::size_t place = columns.size();
      while (place > 0 && columns[place - 1] > column) --place;
      if (place > 0 && columns[place - 1] == column) continue;
      columns.insert(columns.begin() + static_cast<index>(place), column);
    }
  }
}

template <int nodes>
void find_rows(const Incidence& incidence, Pattern& pattern) {
  const auto triangles = pattern.triangles();
  using Blocks = ElementBlocks<nodes>;
  const index n_nodes = pattern.n_nodes;
  pattern.indptr = Buffer<std::int32_t>(n_nodes + 1);
  for_ranges(n_nodes, rows_per_thread, [&](index begin, index end) {
    std::vector<std::int32_t> columns;
    for (index node = begin; node < end; ++node) {
      merge_columns<nodes>(triangles, incidence, node, columns);
      pattern.indptr[node + 1] = static_cast<std::int32_t>(columns.size());
    }
  });
  index n_blocks = 0;
  for (index node = 0; node < n_nodes; ++node) n_blocks += pattern.indptr[node + 1];
  require_int32(n_blocks, "blocks");
  pattern.indptr[0] = 0;
  for (index node = 0; node < n_nodes; ++node) pattern.indptr[node + 1] += pattern.indptr[node];

  pattern.indices = Buffer<std::int32_t>(n_blocks);
  pattern.scatter = Buffer<std::uint32_t>(pattern.n_triangles * Blocks::count);
  for_ranges(n_nodes, rows_per_thread, [&](index begin, index end) {
    std::vector<std::int32_t> columns;
    std::vector<std::uint32_t> written;  // first_writer until a triangle has written the block
    for (index node = begin; node < end; ++node) {
      merge_columns<nodes>(triangles, incidence, node, columns);
      const std::int32_t row = pattern.indptr[node];
      std::copy(columns.begin(), columns.end(), pattern.indices.data() + row);
      written.assign(columns.size(), first_writer);
      for (index at = incidence.begin[node]; at < incidence.begin[node + 1]; ++at) {
        const index element = incidence.member[at] / nodes;
        const int local = incidence.member[at] % nodes;
        for (int s = Blocks::row_begin[local]; s < Blocks::row_begin[local + 1]; ++s) {
          const std::int32_t column = *triangles.at(element, Blocks::column[s]);
          std::size_t place = 0;
          while (columns[place] != column) ++place;
          pattern.scatter[element * Blocks::count + s] =
              (static_cast<std::uint32_t>(row) + static_cast<std::uint32_t>(place)) | written[place];
          written[place] = 0;
        }
      }
    }
  });
}

template <int nodes>
void find_chunks(const Incidence& incidence, Pattern& pattern) {
  const auto triangles = pattern.triangles();
  const index n_triangles = pattern.n_triangles;
  // A few chunks a thread, so that a thread that is held up does not hold up the others.
  const index most = max_threads() == 1 ? 1 : 4 * max_threads();
  const index n_chunks = std::clamp<index>(n_triangles / triangles_per_chunk, 1, most);
  for (index c = 0; c < n_chunks; ++c) {
    pattern.chunks.push_back({n_triangles * c / n_chunks, n_triangles * (c + 1) / n_chunks, {}, {}});
  }
  pattern.own_rows = Buffer<std::uint8_t>(n_triangles);
  for (const Chunk& chunk : pattern.chunks) {
    for (index element = chunk.begin; element < chunk.end; ++element) {
      unsigned own = 0;
      for (int i = 0; i < nodes; ++i) {
        const index first = incidence.member[incidence.begin[*triangles.at(element, i)]] / nodes;
        if (first >= chunk.begin) {
          own |= 1u << i;
          continue;
        }
        const auto after = std::upper_bound(pattern.chunks.begin(), pattern.chunks.end(), first,
                                            [](index e, const Chunk& other) { return e < other.end; });
        if (after->foreign.empty() || after->foreign.back() != element) {
          after->foreign.push_back(static_cast<std::int32_t>(element));
          after->foreign_rows.push_back(0);
        }
        after->foreign_rows.back() = static_cast<std::uint8_t>(after->foreign_rows.back() | 1u << i);
      }
      pattern.own_rows[element] = static_cast<std::uint8_t>(own);
    }
  }
}

}  // namespace

Pattern make_pattern(Buffer<std::int32_t> triangles, int nodes_per_triangle, index n_nodes) {
  const auto n_corners = static_cast<index>(triangles.size());
  require_int32(n_nodes + 2, "nodes");
  require_int32(n_corners, "corners of triangles");
  Pattern pattern;
  pattern.n_nodes = n_nodes;
  pattern.n_triangles = n_corners / nodes_per_triangle;
  pattern.nodes_per_triangle = nodes_per_triangle;
  pattern.corners = std::move(triangles);
  const Incidence incidence = group_by({pattern.corners.data(), {n_corners}}, n_nodes);
  const auto find = [&]<int nodes>() {
    find_rows<nodes>(incidence, pattern);
    find_chunks<nodes>(incidence, pattern);
  };
  nodes_per_triangle == 6 ? find.operator()<6>() : find.operator()<3>();
  return pattern;
}

}  // namespace chemomech::fem
