// chemomech._core._cpu: which instruction sets this processor runs. Compiled without any -march option.
#include <pybind11/pybind11.h>

#include <string>

namespace {

#if defined(__x86_64__) || defined(_M_X64)
#define CHEMOMECH_FEATURE(name) \
  if (feature == name) return __builtin_cpu_supports(name) != 0;

// An unknown name is a missing feature: better a refusal than an illegal instruction.
bool has_feature(const std::string& feature) {
  __builtin_cpu_init();
  CHEMOMECH_FEATURE("sse4.2")
  CHEMOMECH_FEATURE("popcnt")
  CHEMOMECH_FEATURE("avx")
  CHEMOMECH_FEATURE("avx2")
  CHEMOMECH_FEATURE("fma")
  CHEMOMECH_FEATURE("bmi")
  CHEMOMECH_FEATURE("bmi2")
  CHEMOMECH_FEATURE("avx512f")
  CHEMOMECH_FEATURE("avx512vl")
  CHEMOMECH_FEATURE("avx512bw")
  CHEMOMECH_FEATURE("avx512dq")
  CHEMOMECH_FEATURE("avx512cd")
  CHEMOMECH_FEATURE("avx512ifma")
  CHEMOMECH_FEATURE("avx512vbmi")
  CHEMOMECH_FEATURE("avx512vbmi2")
  CHEMOMECH_FEATURE("avx512vnni")
  CHEMOMECH_FEATURE("avx512bitalg")
  CHEMOMECH_FEATURE("avx512vpopcntdq")
  CHEMOMECH_FEATURE("gfni")
  CHEMOMECH_FEATURE("vpclmulqdq")
  return false;
}
#else
bool has_feature(const std::string&) {
  return false;
}
#endif

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.attr("native_features") = CHEMOMECH_NATIVE_FEATURES;
  m.def("has_feature", &has_feature, pybind11::arg("feature"));
}
