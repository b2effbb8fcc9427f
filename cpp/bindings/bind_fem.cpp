#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "fem/assembly.hpp"
#include "fem/block_matrix.hpp"
#include "fem/pattern.hpp"

namespace chemomech {
namespace {

fem::Pattern make_pattern(const py::array& triangles, index n_nodes) {
  const auto nodes_per_triangle = triangles.ndim() == 2 ? index{triangles.shape(1)} : any;
  const auto elements = view<const std::int32_t>(triangles, "triangles", std::array{any, any});
  if (nodes_per_triangle != 3 && nodes_per_triangle != 6) {
    throw py::value_error("triangles must have shape (any, 6) or (any, 3), got " + shape_text(triangles));
  }
  if (n_nodes < 0) throw py::value_error("n_nodes must not be negative, got " + std::to_string(n_nodes));
  require_range(elements, n_nodes, "triangles");
  py::gil_scoped_release nogil;
  return fem::make_pattern(elements, n_nodes);
}

struct Mesh {
  View<const double, 2> nodes;
  View<const std::int32_t, 2> triangles;
};

Mesh view_mesh(const fem::Pattern& pattern, const py::array& nodes, const py::array& triangles) {
  const Mesh mesh{view<const double>(nodes, "nodes", std::array{pattern.n_nodes, index{2}}),
                  view<const std::int32_t>(triangles, "triangles",
                                           std::array{pattern.n_triangles, index{pattern.nodes_per_triangle}})};
  require_range(mesh.triangles, pattern.n_nodes, "triangles");
  return mesh;
}

py::array assemble_stiffness(const fem::Pattern& pattern, const py::array& nodes, const py::array& triangles,
                             const py::array& stiffness, const std::optional<py::array>& out) {
  const Mesh mesh = view_mesh(pattern, nodes, triangles);
  const auto elasticity = view<const double>(stiffness, "stiffness", std::array<index, 2>{3, 3});
  py::array values = out ? *out : py::array(new_array<double>(pattern.n_blocks(), 2, 2));
  const auto values_view = view<double>(values, "out", std::array<index, 3>{pattern.n_blocks(), 2, 2});
  index bad;
  {
    py::gil_scoped_release nogil;
    bad = fem::assemble_stiffness(pattern, mesh.nodes, mesh.triangles, elasticity, values_view);
  }
  if (bad != fem::no_triangle) {
    throw py::value_error("triangle " + std::to_string(bad) +
                          " has no positive area; its vertices must run counter-clockwise");
  }
  return values;
}

py::array stress_loads(const fem::Pattern& pattern, const py::array& nodes, const py::array& triangles,
                       const py::array& cells, const py::array& stress) {
  const Mesh mesh = view_mesh(pattern, nodes, triangles);
  const auto cell_view = view<const std::int32_t>(cells, "cells", std::array{pattern.n_triangles});
  const auto stress_view = view<const double>(stress, "stress", std::array<index, 3>{any, 3, any});
  require_range(cell_view, stress_view.shape[0], "cells");
  auto loads = new_array<double>(pattern.n_nodes, 2, stress_view.shape[2]);
  const auto loads_view = view<double>(loads, "loads", std::array<index, 3>{any, 2, any});
  {
    py::gil_scoped_release nogil;
    fem::stress_loads(pattern, mesh.nodes, mesh.triangles, cell_view, stress_view, loads_view);
  }
  return loads;
}

py::array cell_distortions(const py::array& nodes, const py::array& triangles, const py::array& cells, index n_cells,
                           const py::array& displacement) {
  const auto points = view<const double>(nodes, "nodes", std::array<index, 2>{any, 2});
  const auto elements = view<const std::int32_t>(triangles, "triangles", std::array{any, any});
  if (elements.shape[1] != 3 && elements.shape[1] != 6) {
    throw py::value_error("triangles must have shape (any, 6) or (any, 3), got " + shape_text(triangles));
  }
  const auto cell_view = view<const std::int32_t>(cells, "cells", std::array{elements.shape[0]});
  const auto u = view<const double>(displacement, "displacement", std::array<index, 3>{points.shape[0], 2, any});
  if (n_cells < 0) throw py::value_error("n_cells must not be negative, got " + std::to_string(n_cells));
  require_range(elements, points.shape[0], "triangles");
  require_range(cell_view, n_cells, "cells");
  auto distortion = new_array<double>(n_cells, 4, u.shape[2]);
  const auto distortion_view = view<double>(distortion, "distortion", std::array<index, 3>{any, 4, any});
  {
    py::gil_scoped_release nogil;
    fem::cell_distortions(points, elements, cell_view, u, distortion_view);
  }
  return distortion;
}

// Column numbers are checked on every call: reading them costs little beside the blocks, and a wild one would crash.
fem::BlockMatrix view_matrix(const py::array& indptr, const py::array& indices, const py::array& values, index n) {
  const fem::BlockMatrix matrix{view<const std::int32_t>(indptr, "indptr", std::array{n + 1}),
                                view<const std::int32_t>(indices, "indices", std::array{any}),
                                view<const double>(values, "values", std::array<index, 3>{any, 2, 2})};
  if (matrix.values.shape[0] != matrix.indices.shape[0]) {
    throw py::value_error("values and indices must have the same length, got " +
                          std::to_string(matrix.values.shape[0]) + " and " + std::to_string(matrix.indices.shape[0]));
  }
  bool ascending = matrix.indptr.data[0] == 0;
  for (index row = 0; row < n; ++row) ascending &= matrix.indptr.data[row] <= matrix.indptr.data[row + 1];
  if (!ascending || matrix.indptr.data[n] != matrix.indices.shape[0]) {
    throw py::value_error("indptr must ascend from 0 to the number of blocks");
  }
  require_range(matrix.indices, n, "indices");
  return matrix;
}

// `out` if it was given (never x, which is read while it is written), or a new array. Fresh pages of a large array cost
// more than the product itself, so solvers hand in theirs.
py::array output(const std::optional<py::array>& out, View<const double, 3> x) {
  if (!out) return new_array<double>(x.shape[0], x.shape[1], x.shape[2]);
  if (out->data() == x.data) throw py::value_error("out and x must be different arrays");
  return *out;
}

py::array block_multiply(const py::array& indptr, const py::array& indices, const py::array& values, const py::array& x,
                         const std::optional<py::array>& out) {
  const auto in = view<const double>(x, "x", std::array<index, 3>{any, 2, any});
  const auto matrix = view_matrix(indptr, indices, values, in.shape[0]);
  py::array y = output(out, in);
  const auto y_view = view<double>(y, "out", in.shape);
  {
    py::gil_scoped_release nogil;
    fem::multiply(matrix, in, y_view);
  }
  return y;
}

py::array residual(const py::array& indptr, const py::array& indices, const py::array& values,
                   const py::array& right_hand_side, const py::array& x, const std::optional<py::array>& out) {
  const auto in = view<const double>(x, "x", std::array<index, 3>{any, 2, any});
  const auto matrix = view_matrix(indptr, indices, values, in.shape[0]);
  const auto b = view<const double>(right_hand_side, "right_hand_side", in.shape);
  py::array r = output(out, in);
  const auto r_view = view<double>(r, "out", in.shape);
  {
    py::gil_scoped_release nogil;
    fem::residual(matrix, b, in, r_view);
  }
  return r;
}

py::array smooth(const py::array& indptr, const py::array& indices, const py::array& values,
                 const py::array& inverse_diagonal, const py::array& right_hand_side, const py::array& x,
                 const py::array& direction, double alpha, double beta, const std::optional<py::array>& out) {
  const auto in = view<const double>(x, "x", std::array<index, 3>{any, 2, any});
  const auto matrix = view_matrix(indptr, indices, values, in.shape[0]);
  const auto inverse =
      view<const double>(inverse_diagonal, "inverse_diagonal", std::array<index, 3>{in.shape[0], 2, 2});
  const auto b = view<const double>(right_hand_side, "right_hand_side", in.shape);
  const auto step = view<double>(direction, "direction", in.shape);
  py::array x_new = output(out, in);
  const auto x_new_view = view<double>(x_new, "out", in.shape);
  if (step.data == in.data) throw py::value_error("direction and x must be different arrays");
  {
    py::gil_scoped_release nogil;
    fem::smooth(matrix, inverse, b, in, step, alpha, beta, x_new_view);
  }
  return x_new;
}

}  // namespace

void bind_fem(py::module_& m) {
  using py::arg;
  py::class_<fem::Pattern>(m, "Pattern")
      .def(py::init(&make_pattern), arg("triangles").noconvert(), arg("n_nodes"))
      .def_readonly("n_nodes", &fem::Pattern::n_nodes)
      .def_readonly("n_triangles", &fem::Pattern::n_triangles)
      .def_readonly("nodes_per_triangle", &fem::Pattern::nodes_per_triangle)
      .def_property_readonly("n_blocks", &fem::Pattern::n_blocks)
      .def_property_readonly("indptr",
                             [](const py::object& self) {
                               const auto& pattern = self.cast<const fem::Pattern&>();
                               return borrow(pattern.indptr.data(), {pattern.n_nodes + 1}, self);
                             })
      .def_property_readonly("indices", [](const py::object& self) {
        const auto& pattern = self.cast<const fem::Pattern&>();
        return borrow(pattern.indices.data(), {pattern.n_blocks()}, self);
      });
  m.def("assemble_stiffness", &assemble_stiffness, arg("pattern"), arg("nodes").noconvert(),
        arg("triangles").noconvert(), arg("stiffness").noconvert(), arg("out").noconvert() = py::none());
  m.def("stress_loads", &stress_loads, arg("pattern"), arg("nodes").noconvert(), arg("triangles").noconvert(),
        arg("cells").noconvert(), arg("stress").noconvert());
  m.def("cell_distortions", &cell_distortions, arg("nodes").noconvert(), arg("triangles").noconvert(),
        arg("cells").noconvert(), arg("n_cells"), arg("displacement").noconvert());
  m.def("block_multiply", &block_multiply, arg("indptr").noconvert(), arg("indices").noconvert(),
        arg("values").noconvert(), arg("x").noconvert(), arg("out").noconvert() = py::none());
  m.def("residual", &residual, arg("indptr").noconvert(), arg("indices").noconvert(), arg("values").noconvert(),
        arg("right_hand_side").noconvert(), arg("x").noconvert(), arg("out").noconvert() = py::none());
  m.def("smooth", &smooth, arg("indptr").noconvert(), arg("indices").noconvert(), arg("values").noconvert(),
        arg("inverse_diagonal").noconvert(), arg("right_hand_side").noconvert(), arg("x").noconvert(),
        arg("direction").noconvert(), arg("alpha"), arg("beta"), arg("out").noconvert() = py::none());
}

}  // namespace chemomech
