#include <pybind11/stl.h>

#include <utility>

#include "bindings/arrays.hpp"
#include "voxel/cells.hpp"
#include "voxel/element.hpp"
#include "voxel/operator.hpp"
#include "voxel/transfer.hpp"

namespace chemomech {
namespace {

std::array<double, 3> read_spacing(const py::array& spacing) {
  const auto given = view<const double>(spacing, "spacing", std::array<index, 1>{3});
  return {given.data[0], given.data[1], given.data[2]};
}

// A vector (components, X, Y, Z) on a box with halo.
template <class T>
View<T, 4> box_view(const py::array& array, const char* name, index components = any,
                    const std::array<index, 3>& box = {any, any, any}) {
  const auto vector = view<T>(array, name, std::array<index, 4>{components, box[0], box[1], box[2]});
  if (vector.shape[1] < 3 || vector.shape[2] < 3 || vector.shape[3] < 3 || vector.shape[3] % voxel::row_padding != 0) {
    throw py::value_error(std::string(name) + " must have three planes and rows or more, and rows of a multiple of " +
                          std::to_string(voxel::row_padding) + ", got " + shape_text(array));
  }
  return vector;
}

template <class T>
View<T, 4> vector_view(const py::array& array, const char* name, const std::array<index, 3>& box = {any, any, any}) {
  return box_view<T>(array, name, 3, box);
}

// An operator with the weights of a Python array, which it keeps.
template <class Real>
struct HeldOperator {
  HeldOperator(const py::array& constants, const py::array& spacing, py::array weights_in)
      : weights(std::move(weights_in)), body(make(constants, read_spacing(spacing), weights)) {}

  static voxel::Operator<Real> make(const py::array& constants, const std::array<double, 3>& spacing,
                                    const py::array& weights) {
    const auto given = view<const double>(constants, "constants", std::array<index, 2>{any, 9});
    const index materials = given.shape[0];
    if (materials != 1 && materials != 2) {
      throw py::value_error("constants must have shape (1, 9) or (2, 9), got " + shape_text(constants));
    }
    const auto of_cells = view<const Real>(weights, "weights", std::array<index, 4>{materials, any, any, any});
    if (of_cells.shape[1] < 3 || of_cells.shape[2] < 3 || of_cells.shape[3] % voxel::row_padding != 0 ||
        of_cells.shape[3] == 0) {
      throw py::value_error("weights must have three planes and rows or more, and rows of a multiple of " +
                            std::to_string(voxel::row_padding) + ", got " + shape_text(weights));
    }
    std::vector<voxel::Element<Real>> elements;
    for (index material = 0; material < materials; ++material) {
      elements.push_back(voxel::make_element<Real>(given.at(material), spacing.data()));
    }
    return voxel::make_operator(std::move(elements), of_cells);
  }

  template <class T>
  View<T, 4> view_of(const py::array& array, const char* name) const {
    return vector_view<T>(array, name, {body.planes(), body.rows(), body.row_length()});
  }

  py::array weights;
  voxel::Operator<Real> body;
};

template <class Real>
py::array inverse_diagonal(const HeldOperator<Real>& held) {
  auto out = new_array<Real>(3, held.body.planes(), held.body.rows(), held.body.row_length());
  const auto out_view = held.template view_of<Real>(out, "out");
  {
    py::gil_scoped_release nogil;
    voxel::inverse_diagonal(held.body, out_view);
  }
  return out;
}

template <class Real>
double multiply(const HeldOperator<Real>& held, const py::array& x, const py::array& out) {
  const auto in = held.template view_of<const Real>(x, "x");
  const auto y = held.template view_of<Real>(out, "out");
  require_apart(y, "out", in, "x");
  py::gil_scoped_release nogil;
  return voxel::multiply(held.body, in, y);
}

template <class Real>
void residual(const HeldOperator<Real>& held, const py::array& b, const py::array& x, const py::array& out) {
  const auto in = held.template view_of<const Real>(x, "x");
  const auto load = held.template view_of<const Real>(b, "b");
  const auto r = held.template view_of<Real>(out, "out");
  require_apart(r, "out", in, "x");
  if (r.data != load.data) require_apart(r, "out", load, "another part of b");
  py::gil_scoped_release nogil;
  voxel::residual(held.body, load, in, r);
}

template <class Real>
void smooth(const HeldOperator<Real>& held, const py::array& inverse, const py::array& b,
            const std::optional<py::array>& x, const py::array& direction, Real alpha, Real beta,
            const py::array& out) {
  const auto scaling = held.template view_of<const Real>(inverse, "inverse_diagonal");
  const auto load = held.template view_of<const Real>(b, "b");
  const auto in = x ? held.template view_of<const Real>(*x, "x") : View<const Real, 4>{};
  const auto step = held.template view_of<Real>(direction, "direction");
  const auto x_new = held.template view_of<Real>(out, "out");
  require_apart(x_new, "out", step, "direction");
  for (const auto& [written, name] : {std::pair{step, "direction"}, std::pair{x_new, "out"}}) {
    require_apart(written, name, load, "b");
    require_apart(written, name, in, "x");
    require_apart(written, name, scaling, "inverse_diagonal");
  }
  py::gil_scoped_release nogil;
  if (x) {
    voxel::smooth(held.body, scaling, load, in, step, alpha, beta, x_new);
  } else {
    voxel::smooth_from_zero(scaling, load, step, beta, x_new);
  }
}

template <class Real>
void bind_operator(py::module_& m, const char* name) {
  using py::arg;
  using Held = HeldOperator<Real>;
  py::class_<Held>(m, name)
      .def(py::init<const py::array&, const py::array&, py::array>(), arg("constants").noconvert(),
           arg("spacing").noconvert(), arg("weights").noconvert())
      .def("inverse_diagonal", &inverse_diagonal<Real>)
      .def("multiply", &multiply<Real>, arg("x").noconvert(), arg("out").noconvert())
      .def("residual", &residual<Real>, arg("b").noconvert(), arg("x").noconvert(), arg("out").noconvert())
      .def("smooth", &smooth<Real>, arg("inverse_diagonal").noconvert(), arg("b").noconvert(), arg("x").noconvert(),
           arg("direction").noconvert(), arg("alpha"), arg("beta"), arg("out").noconvert());
}

// Every coarse row has children, and every fine row parents.
void require_nested(const std::array<index, 3>& factors, const std::array<index, 4>& fine,
                    const std::array<index, 4>& coarse) {
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const index factor = factors[axis], fine_extent = fine[axis + 1], coarse_extent = coarse[axis + 1];
    if (factor != 1 && factor != 2) {
      throw py::value_error("factors must be 1 or 2, got " + std::to_string(factor));
    }
    const bool padded = axis == 2;
    const bool fits = factor == 1 ? fine_extent == coarse_extent
                                  : padded || (2 * (coarse_extent - 2) - 1 <= fine_extent - 1 &&
                                               (fine_extent - 1) / 2 + 1 <= coarse_extent - 1);
    if (!fits) {
      throw py::value_error("a coarse box of " + std::to_string(coarse_extent) + " does not cover a fine one of " +
                            std::to_string(fine_extent) + " along axis " + std::to_string(axis));
    }
  }
}

// A transfer between boxes of as many components, in the precision of the fine one.
template <class Real, class Transfer>
void between(const std::array<index, 3>& factors, const py::array& from, const char* from_name, const py::array& to,
             const char* to_name, bool coarsens, const Transfer& transfer) {
  const auto source = box_view<const Real>(from, from_name);
  const auto target = box_view<Real>(to, to_name);
  if (source.shape[0] != target.shape[0]) {
    throw py::value_error(std::string(from_name) + " has " + std::to_string(source.shape[0]) + " components, " +
                          to_name + " " + std::to_string(target.shape[0]));
  }
  coarsens ? require_nested(factors, source.shape, target.shape) : require_nested(factors, target.shape, source.shape);
  require_apart(target, to_name, source, from_name);
  py::gil_scoped_release nogil;
  transfer(factors, source, target);
}

void restrict_to(const std::array<index, 3>& factors, const py::array& fine, const py::array& coarse) {
  if (py::isinstance<py::array_t<double>>(fine)) {
    between<double>(factors, fine, "fine", coarse, "coarse", true, voxel::restrict_to<double>);
  } else {
    between<float>(factors, fine, "fine", coarse, "coarse", true, voxel::restrict_to<float>);
  }
}

void add_prolonged(const std::array<index, 3>& factors, const py::array& coarse, const py::array& fine) {
  if (py::isinstance<py::array_t<double>>(fine)) {
    between<double>(factors, coarse, "coarse", fine, "fine", false, voxel::add_prolonged<double>);
  } else {
    between<float>(factors, coarse, "coarse", fine, "fine", false, voxel::add_prolonged<float>);
  }
}

voxel::Cells view_cells(const py::array& stiffness, const py::array& weights, const py::array& spacing,
                        const std::array<index, 4>& box) {
  const auto elasticity = view<const double>(stiffness, "stiffness", std::array<index, 3>{any, 6, 6});
  return {elasticity, view<const double>(weights, "weights", std::array{elasticity.shape[0], box[1], box[2], box[3]}),
          read_spacing(spacing)};
}

// A vector with all corners of the cells (nx, ny, nz, 6): all of them owned (beyond = 3), or some in the halo (2).
template <class T>
View<T, 4> view_around(const py::array& array, const char* name, const std::array<index, 4>& cells, index beyond) {
  const auto vector = vector_view<T>(array, name, {any, any, any});
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (vector.shape[axis + 1] < cells[axis] + beyond) {
      throw py::value_error(std::string(name) + " of shape " + shape_text(array) + " has no room for the corners of " +
                            std::to_string(cells[axis]) + " cells along axis " + std::to_string(axis));
    }
  }
  return vector;
}

double eigenstrain_loads(const py::array& stiffness, const py::array& weights, const py::array& spacing,
                         const py::array& eigenstrain, const py::array& out) {
  const auto strain = view<const double>(eigenstrain, "eigenstrain", std::array<index, 4>{any, any, any, 6});
  const auto loads = view_around<double>(out, "out", strain.shape, 3);
  const auto cells = view_cells(stiffness, weights, spacing, loads.shape);
  require_apart(loads, "out", strain, "eigenstrain");
  require_apart(loads, "out", cells.weights, "weights");
  py::gil_scoped_release nogil;
  return voxel::eigenstrain_loads(cells, strain, loads);
}

py::tuple elastic_fields(const py::array& stiffness, const py::array& weights, const py::array& spacing,
                         const py::array& eigenstrain, const py::array& u) {
  const auto stress_free = view<const double>(eigenstrain, "eigenstrain", std::array<index, 4>{any, any, any, 6});
  const auto in = view_around<const double>(u, "u", stress_free.shape, 2);
  const auto cells = view_cells(stiffness, weights, spacing, in.shape);
  const auto& [nx, ny, nz, n_components] = stress_free.shape;
  auto strain = new_array<double>(nx, ny, nz, n_components);
  auto stress = new_array<double>(nx, ny, nz, n_components);
  const auto strain_view = view<double>(strain, "strain", stress_free.shape);
  const auto stress_view = view<double>(stress, "stress", stress_free.shape);
  double energy;
  {
    py::gil_scoped_release nogil;
    energy = voxel::elastic_fields(cells, stress_free, in, strain_view, stress_view);
  }
  return py::make_tuple(energy, strain, stress);
}

}  // namespace

void bind_voxel(py::module_& m) {
  using py::arg;
  bind_operator<double>(m, "VoxelOperator");
  bind_operator<float>(m, "VoxelOperator32");
  m.attr("row_padding") = voxel::row_padding;
  m.def("restrict_to", &restrict_to, arg("factors"), arg("fine").noconvert(), arg("coarse").noconvert());
  m.def("add_prolonged", &add_prolonged, arg("factors"), arg("coarse").noconvert(), arg("fine").noconvert());
  m.def("eigenstrain_loads", &eigenstrain_loads, arg("stiffness").noconvert(), arg("weights").noconvert(),
        arg("spacing").noconvert(), arg("eigenstrain").noconvert(), arg("out").noconvert());
  m.def("elastic_fields", &elastic_fields, arg("stiffness").noconvert(), arg("weights").noconvert(),
        arg("spacing").noconvert(), arg("eigenstrain").noconvert(), arg("u").noconvert());
}

}  // namespace chemomech
