#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/arrays.hpp"
#include "voxel/elasticity.hpp"

namespace chemomech {
namespace {

using Spacing = std::array<double, 3>;
using Doubled = std::array<bool, 3>;

voxel::Stiffness orthorhombic(const std::array<double, 9>& c) {
  return {c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8]};
}

// A body whose arrays stay alive and cannot be written to from outside.
template <template <class> class Cells, class Real>
struct HeldBody {
  HeldBody(const std::array<double, 9>& constants, const Spacing& spacing, py::array given, const py::array& free)
      : made_of(std::move(given)) {
    std::array<index, 3> n;
    if constexpr (std::is_same_v<Cells<Real>, voxel::Voxels<Real>>) {
      body.cells.element = voxel::make_element<Real>(orthorhombic(constants), spacing);
      body.cells.weight = view<const float>(made_of, "weight", std::array<index, 3>{any, any, any});
      n = body.cells.weight.shape;
    } else {
      body.cells.stiffness = orthorhombic(constants);
      body.cells.spacing = spacing;
      body.cells.moment = view<const float>(made_of, "moment", std::array<index, 4>{27, any, any, any});
      const auto& shape = body.cells.moment.shape;
      n = {shape[1], shape[2], shape[3]};
    }
    nodes = {3, n[0] + 1, n[1] + 1, n[2] + 1};
    const auto moves = view<const std::uint8_t>(free, "free", nodes);
    auto diagonal = new_array<Real>(nodes[0], nodes[1], nodes[2], nodes[3]);
    {
      const auto inverse_view = view<Real>(diagonal, "inverse_diagonal", nodes);
      py::gil_scoped_release nogil;
      voxel::invert_diagonal(body.cells, moves, inverse_view);
    }
    body.held = std::find(moves.data, moves.data + moves.size(), 0) != moves.data + moves.size();
    diagonal.attr("setflags")(py::arg("write") = false);
    inverse = diagonal;
    body.inverse_diagonal = view<const Real>(inverse, "inverse_diagonal", nodes);
  }

  voxel::Body<Cells<Real>, Real> body;
  std::array<index, 4> nodes;
  py::array made_of, inverse;
};

template <template <class> class Cells, class Real>
void multiply(const HeldBody<Cells, Real>& held, const py::array& x, const py::array& out) {
  const auto in = view<const Real>(x, "x", held.nodes);
  const auto result = view<Real>(out, "out", held.nodes);
  require_apart(result, "out", in, "x");
  py::gil_scoped_release nogil;
  voxel::multiply(held.body, in, result);
}

template <template <class> class Cells, class Real>
void residual(const HeldBody<Cells, Real>& held, const py::array& b, const py::array& x, const py::array& out) {
  const auto load = view<const Real>(b, "b", held.nodes);
  const auto in = view<const Real>(x, "x", held.nodes);
  const auto result = view<Real>(out, "out", held.nodes);
  require_apart(result, "out", load, "b");
  require_apart(result, "out", in, "x");
  py::gil_scoped_release nogil;
  voxel::residual(held.body, load, in, result);
}

template <template <class> class Cells, class Real>
void smooth(const HeldBody<Cells, Real>& held, const py::array& b, const py::array& x, const py::array& direction,
            Real alpha, Real beta, const py::array& spare) {
  const auto load = view<const Real>(b, "b", held.nodes);
  const auto solution = view<Real>(x, "x", held.nodes);
  const auto step = view<Real>(direction, "direction", held.nodes);
  const auto scratch = view<Real>(spare, "spare", held.nodes);
  for (const auto& [written, name] :
       {std::pair{solution, "x"}, std::pair{step, "direction"}, std::pair{scratch, "spare"}}) {
    require_apart(written, name, load, "b");
  }
  require_apart(solution, "x", step, "direction");
  require_apart(scratch, "spare", step, "direction");
  require_apart(scratch, "spare", solution, "x");
  py::gil_scoped_release nogil;
  voxel::smooth(held.body, load, solution, step, alpha, beta, scratch);
}

template <template <class> class Cells, class Real>
void smooth_from_zero(const HeldBody<Cells, Real>& held, const py::array& b, const py::array& x,
                      const py::array& direction, Real beta) {
  const auto load = view<const Real>(b, "b", held.nodes);
  const auto solution = view<Real>(x, "x", held.nodes);
  const auto step = view<Real>(direction, "direction", held.nodes);
  require_apart(solution, "x", load, "b");
  require_apart(step, "direction", load, "b");
  require_apart(solution, "x", step, "direction");
  py::gil_scoped_release nogil;
  voxel::smooth_from_zero(held.body, load, solution, step, beta);
}

template <template <class> class Cells, class Real>
void bind_body(py::module_& m, const char* name, const char* made_of) {
  using py::arg;
  using Held = HeldBody<Cells, Real>;
  py::class_<Held>(m, name)
      .def(py::init<const std::array<double, 9>&, const Spacing&, py::array, const py::array&>(), arg("constants"),
           arg("spacing"), arg(made_of).noconvert(), arg("free").noconvert())
      .def_readonly("inverse_diagonal", &Held::inverse)
      .def("multiply", &multiply<Cells, Real>, arg("x").noconvert(), arg("out").noconvert())
      .def("residual", &residual<Cells, Real>, arg("b").noconvert(), arg("x").noconvert(), arg("out").noconvert())
      .def("smooth", &smooth<Cells, Real>, arg("b").noconvert(), arg("x").noconvert(), arg("direction").noconvert(),
           arg("alpha"), arg("beta"), arg("spare").noconvert())
      .def("smooth_from_zero", &smooth_from_zero<Cells, Real>, arg("b").noconvert(), arg("x").noconvert(),
           arg("direction").noconvert(), arg("beta"));
}

std::array<index, 4> nodes_around(const std::array<index, 4>& cells) {
  return {3, cells[1] + 1, cells[2] + 1, cells[3] + 1};
}

py::array stress_loads(const py::array& stress, const Spacing& spacing) {
  const auto in = view<const double>(stress, "stress", std::array<index, 4>{6, any, any, any});
  const auto nodes = nodes_around(in.shape);
  auto loads = new_array<double>(nodes[0], nodes[1], nodes[2], nodes[3]);
  const auto out = view<double>(loads, "loads", nodes);
  {
    py::gil_scoped_release nogil;
    voxel::stress_loads(in, spacing, out);
  }
  return loads;
}

py::array strain(const py::array& displacement, const Spacing& spacing) {
  const auto in = view<const double>(displacement, "displacement", std::array<index, 4>{3, any, any, any});
  for (int axis = 1; axis < 4; ++axis) {
    if (in.shape[axis] < 2) throw py::value_error("displacement must hold a cell, got " + shape_text(displacement));
  }
  auto strains = new_array<double>(6, in.shape[1] - 1, in.shape[2] - 1, in.shape[3] - 1);
  const auto out = view<double>(strains, "strain", std::array<index, 4>{any, any, any, any});
  {
    py::gil_scoped_release nogil;
    voxel::strain(in, spacing, out);
  }
  return strains;
}

// The extents of a grid with half as many cells, or one more, along the doubled axes.
std::array<index, 4> coarse_nodes(const std::array<index, 4>& fine, const Doubled& doubled) {
  std::array<index, 4> coarse = fine;
  for (int axis = 0; axis < 3; ++axis) {
    if (doubled[axis]) coarse[axis + 1] = fine[axis + 1] / 2 + 1;
  }
  return coarse;
}

void add_interpolation(const py::array& coarse, const Doubled& doubled, const py::array& fine) {
  const auto out = view<float>(fine, "fine", std::array<index, 4>{3, any, any, any});
  const auto in = view<const float>(coarse, "coarse", coarse_nodes(out.shape, doubled));
  require_apart(out, "fine", in, "coarse");
  py::gil_scoped_release nogil;
  voxel::add_interpolation(in, doubled, out);
}

void restrict_to(const py::array& fine, const Doubled& doubled, const py::array& coarse) {
  const auto in = view<const float>(fine, "fine", std::array<index, 4>{3, any, any, any});
  const auto out = view<float>(coarse, "coarse", coarse_nodes(in.shape, doubled));
  require_apart(out, "coarse", in, "fine");
  py::gil_scoped_release nogil;
  voxel::restrict_to(in, doubled, out);
}

// Of voxels (nx, ny, nz) or of moments (27, nx, ny, nz).
py::array coarsen(const py::array& fine, const Doubled& doubled) {
  const auto run = [&](const auto& in, std::array<index, 3> cells) {
    for (int axis = 0; axis < 3; ++axis) {
      if (doubled[axis]) cells[axis] = (cells[axis] + 1) / 2;
    }
    auto coarse = new_array<float>(27, cells[0], cells[1], cells[2]);
    const auto out = view<float>(coarse, "coarse", std::array<index, 4>{27, cells[0], cells[1], cells[2]});
    {
      py::gil_scoped_release nogil;
      voxel::coarsen(in, doubled, out);
    }
    return py::array(coarse);
  };
  if (fine.ndim() == 3) {
    const auto in = view<const float>(fine, "fine", std::array<index, 3>{any, any, any});
    return run(in, in.shape);
  }
  const auto in = view<const float>(fine, "fine", std::array<index, 4>{27, any, any, any});
  return run(in, {in.shape[1], in.shape[2], in.shape[3]});
}

}  // namespace

void bind_voxel(py::module_& m) {
  using py::arg;
  bind_body<voxel::Voxels, double>(m, "VoxelBody", "weight");
  bind_body<voxel::Voxels, float>(m, "VoxelBody32", "weight");
  bind_body<voxel::Porous, float>(m, "PorousBody32", "moment");
  m.def("voxel_stress_loads", &stress_loads, arg("stress").noconvert(), arg("spacing"));
  m.def("voxel_strain", &strain, arg("displacement").noconvert(), arg("spacing"));
  m.def("voxel_add_interpolation", &add_interpolation, arg("coarse").noconvert(), arg("doubled"),
        arg("fine").noconvert());
  m.def("voxel_restrict", &restrict_to, arg("fine").noconvert(), arg("doubled"), arg("coarse").noconvert());
  m.def("voxel_coarsen", &coarsen, arg("fine").noconvert(), arg("doubled"));
}

}  // namespace chemomech
