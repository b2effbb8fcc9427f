#include "bindings/arrays.hpp"
#include "dislocation/field.hpp"
#include "dislocation/sextic.hpp"

namespace chemomech {
namespace {

py::tuple solve_sextic(const py::array& stiffness, const py::array& burgers) {
  const auto elasticity = view<const double>(stiffness, "stiffness", std::array<index, 2>{6, 6});
  const auto vector = view<const double>(burgers, "burgers", std::array<index, 1>{3});
  auto radial = new_array<double>(3);
  auto hoop = new_array<double>(3, 7);
  auto denominator = new_array<double>(7);
  auto barnett_lothe = new_array<double>(6, 6);
  dislocation::solve_sextic(elasticity, vector, view<double>(radial, "radial", std::array<index, 1>{3}),
                            view<double>(hoop, "hoop", std::array<index, 2>{3, 7}),
                            view<double>(denominator, "denominator", std::array<index, 1>{7}),
                            view<double>(barnett_lothe, "barnett_lothe", std::array<index, 2>{6, 6}));
  return py::make_tuple(radial, hoop, denominator, barnett_lothe);
}

py::array distort_lines(const py::array& radial, const py::array& hoop, const py::array& denominator,
                        const py::array& points, const py::array& lines, const py::array& signs, double core) {
  const auto along_phi = view<const double>(hoop, "hoop", std::array<index, 2>{any, 7});
  const index n_components = along_phi.shape[0];
  if (n_components != 2 && n_components != 3) {
    throw py::value_error("hoop must have shape (2, 7) or (3, 7), got " + shape_text(hoop));
  }
  const auto along_r = view<const double>(radial, "radial", std::array{n_components});
  const auto bottom = view<const double>(denominator, "denominator", std::array<index, 1>{7});
  const auto at = view<const double>(points, "points", std::array<index, 2>{any, 2});
  const auto from = view<const double>(lines, "lines", std::array<index, 2>{any, 2});
  const auto weights = view<const double>(signs, "signs", std::array{from.shape[0]});
  auto out = new_array<double>(at.shape[0], n_components, 2);
  const auto out_view = view<double>(out, "out", std::array{at.shape[0], n_components, index{2}});
  {
    py::gil_scoped_release nogil;
    dislocation::evaluate(along_r, along_phi, bottom, at, from, weights, core, out_view);
  }
  return out;
}

py::array displace_lines(const py::array& radial, const py::array& burgers, const py::array& series,
                         const py::array& points, const py::array& lines, const py::array& signs) {
  const auto logarithm = view<const double>(radial, "radial", std::array<index, 1>{3});
  const auto vector = view<const double>(burgers, "burgers", std::array<index, 1>{3});
  const auto terms = view<const double>(series, "series", std::array<index, 3>{any, 3, 2});
  const auto at = view<const double>(points, "points", std::array<index, 2>{any, 2});
  const auto from = view<const double>(lines, "lines", std::array<index, 2>{any, 2});
  const auto weights = view<const double>(signs, "signs", std::array{from.shape[0]});
  auto out = new_array<double>(at.shape[0], 3);
  const auto out_view = view<double>(out, "out", std::array<index, 2>{at.shape[0], 3});
  {
    py::gil_scoped_release nogil;
    dislocation::displacement(logarithm, vector, terms, at, from, weights, out_view);
  }
  return out;
}

}  // namespace

void bind_dislocation(py::module_& m) {
  using py::arg;
  m.def("solve_sextic", &solve_sextic, arg("stiffness").noconvert(), arg("burgers").noconvert());
  m.def("distort_lines", &distort_lines, arg("radial").noconvert(), arg("hoop").noconvert(),
        arg("denominator").noconvert(), arg("points").noconvert(), arg("lines").noconvert(), arg("signs").noconvert(),
        arg("core"));
  m.def("displace_lines", &displace_lines, arg("radial").noconvert(), arg("burgers").noconvert(),
        arg("series").noconvert(), arg("points").noconvert(), arg("lines").noconvert(), arg("signs").noconvert());
}

}  // namespace chemomech
