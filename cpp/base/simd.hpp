// A few values side by side in one register (GCC's and Clang's vector extension), and what is asked for ahead of time.
#pragma once

#include <cstring>

#include "base/views.hpp"

namespace chemomech {

template <class Real, int w>
struct Lanes {
  typedef Real type __attribute__((vector_size(w * sizeof(Real))));
};

template <class Real>
struct Lanes<Real, 1> {
  using type = Real;
};

// w values of Real. Compilers split it where no register is as wide.
template <class Real, int w>
using lanes = typename Lanes<Real, w>::type;

template <int w, class Real>
inline lanes<Real, w> load(const Real* from) {
  lanes<Real, w> values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

template <class Vector, class Real>
inline void store(Real* to, const Vector& values) {
  std::memcpy(to, &values, sizeof values);
}

// What a loop over an unstructured mesh or matrix needs is requested this many steps (elements, blocks) before: its
// addresses lie in no order a processor foresees, and waiting for them is most of the time (2.4 times in the assembly
// of a matrix larger than the caches).
inline constexpr index prefetch_distance = 12;

}  // namespace chemomech
