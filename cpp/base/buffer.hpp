// Memory that is owned and not initialised: the first thread to write a page decides where it lives. It begins with a
// cache line, so that a vector register is loaded from one line and not from two.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>

namespace chemomech {

template <class T>
class Buffer {
  static_assert(std::is_trivial_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(std::size_t size)
      : data_(static_cast<T*>(::operator new[](size * sizeof(T), cache_line))), size_(size) {}

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  static constexpr std::align_val_t cache_line{64};
  struct Free {
    void operator()(T* data) const { ::operator delete[](data, cache_line); }
  };
  std::unique_ptr<T[], Free> data_;
  std::size_t size_ = 0;
};

}  // namespace chemomech
