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
#include "bindings/cpu_features.def"
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
