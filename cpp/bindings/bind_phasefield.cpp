#include <utility>

#include "bindings/arrays.hpp"
#include "phasefield/conservation.hpp"
#include "voxel/operator.hpp"

namespace chemomech {
namespace {

// A linearised step with the coefficients of Python arrays, which it keeps.
class ConservationSystem {
 public:
  ConservationSystem(py::array mass, py::array mobility, py::array gradient, py::array curvature, py::array exchange)
      : held_{std::move(mass), std::move(mobility), std::move(gradient), std::move(curvature), std::move(exchange)} {
    system_.mass = view<const double>(held_[0], "mass", std::array<index, 3>{any, any, any});
    box_ = system_.mass.shape;
    if (box_[0] < 3 || box_[1] < 3 || box_[2] == 0 || box_[2] % voxel::row_padding != 0) {
      throw py::value_error("mass must have three planes and rows or more, and rows of a multiple of " +
                            std::to_string(voxel::row_padding) + ", got " + shape_text(held_[0]));
    }
    const std::array<index, 4> edges{3, box_[0], box_[1], box_[2]};
    system_.mobility = view<const double>(held_[1], "mobility", edges);
    system_.gradient = view<const double>(held_[2], "gradient", edges);
    system_.curvature = view<const double>(held_[3], "curvature", box_);
    system_.exchange = view<const double>(held_[4], "exchange", box_);
  }

  void factorise(double rate) {
    system_.rate = rate;
    const std::array<index, 4> shape{4, box_[0], box_[1], box_[2]};
    if (factors_.size() == 0) factors_ = Buffer<double>(static_cast<std::size_t>(4 * system_.mass.size()));
    py::gil_scoped_release nogil;
    phasefield::factorise_lines(system_, View<double, 4>{factors_.data(), shape});
  }

  void smooth(const py::array& right, int parity, const py::array& solution) const {
    if (factors_.size() == 0) throw py::value_error("factorise comes before smooth");
    const auto given = pair<const double>(right, "right");
    const auto changed = pair<double>(solution, "solution");
    require_apart(changed, "solution", given, "right");
    const std::array<index, 4> shape{4, box_[0], box_[1], box_[2]};
    py::gil_scoped_release nogil;
    phasefield::smooth_lines(system_, View<const double, 4>{factors_.data(), shape}, given, parity, changed);
  }

  void residual(const py::array& right, const py::array& solution, const py::array& out) const {
    const auto given = pair<const double>(right, "right");
    const auto at = pair<const double>(solution, "solution");
    const auto to = pair<double>(out, "out");
    require_apart(to, "out", at, "solution");
    if (to.data != given.data) require_apart(to, "out", given, "another part of right");
    py::gil_scoped_release nogil;
    phasefield::residual(system_, given, at, to);
  }

 private:
  template <class T>
  View<T, 4> pair(const py::array& array, const char* name) const {
    return view<T>(array, name, std::array<index, 4>{2, box_[0], box_[1], box_[2]});
  }

  std::array<py::array, 5> held_;
  std::array<index, 3> box_{};
  phasefield::System system_{};
  Buffer<double> factors_;
};

void spread(const py::array& edges, const py::array& u, const py::array& out) {
  const auto from = view<const double>(u, "u", std::array<index, 3>{any, any, any});
  const auto& box = from.shape;
  if (box[0] < 3 || box[1] < 3 || box[2] == 0 || box[2] % voxel::row_padding != 0) {
    throw py::value_error("u must have three planes and rows or more, and rows of a multiple of " +
                          std::to_string(voxel::row_padding) + ", got " + shape_text(u));
  }
  const auto of = view<const double>(edges, "edges", std::array<index, 4>{3, box[0], box[1], box[2]});
  const auto to = view<double>(out, "out", box);
  require_apart(to, "out", from, "u");
  require_apart(to, "out", of, "edges");
  py::gil_scoped_release nogil;
  phasefield::spread(of, from, to);
}

}  // namespace

void bind_phasefield(py::module_& m) {
  using py::arg;
  py::class_<ConservationSystem>(m, "ConservationSystem")
      .def(py::init<py::array, py::array, py::array, py::array, py::array>(), arg("mass").noconvert(),
           arg("mobility").noconvert(), arg("gradient").noconvert(), arg("curvature").noconvert(),
           arg("exchange").noconvert())
      .def("factorise", &ConservationSystem::factorise, arg("rate"))
      .def("smooth", &ConservationSystem::smooth, arg("right").noconvert(), arg("parity"), arg("solution").noconvert())
      .def("residual", &ConservationSystem::residual, arg("right").noconvert(), arg("solution").noconvert(),
           arg("out").noconvert());
  m.def("spread", &spread, arg("edges").noconvert(), arg("u").noconvert(), arg("out").noconvert());
}

}  // namespace chemomech
