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
  const auto given = view<const std::int32_t>(triangles, "triangles", std::array{any, any});
  const index nodes_per_triangle = given.shape[1];
  if (nodes_per_triangle != 3 && nodes_per_triangle != 6) {
    throw py::value_error("triangles must have shape (any, 6) or (any, 3), got " + shape_text(triangles));
  }
  if (n_nodes < 0) throw py::value_error("n_nodes must not be negative, got " + std::to_string(n_nodes));
  auto copy = copy_of(given);
  require_range(View<const std::int32_t, 2>{copy.data(), given.shape}, n_nodes, "triangles");
  py::gil_scoped_release nogil;
  return fem::make_pattern(std::move(copy), static_cast<int>(nodes_per_triangle), n_nodes);
}

View<const double, 2> view_nodes(const fem::Pattern& pattern, const py::array& nodes) {
  return view<const double>(nodes, "nodes", std::array{pattern.n_nodes, index{2}});
}

py::array assemble_stiffness(const fem::Pattern& pattern, const py::array& nodes, const py::array& stiffness,
                             const std::optional<py::array>& out) {
  const auto points = view_nodes(pattern, nodes);
  const auto elasticity = view<const double>(stiffness, "stiffness", std::array<index, 2>{3, 3});
  py::array values = out ? *out : py::array(new_array<double>(pattern.n_blocks(), 2, 2));
  const auto values_view = view<double>(values, "out", std::array<index, 3>{pattern.n_blocks(), 2, 2});
  require_apart(values_view, "out", points, "nodes");
  index bad;
  {
    py::gil_scoped_release nogil;
    bad = fem::assemble_stiffness(pattern, points, elasticity, values_view);
  }
  if (bad != fem::no_triangle) {
    throw py::value_error("triangle " + std::to_string(bad) +
                          " has no positive area; its vertices must run counter-clockwise");
  }
  return values;
}

py::array stress_loads(const fem::Pattern& pattern, const py::array& nodes, const py::array& cells,
                       const py::array& stress) {
  const auto points = view_nodes(pattern, nodes);
  const auto cell_view = view<const std::int32_t>(cells, "cells", std::array{pattern.n_triangles});
  const auto stress_view = view<const double>(stress, "stress", std::array<index, 3>{any, 3, any});
  require_range(cell_view, stress_view.shape[0], "cells");
  auto loads = new_array<double>(pattern.n_nodes, 2, stress_view.shape[2]);
  const auto loads_view = view<double>(loads, "loads", std::array<index, 3>{any, 2, any});
  {
    py::gil_scoped_release nogil;
    fem::stress_loads(pattern, points, cell_view, stress_view, loads_view);
  }
  return loads;
}

py::array cell_distortions(const fem::Pattern& pattern, const py::array& nodes, const py::array& cells, index n_cells,
                           const py::array& displacement) {
  const auto points = view_nodes(pattern, nodes);
  const auto cell_view = view<const std::int32_t>(cells, "cells", std::array{pattern.n_triangles});
  const auto u = view<const double>(displacement, "displacement", std::array<index, 3>{pattern.n_nodes, 2, any});
  if (n_cells < 0) throw py::value_error("n_cells must not be negative, got " + std::to_string(n_cells));
  require_range(cell_view, n_cells, "cells");
  auto distortion = new_array<double>(n_cells, 4, u.shape[2]);
  const auto distortion_view = view<double>(distortion, "distortion", std::array<index, 3>{any, 4, any});
  {
    py::gil_scoped_release nogil;
    fem::cell_distortions(pattern, points, cell_view, u, distortion_view);
  }
  return distortion;
}

// A matrix with the values of a Python array and a graph of its own, checked once: a column number that somebody
// changed later would crash.
template <class Real>
struct HeldMatrix {
  HeldMatrix(const py::array& indptr_in, const py::array& indices_in, py::array values_in, index n_columns_in)
      : HeldMatrix(view<const std::int32_t>(indptr_in, "indptr", std::array{any}),
                   view<const std::int32_t>(indices_in, "indices", std::array{any}), std::move(values_in),
                   n_columns_in) {}

  HeldMatrix(View<const std::int32_t, 1> starts, View<const std::int32_t, 1> columns, py::array values_in,
             index n_columns_in)
      : indptr(copy_of(starts)),
        indices(copy_of(columns)),
        values(std::move(values_in)),
        n_columns(n_columns_in),
        matrix{{indptr.data(), starts.shape},
               {indices.data(), columns.shape},
               view<const Real>(values, "values", std::array<index, 3>{columns.shape[0], any, any})} {
    const auto& shapes = fem::BlockMatrix<Real>::block_shapes;
    if (std::find(shapes.begin(), shapes.end(), std::array{rows_of_block(), columns_of_block()}) == shapes.end()) {
      throw py::value_error("blocks must be 1 x 1, 2 x 2, 2 x 3, 3 x 2 or 3 x 3, got values of shape " +
                            shape_text(values));
    }
    const std::int32_t *first = indptr.data(), *last = first + indptr.size();
    if (first == last || *first != 0 || !std::is_sorted(first, last) || last[-1] != matrix.indices.shape[0]) {
      throw py::value_error("indptr must ascend from 0 to the number of blocks");
    }
    require_range(matrix.indices, n_columns, "indices");
  }

  index n_rows() const { return matrix.indptr.shape[0] - 1; }
  index rows_of_block() const { return matrix.values.shape[1]; }
  index columns_of_block() const { return matrix.values.shape[2]; }

  View<const Real, 3> view_in(const py::array& x, const char* name) const {
    return view<const Real>(x, name, std::array{n_columns, columns_of_block(), any});
  }

  // `out` if it was given, or a new array, for the product with x. Fresh pages of a large array cost more than the
  // product itself, so solvers hand in theirs.
  py::array output(const std::optional<py::array>& out, View<const Real, 3> x) const {
    return out ? *out : py::array(new_array<Real>(n_rows(), rows_of_block(), x.shape[2]));
  }

  View<Real, 3> view_out(const py::array& out, View<const Real, 3> x) const {
    const auto written = view<Real>(out, "out", std::array{n_rows(), rows_of_block(), x.shape[2]});
    require_apart(written, "out", x, "x");
    require_apart(written, "out", matrix.values, "the matrix");
    return written;
  }

  Buffer<std::int32_t> indptr, indices;
  py::array values;
  index n_columns;
  fem::BlockMatrix<Real> matrix;
};

template <class Real>
py::array multiply(const HeldMatrix<Real>& held, const py::array& x, const std::optional<py::array>& out) {
  const auto in = held.view_in(x, "x");
  py::array y = held.output(out, in);
  const auto y_view = held.view_out(y, in);
  {
    py::gil_scoped_release nogil;
    fem::multiply(held.matrix, in, y_view);
  }
  return y;
}

template <class Real>
py::array add_product(const HeldMatrix<Real>& held, const py::array& b, Real sign, const py::array& x,
                      const std::optional<py::array>& out) {
  const auto in = held.view_in(x, "x");
  py::array y = held.output(out, in);
  const auto y_view = held.view_out(y, in);
  const auto b_view = view<const Real>(b, "b", y_view.shape);
  if (y_view.data != b_view.data) require_apart(y_view, "out", b_view, "another part of b");
  {
    py::gil_scoped_release nogil;
    fem::add_product(held.matrix, b_view, sign, in, y_view);
  }
  return y;
}

template <class Real>
void smooth(const HeldMatrix<Real>& held, const py::array& inverse_diagonal, const py::array& b,
            const std::optional<py::array>& x, const py::array& direction, Real alpha, Real beta,
            const py::array& out) {
  const index size = held.rows_of_block();
  if (size != held.columns_of_block() || held.n_rows() != held.n_columns) {
    throw py::value_error("a smoother needs a square matrix");
  }
  const auto inverse = view<const Real>(inverse_diagonal, "inverse_diagonal", std::array{held.n_rows(), size, size});
  const auto b_view = held.view_in(b, "b");
  const auto in = x ? view<const Real>(*x, "x", b_view.shape) : View<const Real, 3>{};
  const auto step = view<Real>(direction, "direction", b_view.shape);
  const auto x_new = view<Real>(out, "out", b_view.shape);
  require_apart(x_new, "out", step, "direction");
  for (const auto& [written, name] : {std::pair{step, "direction"}, std::pair{x_new, "out"}}) {
    require_apart(written, name, b_view, "b");
    require_apart(written, name, in, "x");
    require_apart(written, name, inverse, "inverse_diagonal");
    require_apart(written, name, held.matrix.values, "the matrix");
  }
  py::gil_scoped_release nogil;
  if (x) {
    fem::smooth(held.matrix, inverse, b_view, in, step, alpha, beta, x_new);
  } else {
    fem::smooth_from_zero(inverse, b_view, step, beta, x_new);
  }
}

template <class Real>
void bind_block_matrix(py::module_& m, const char* name) {
  using py::arg;
  using Held = HeldMatrix<Real>;
  py::class_<Held>(m, name)
      .def(py::init<const py::array&, const py::array&, py::array, index>(), arg("indptr").noconvert(),
           arg("indices").noconvert(), arg("values").noconvert(), arg("n_columns"))
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
  if (static_cast<const void*>(x_view.data) != y_view.data || std::is_same_v<Real, float>) {
    require_apart(y_view, "y", x_view, "another part of x");
  }
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
        arg("stiffness").noconvert(), arg("out").noconvert() = py::none());
  m.def("stress_loads", &stress_loads, arg("pattern"), arg("nodes").noconvert(), arg("cells").noconvert(),
        arg("stress").noconvert());
  m.def("cell_distortions", &cell_distortions, arg("pattern"), arg("nodes").noconvert(), arg("cells").noconvert(),
        arg("n_cells"), arg("displacement").noconvert());
  bind_block_matrix<double>(m, "BlockMatrix");
  bind_block_matrix<float>(m, "BlockMatrix32");
  m.def("combine", &combine, arg("a").noconvert(), arg("x").noconvert(), arg("b").noconvert(), arg("y").noconvert());
  m.def("dot", &dot, arg("x").noconvert(), arg("y").noconvert());
}

}  // namespace chemomech
