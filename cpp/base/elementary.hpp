// exp and log of several values side by side, to two units in the last place, by the textbook reductions (Cody & Waite
// 1980): x = n ln 2 + r and 2^n e^r; x = 2^n m and n ln 2 + 2 artanh((m - 1) / (m + 1)). No special values: arguments
// of exp are held to +-700, those of log must be normal and positive.
#pragma once

#include <cstdint>

#include "base/simd.hpp"

namespace chemomech {

template <int w>
inline lanes<double, w> exp_lanes(lanes<double, w> x) {
  using Real = lanes<double, w>;
  using Integer = lanes<std::int64_t, w>;
  constexpr double limit = 700, magic = 0x1.8p52;  // adding it rounds to whole numbers, which end in the lowest bits
  x = x > limit ? Real{} + limit : x;
  x = x < -limit ? Real{} - limit : x;
  const Real shifted = x * 1.4426950408889634 + magic;
  const Real n = shifted - magic;
  const Real r = (x - n * 0x1.62e42fee00000p-1) - n * 1.90821492927058770002e-10;
  Real sum = Real{} + 1.0 / 6227020800.0;
  for (const double factorial :
       {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0}) {
    sum = sum * r + 1 / factorial;
  }
  const Integer exponent = ((Integer)shifted + 1023) << 52;
  return sum * (Real)exponent;
}

template <int w>
inline lanes<double, w> log_lanes(lanes<double, w> x) {
  using Real = lanes<double, w>;
  using Integer = lanes<std::int64_t, w>;
  constexpr std::int64_t root_half = 0x3fe6a09e667f3bcd, fraction = 0x000fffffffffffff;
  const Integer above = (Integer)x - root_half;
  const Integer n = above >> 52;
  const Real m = (Real)((above & fraction) + root_half);
  const Real s = (m - 1) / (m + 1), square = s * s;
  Real sum = Real{} + 1.0 / 21;
  for (const double odd : {19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0}) sum = sum * square + 1 / odd;
  const Real exponent = __builtin_convertvector(n, Real);
  return exponent * 0x1.62e42fee00000p-1 + (2 * s + (2 * s * square * sum + exponent * 1.90821492927058770002e-10));
}

}  // namespace chemomech
