// The extension: one registrar a folder of kernels. CHEMOMECH_MODULE is _native or one of the SIMD levels.
#include <pybind11/pybind11.h>

#include "base/threads.hpp"

namespace chemomech {

void bind_dislocation(pybind11::module_& m);
void bind_fem(pybind11::module_& m);
void bind_voxel(pybind11::module_& m);
void bind_kinetics(pybind11::module_& m);
void bind_phasefield(pybind11::module_& m);

namespace {

pybind11::dict compiled() {
  pybind11::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  info["threads"] = max_threads();
  return info;
}

}  // namespace
}  // namespace chemomech

PYBIND11_MODULE(CHEMOMECH_MODULE, m) {
  m.def("compiled", &chemomech::compiled);
  chemomech::bind_dislocation(m);
  chemomech::bind_fem(m);
  chemomech::bind_voxel(m);
  chemomech::bind_kinetics(m);
  chemomech::bind_phasefield(m);
}
