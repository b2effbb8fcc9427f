// Views of C-contiguous arrays that somebody else owns. Shapes are fixed when the view is made; kernels only index.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace chemomech {

using index = std::ptrdiff_t;

template <class T, int rank>
struct View {
  T* data = nullptr;
  std::array<index, rank> shape{};

  // The address of the sub-array at these leading indices: view.at(i) is a row, view.at(i, j) an entry of a matrix.
  template <class... I>
  T* at(I... leading) const {
    static_assert(sizeof...(I) <= rank);
    const std::array<index, sizeof...(I)> indices{static_cast<index>(leading)...};
    index offset = 0;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      offset = offset * shape[axis] + (axis < indices.size() ? indices[axis] : 0);
    }
    return data + offset;
  }

  index size() const {
    index product = 1;
    for (const index extent : shape) product *= extent;
    return product;
  }
};

}  // namespace chemomech
