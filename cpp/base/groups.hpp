// Items put in order of the group they belong to: a counting sort.
#pragma once

#include <algorithm>

#include "base/buffer.hpp"
#include "base/views.hpp"

namespace chemomech {

// The items of group g, ascending: member[begin[g]] .. member[begin[g + 1] - 1].
struct Groups {
  Buffer<std::int32_t> begin;   // (n_groups + 2,), the last entry is no use to a reader
  Buffer<std::int32_t> member;  // (n_items,)
};

// group: (n_items,), every entry in [0, n_groups); n_items and n_groups + 2 fit 31 bits.
inline Groups group_by(View<const std::int32_t, 1> group, index n_groups) {
  const index n_items = group.shape[0];
  Groups groups{Buffer<std::int32_t>(n_groups + 2), Buffer<std::int32_t>(n_items)};
  // Counts are kept two places ahead: after the running sum, begin[g + 1] is where the next item of g goes, and once
  // all are placed it is where the next group begins.
  std::fill_n(groups.begin.data(), n_groups + 2, 0);
  for (index i = 0; i < n_items; ++i) ++groups.begin[group.data[i] + 2];
  for (index g = 0; g < n_groups; ++g) groups.begin[g + 2] += groups.begin[g + 1];
  for (index i = 0; i < n_items; ++i) {
    groups.member[groups.begin[group.data[i] + 1]++] = static_cast<std::int32_t>(i);
  }
  return groups;
}

}  // namespace chemomech
