#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

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

// A matrix over arrays of Python's, checked once. Its graph is made read-only: a column number that went wild later
// would crash.
template <class Real>
struct BlockMatrix {
  BlockMatrix(py::array indptr_in, py::array indices_in, py::array values_in, index n_columns_in)
      : indptr(std::move(indptr_in)),
        indices(std::move(indices_in)),
        values(std::move(values_in)),
        n_columns(n_columns_in),
        matrix{view<const std::int32_t>(indptr, "indptr", std::array{any}),
               view<const std::int32_t>(indices, "indices", std::array{any}),
               view<const Real>(values, "values", std::array<index, 3>{indices.shape(0), any, any})} {
    const auto& shapes = fem::BlockMatrix<Real>::block_shapes;
    if (std::find(shapes.begin(), shapes.end(), std::array{rows_of_block(), columns_of_block()}) == shapes.end()) {
      throw py::value_error("blocks must be 1 x 1, 2 x 2, 2 x 3, 3 x 2 or 3 x 3, got values of shape " +
                            shape_text(values));
    }
    const auto& starts = matrix.indptr;
    if (starts.shape[0] == 0 || starts.data[0] != 0 || !std::is_sorted(starts.data, starts.data + starts.shape[0]) ||
        starts.data[starts.shape[0] - 1] != matrix.indices.shape[0]) {
      throw py::value_error("indptr must ascend from 0 to the number of blocks");
    }
    require_range(matrix.indices, n_columns, "indices");
    for (const py::array& graph : {indptr, indices}) graph.attr("setflags")(py::arg("write") = false);
  }

  index n_rows() const { return matrix.indptr.shape[0] - 1; }
  index rows_of_block() const { return matrix.values.shape[1]; }
  index columns_of_block() const { return matrix.values.shape[2]; }

  View<const Real, 3> view_in(const py::array& x, const char* name) const {
    return view<const Real>(x, name, std::array{n_columns, columns_of_block(), any});
  }

  py::array indptr, indices, values;
  index n_columns;
  fem::BlockMatrix<Real> matrix;
};

// `out` if it was given (never x, which is read while it is written), or a new array. Fresh pages of a large array cost
// more than the product itself, so solvers hand in theirs.
template <class Real>
py::array output(const std::optional<py::array>& out, const BlockMatrix<Real>& held, View<const Real, 3> x) {
  if (!out) return new_array<Real>(held.n_rows(), held.rows_of_block(), x.shape[2]);
  if (out->data() == x.data) throw py::value_error("out and x must be different arrays");
  return *out;
}

template <class Real>
py::array multiply(const BlockMatrix<Real>& held, const py::array& x, const std::optional<py::array>& out) {
  const auto in = held.view_in(x, "x");
  py::array y = output(out, held, in);
  const auto y_view = view<Real>(y, "out", std::array{held.n_rows(), held.rows_of_block(), in.shape[2]});
  {
    py::gil_scoped_release nogil;
    fem::multiply(held.matrix, in, y_view);
  }
  return y;
}

template <class Real>
py::array add_product(const BlockMatrix<Real>& held, const py::array& b, Real sign, const py::array& x,
                      const std::optional<py::array>& out) {
  const auto in = held.view_in(x, "x");
  const std::array shape{held.n_rows(), held.rows_of_block(), in.shape[2]};
  const auto b_view = view<const Real>(b, "b", shape);
  py::array y = output(out, held, in);
  const auto y_view = view<Real>(y, "out", shape);
  {
    py::gil_scoped_release nogil;
    fem::add_product(held.matrix, b_view, sign, in, y_view);
  }
  return y;
}

template <class Real>
void smooth(const BlockMatrix<Real>& held, const py::array& inverse_diagonal, const py::array& b,
            const std::optional<py::array>& x, const py::array& direction, Real alpha, Real beta,
            const py::array& out) {
  const index size = held.rows_of_block();
  if (size != held.columns_of_block() || held.n_rows() != held.n_columns) {
    throw py::value_error("a smoother needs a square matrix");
  }
  const auto inverse = view<const Real>(inverse_diagonal, "inverse_diagonal", std::array{held.n_rows(), size, size});
  const auto b_view = held.view_in(b, "b");
  const auto step = view<Real>(direction, "direction", b_view.shape);
  const auto x_new = view<Real>(out, "out", b_view.shape);
  if (step.data == x_new.data) throw py::value_error("direction and out must be different arrays");
  if (!x) {
    py::gil_scoped_release nogil;
    fem::smooth_from_zero(inverse, b_view, step, beta, x_new);
    return;
  }
  const auto in = view<const Real>(*x, "x", b_view.shape);
  if (in.data == step.data || in.data == x_new.data) {
    throw py::value_error("x, direction and out must be different arrays");
  }
  py::gil_scoped_release nogil;
  fem::smooth(held.matrix, inverse, b_view, in, step, alpha, beta, x_new);
}

template <class Real>
void bind_block_matrix(py::module_& m, const char* name) {
  using py::arg;
  using Held = BlockMatrix<Real>;
  py::class_<Held>(m, name)
      .def(py::init<py::array, py::array, py::array, index>(), arg("indptr").noconvert(), arg("indices").noconvert(),
           arg("values").noconvert(), arg("n_columns"))
      .def("multiply", &multiply<Real>, arg("x").noconvert(), arg("out").noconvert() = py::none())
      .def("add_product", &add_product<Real>, arg("b").noconvert(), arg("sign"), arg("x").noconvert(),
           arg("out").noconvert() = py::none())
      .def("smooth", &smooth<Real>, arg("inverse_diagonal").noconvert(), arg("b").noconvert(), arg("x").noconvert(),
           arg("direction").noconvert(), arg("alpha"), arg("beta"), arg("out").noconvert());
}

bool is_single(const py::array& array) {
  return py::isinstance<py::array_t<float>>(array);
}

template <class Real>
void combine_as(const py::array& a, const py::array& x, const py::array& b, const py::array& y) {
  const auto y_view = view<double>(y, "y", std::array<index, 2>{any, any});
  const auto x_view = view<const Real>(x, "x", y_view.shape);
  const auto a_view = view<const double>(a, "a", std::array{y_view.shape[1]});
  const auto b_view = view<const double>(b, "b", std::array{y_view.shape[1]});
  py::gil_scoped_release nogil;
  fem::combine(a_view, x_view, b_view, y_view);
}

void combine(const py::array& a, const py::array& x, const py::array& b, const py::array& y) {
  is_single(x) ? combine_as<float>(a, x, b, y) : combine_as<double>(a, x, b, y);
}

template <class Real>
py::array dot_as(const py::array& x, const py::array& y) {
  const auto x_view = view<const double>(x, "x", std::array<index, 2>{any, any});
  const auto y_view = view<const Real>(y, "y", x_view.shape);
  auto sums = new_array<double>(x_view.shape[1]);
  const auto sums_view = view<double>(sums, "sums", std::array{x_view.shape[1]});
  {
    py::gil_scoped_release nogil;
    fem::dot(x_view, y_view, sums_view);
  }
  return sums;
}

py::array dot(const py::array& x, const py::array& y) {
  return is_single(y) ? dot_as<float>(x, y) : dot_as<double>(x, y);
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
  bind_block_matrix<double>(m, "BlockMatrix");
  bind_block_matrix<float>(m, "BlockMatrix32");
  m.def("combine", &combine, arg("a").noconvert(), arg("x").noconvert(), arg("b").noconvert(), arg("y").noconvert());
  m.def("dot", &dot, arg("x").noconvert(), arg("y").noconvert());
}

}  // namespace chemomech
