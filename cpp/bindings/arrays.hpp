// The gate between NumPy and the kernels: an array either is exactly what a kernel reads or is refused. Nothing is
// converted or copied silently. The wrong dtype is a TypeError, the wrong shape or layout a ValueError.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/buffer.hpp"
#include "base/views.hpp"

namespace chemomech {

namespace py = pybind11;

inline constexpr index any = -1;  // an extent that is free in a required shape

template <std::size_t rank>
std::string shape_text(const std::array<index, rank>& shape) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < rank; ++axis) {
    text += (axis > 0 ? ", " : "") + (shape[axis] == any ? std::string("any") : std::to_string(shape[axis]));
  }
  return text + (rank == 1 ? ",)" : ")");
}

inline std::string shape_text(const py::array& array) {
  return py::str(array.attr("shape"));
}

// A view of `array` as C-contiguous T of the required shape; T without const asks for a writeable array.
template <class T, std::size_t rank>
View<T, static_cast<int>(rank)> view(const py::array& array, const char* name,
                                     const std::array<index, rank>& required) {
  using Value = std::remove_const_t<T>;
  const std::string who = name;
  if (!py::isinstance<py::array_t<Value>>(array)) {
    throw py::type_error(who + " must have dtype " + std::string(py::str(py::dtype::of<Value>())) + ", got " +
                         std::string(py::str(array.dtype())));
  }
  bool fits = array.ndim() == static_cast<py::ssize_t>(rank);
  for (std::size_t axis = 0; fits && axis < rank; ++axis) {
    fits = required[axis] == any || required[axis] == array.shape(static_cast<py::ssize_t>(axis));
  }
  if (!fits) throw py::value_error(who + " must have shape " + shape_text(required) + ", got " + shape_text(array));
  if (!(array.flags() & py::array::c_style)) throw py::value_error(who + " must be C-contiguous");
  View<T, static_cast<int>(rank)> result;
  if constexpr (std::is_const_v<T>) {
    result.data = static_cast<T*>(array.data());
  } else {
    if (!array.writeable()) throw py::value_error(who + " must be writeable");
    result.data = static_cast<T*>(const_cast<void*>(array.data()));
  }
  for (std::size_t axis = 0; axis < rank; ++axis) result.shape[axis] = array.shape(static_cast<py::ssize_t>(axis));
  return result;
}

template <class T, class... Extent>
py::array_t<T> new_array(Extent... extent) {
  return py::array_t<T>(std::array<py::ssize_t, sizeof...(Extent)>{static_cast<py::ssize_t>(extent)...});
}

// A copy for what is checked once and trusted ever after: no caller can write to it.
template <class T, int rank>
Buffer<T> copy_of(View<const T, rank> given) {
  Buffer<T> copy(static_cast<std::size_t>(given.size()));
  std::copy_n(given.data, given.size(), copy.data());
  return copy;
}

// A kernel writes `out` while it reads `in`.
template <class Out, int out_rank, class In, int in_rank>
void require_apart(View<Out, out_rank> out, const char* out_name, View<In, in_rank> in, const char* in_name) {
  const std::less<const void*> before;
  if (before(out.data, in.data + in.size()) && before(in.data, out.data + out.size())) {
    throw py::value_error(std::string(out_name) + " must not share memory with " + in_name);
  }
}

// An array over memory that `owner` keeps alive; read-only.
template <class T>
py::array_t<T> borrow(const T* data, const std::vector<index>& shape, py::handle owner) {
  py::array_t<T> array(shape, data, owner);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

// Every entry in [0, bound), or a ValueError that names the first that is not.
inline void require_range(View<const std::int32_t, 2> entries, index bound, const char* name) {
  std::uint32_t most = 0;  // negative entries wrap to large ones
  for (index i = 0; i < entries.size(); ++i) {
    const auto entry = static_cast<std::uint32_t>(entries.data[i]);
    most = entry > most ? entry : most;
  }
  if (entries.size() == 0 || most < static_cast<std::uint64_t>(bound)) return;
  index i = 0;
  while (entries.data[i] >= 0 && entries.data[i] < bound) ++i;
  throw py::value_error(std::string(name) + " must be in [0, " + std::to_string(bound) + "), but row " +
                        std::to_string(i / entries.shape[1]) + " has " + std::to_string(entries.data[i]));
}

inline void require_range(View<const std::int32_t, 1> entries, index bound, const char* name) {
  require_range(View<const std::int32_t, 2>{entries.data, {entries.shape[0], 1}}, bound, name);
}

}  // namespace chemomech
