// Threads: OpenMP where the compiler has it, one thread elsewhere. Loops over independent outputs only, so no result
// depends on the number of threads.
#pragma once

#include <atomic>
#include <exception>

#include "base/views.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace chemomech {

inline int max_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// Runs pieces of a parallel loop and keeps the first exception (memory may run out): one that left an OpenMP region
// would end the process.
class FirstError {
 public:
  template <class Piece>
  void guard(const Piece& piece) noexcept {
    try {
      piece();
    } catch (...) {
      if (!raised_.test_and_set()) error_ = std::current_exception();
    }
  }

  // After the loop, whose barrier makes error_ visible.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::atomic_flag raised_;
  std::exception_ptr error_;
};

// body(begin, end) on contiguous parts of [0, n); parts smaller than `grain` are not worth a thread.
template <class Body>
void for_ranges(index n, index grain, const Body& body) {
  const index most = n / grain < 1 ? 1 : n / grain;
  const index parts = most < max_threads() ? most : max_threads();
  FirstError error;
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(parts)) if (parts > 1)
  for (index part = 0; part < parts; ++part) {
    error.guard([&] { body(n * part / parts, n * (part + 1) / parts); });
  }
  error.rethrow();
}

// body(i) for i in [0, n), handed out one by one: for few, large, uneven pieces of work.
template <class Body>
void for_tasks(index n, const Body& body) {
  FirstError error;
#pragma omp parallel for schedule(dynamic, 1) if (n > 1)
  for (index i = 0; i < n; ++i) {
    error.guard([&] { body(i); });
  }
  error.rethrow();
}

}  // namespace chemomech
