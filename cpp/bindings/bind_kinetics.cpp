#include "bindings/arrays.hpp"
#include "kinetics/trajectory.hpp"

namespace chemomech {
namespace {

using kinetics::Trajectory;

Trajectory integrate_reaction(const py::array& pixel, index n_pixels, const py::array& indptr, const py::array& indices,
                              const py::array& values, const py::array& mu, const py::array& log_j0,
                              const py::array& log_k, double alpha, const py::array& control_time,
                              const py::array& control, bool galvanostatic, const py::array& edge_time,
                              const py::array& edge, const py::array& coherency, const py::array& initial,
                              const py::array& frame_time, double tolerance, index most_steps, bool derivatives) {
  const auto pixels = view<const std::int32_t>(pixel, "pixel", std::array{any});
  const index n = pixels.shape[0];
  const auto starts = view<const std::int32_t>(indptr, "indptr", std::array{n + 1});
  const auto columns = view<const std::int32_t>(indices, "indices", std::array{any});
  const index n_entries = columns.shape[0];
  const auto entries = view<const double>(values, "values", std::array{n_entries});
  const auto rows = view<const double>(coherency, "coherency", std::array{n_pixels, any});
  require_range(pixels, n_pixels, "pixel");
  require_range(columns, n, "indices");
  if (starts.data[0] != 0 || starts.data[n] != n_entries || !std::is_sorted(starts.data, starts.data + n + 1)) {
    throw py::value_error("indptr must rise from 0 to the number of indices");
  }
  kinetics::Particle particle;
  particle.coupling = std::make_shared<kinetics::Coupling>(starts, columns, entries, pixels, rows);
  const kinetics::Laws laws{view<const double>(mu, "mu", std::array{any}),
                            view<const double>(log_j0, "log_j0", std::array{any}),
                            view<const double>(log_k, "log_k", std::array{n_pixels}), alpha};
  const auto knots = view<const double>(control_time, "control_time", std::array{any});
  const kinetics::Control prescribed{knots, view<const double>(control, "control", std::array{knots.shape[0]}),
                                     galvanostatic};
  particle.edge_time = view<const double>(edge_time, "edge_time", std::array{any});
  particle.edge = view<const double>(edge, "edge", std::array{particle.edge_time.shape[0], n});
  const auto start = view<const double>(initial, "initial", std::array{n});
  const auto times = view<const double>(frame_time, "frame_time", std::array{any});
  if (n == 0 || knots.shape[0] == 0 || times.shape[0] == 0) throw py::value_error("nothing to integrate");
  py::gil_scoped_release nogil;
  return kinetics::integrate(particle, laws, prescribed, start.data, times, tolerance, most_steps, derivatives);
}

py::array frames_of(const Trajectory& trajectory) {
  const index n_frames = static_cast<index>(trajectory.frames.size());
  auto out = new_array<double>(n_frames, trajectory.n_pixels);
  kinetics::frames_of(trajectory, view<double>(out, "out", std::array{n_frames, trajectory.n_pixels}));
  return out;
}

void require_derivatives(const Trajectory& trajectory) {
  if (!trajectory.derivatives) throw py::value_error("the trajectory was integrated without derivatives");
}

void require_solved(bool solved) {
  if (solved) return;
  const auto error = py::module_::import("numpy.linalg").attr("LinAlgError");
  PyErr_SetString(error.ptr(), "the derivatives of a step cannot be solved for: its matrix is not positive");
  throw py::error_already_set();
}

kinetics::Bases bases_of(const Trajectory& trajectory, const py::array& log_k, const py::array& initial,
                         const py::array& control) {
  const index n_knots = static_cast<index>(trajectory.control_time.size());
  return {view<const double>(log_k, "log_k_basis", std::array{trajectory.n_pixels, any}),
          view<const double>(initial, "initial_basis", std::array{trajectory.n_cells, any}),
          view<const double>(control, "control_basis", std::array{n_knots, any})};
}

py::array sensitivities(const Trajectory& trajectory, const py::array& log_k_basis, const py::array& initial_basis,
                        const py::array& control_basis, double tolerance, bool threads) {
  require_derivatives(trajectory);
  const auto bases = bases_of(trajectory, log_k_basis, initial_basis, control_basis);
  const index n_columns = trajectory.n_mu() + trajectory.n_log_j0() + bases.size();
  const index n_frames = static_cast<index>(trajectory.frames.size());
  auto out = new_array<double>(n_frames, trajectory.n_pixels, n_columns);
  const auto out_view = view<double>(out, "out", std::array{n_frames, trajectory.n_pixels, n_columns});
  bool solved;
  {
    py::gil_scoped_release nogil;
    solved = kinetics::sensitivities(trajectory, bases, tolerance, threads, out_view);
  }
  require_solved(solved);
  return out;
}

// Arrays of zeros for gradients.
struct GradientArrays {
  py::array mu, log_j0, log_k, initial, control;

  explicit GradientArrays(const Trajectory& trajectory)
      : mu(zeros(trajectory.n_mu())),
        log_j0(zeros(trajectory.n_log_j0())),
        log_k(zeros(trajectory.n_pixels)),
        initial(zeros(trajectory.n_cells)),
        control(zeros(static_cast<index>(trajectory.control_time.size()))) {}

  kinetics::Gradient views() {
    const auto whole = [](py::array& array) { return view<double>(array, "gradient", std::array{any}); };
    return {whole(mu), whole(log_j0), whole(log_k), whole(initial), whole(control)};
  }

 private:
  static py::array zeros(index n) {
    auto array = new_array<double>(n);
    std::fill_n(array.mutable_data(), n, 0.0);
    return array;
  }
};

py::tuple adjoint(const Trajectory& trajectory, const py::array& weights, double tolerance) {
  require_derivatives(trajectory);
  const index n_frames = static_cast<index>(trajectory.frames.size());
  const auto given = view<const double>(weights, "weights", std::array{n_frames, trajectory.n_pixels});
  GradientArrays out(trajectory);
  const auto views = out.views();
  bool solved;
  {
    py::gil_scoped_release nogil;
    solved = kinetics::adjoint(trajectory, given, tolerance, views);
  }
  require_solved(solved);
  return py::make_tuple(out.mu, out.log_j0, out.log_k, out.initial, out.control);
}

py::tuple adjoint_of_sensitivities(const Trajectory& trajectory, const py::array& weights, const py::array& log_k_basis,
                                   const py::array& initial_basis, const py::array& control_basis, double tolerance) {
  require_derivatives(trajectory);
  const auto bases = bases_of(trajectory, log_k_basis, initial_basis, control_basis);
  const index n_frames = static_cast<index>(trajectory.frames.size());
  const auto given = view<const double>(weights, "weights", std::array{n_frames, trajectory.n_pixels, bases.size()});
  GradientArrays out(trajectory);
  const auto views = out.views();
  auto along_initial = new_array<double>(trajectory.n_cells, bases.initial.shape[1]);
  const auto along =
      view<double>(along_initial, "along_initial", std::array{trajectory.n_cells, bases.initial.shape[1]});
  bool solved;
  {
    py::gil_scoped_release nogil;
    solved = kinetics::adjoint_of_sensitivities(trajectory, bases, given, tolerance, views, along);
  }
  require_solved(solved);
  return py::make_tuple(out.mu, out.log_j0, out.log_k, out.initial, out.control, along_initial);
}

}  // namespace

void bind_kinetics(py::module_& m) {
  using py::arg;
  m.def("integrate_reaction", &integrate_reaction, arg("pixel").noconvert(), arg("n_pixels"), arg("indptr").noconvert(),
        arg("indices").noconvert(), arg("values").noconvert(), arg("mu").noconvert(), arg("log_j0").noconvert(),
        arg("log_k").noconvert(), arg("alpha"), arg("control_time").noconvert(), arg("control").noconvert(),
        arg("galvanostatic"), arg("edge_time").noconvert(), arg("edge").noconvert(), arg("coherency").noconvert(),
        arg("initial").noconvert(), arg("frame_time").noconvert(), arg("tolerance"), arg("most_steps"),
        arg("derivatives"));
  const auto borrowed = [](const std::vector<double>& values, const std::vector<index>& shape, py::handle owner) {
    return borrow(values.data(), shape, owner);
  };
  py::class_<Trajectory>(m, "Trajectory")
      .def_property_readonly("n_steps", [](const Trajectory& t) { return t.steps.size(); })
      .def_property_readonly("n_evaluations", [](const Trajectory& t) { return t.n_evaluations; })
      .def_property_readonly("n_rejected", [](const Trajectory& t) { return t.n_rejected; })
      .def_property_readonly("orders",
                             [](const Trajectory& t) {
                               auto orders = new_array<std::int32_t>(static_cast<index>(t.steps.size()));
                               for (std::size_t i = 0; i < t.steps.size(); ++i) orders.mutable_at(i) = t.steps[i].order;
                               return orders;
                             })
      .def_property_readonly("time",
                             [=](py::object self) {
                               const auto& t = self.cast<const Trajectory&>();
                               return borrowed(t.time, {static_cast<index>(t.time.size())}, self);
                             })
      .def_property_readonly("potential",
                             [=](py::object self) {
                               const auto& t = self.cast<const Trajectory&>();
                               return borrowed(t.potential, {static_cast<index>(t.potential.size())}, self);
                             })
      .def_property_readonly("states",
                             [=](py::object self) {
                               const auto& t = self.cast<const Trajectory&>();
                               return borrowed(t.states, {static_cast<index>(t.time.size()), t.n_cells}, self);
                             })
      .def("frames", &frames_of)
      .def("sensitivities", &sensitivities, arg("log_k_basis").noconvert(), arg("initial_basis").noconvert(),
           arg("control_basis").noconvert(), arg("tolerance") = 1e-4, arg("threads") = true)
      .def("adjoint", &adjoint, arg("weights").noconvert(), arg("tolerance") = 1e-12)
      .def("adjoint_of_sensitivities", &adjoint_of_sensitivities, arg("weights").noconvert(),
           arg("log_k_basis").noconvert(), arg("initial_basis").noconvert(), arg("control_basis").noconvert(),
           arg("tolerance") = 1e-6);
}

}  // namespace chemomech
