#include "voxel/cells.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "base/buffer.hpp"
#include "base/threads.hpp"

namespace chemomech::voxel {
namespace {

// Planes that are worth a thread: some tenths of a millisecond.
inline index planes_per_thread(index cells_of_a_plane) {
  return std::max<index>(1, (index{1} << 13) / cells_of_a_plane);
}

// Voigt component of the stress or strain ij.
constexpr int voigt[3][3] = {{0, 5, 4}, {5, 1, 3}, {4, 3, 2}};

// stress = C strain in the cell at (i, j, k) of the box; false where there is no cell. Orthorhombic.
bool find_stress(const Cells& cells, index i, index j, index k, const double* strain, double (&stress)[6]) {
  bool exists = false;
  std::fill_n(stress, 6, 0.);
  for (index material = 0; material < cells.weights.shape[0]; ++material) {
    const double weight = *cells.weights.at(material, i, j, k);
    if (weight == 0) continue;
    exists = true;
    const double* const c = cells.stiffness.at(material);
    for (int p = 0; p < 3; ++p) {
      stress[p] += weight * (c[6 * p] * strain[0] + c[6 * p + 1] * strain[1] + c[6 * p + 2] * strain[2]);
      stress[p + 3] += weight * c[7 * (p + 3)] * strain[p + 3];
    }
  }
  return exists;
}

}  // namespace

double eigenstrain_loads(const Cells& cells, View<const double, 4> eigenstrain, View<double, 4> loads) {
  const auto& [nx, ny, nz, _] = eigenstrain.shape;
  const auto& h = cells.spacing;
  // The mean gradient of a corner's shape function is +-1 / (4 h).
  double area[3];
  for (std::size_t axis = 0; axis < 3; ++axis) area[axis] = h[0] * h[1] * h[2] / (4 * h[axis]);
  std::vector<double> work(static_cast<std::size_t>(loads.shape[1]), 0.);  // of a plane, so that threads do not matter
  for_ranges(loads.shape[1] - 2, planes_per_thread(ny * nz), [&, nx = nx, ny = ny, nz = nz](index begin, index end) {
    Buffer<double> sums(static_cast<std::size_t>(3 * (nz + 1)));
    for (index plane = begin + 1; plane < end + 1; ++plane) {
      for (index row = 1; row + 1 < loads.shape[2]; ++row) {
        std::fill_n(sums.data(), sums.size(), 0.);
        for (int corner = 0; corner < 4; ++corner) {  // where the row lies on the four rows of cells around it
          const bool high_x = corner & 2, high_y = corner & 1;
          const index i = plane - high_x - 1, j = row - high_y - 1;
          if (i < 0 || i >= nx || j < 0 || j >= ny) continue;
          const double x = high_x ? area[0] : -area[0], y = high_y ? area[1] : -area[1];
          for (index k = 0; k < nz; ++k) {
            double stress[6];
            if (!find_stress(cells, i + 1, j + 1, k + 1, eigenstrain.at(i, j, k), stress)) continue;
            if (corner == 0) {  // once for every cell
              for (index p = 0; p < 6; ++p)
                work[static_cast<std::size_t>(plane)] += stress[p] * *eigenstrain.at(i, j, k, p);
            }
            double* const sum = sums.data() + 3 * k;
            for (int a = 0; a < 3; ++a) {
              const double across = x * stress[voigt[a][0]] + y * stress[voigt[a][1]];
              const double along = area[2] * stress[voigt[a][2]];
              sum[a] += across - along;
              sum[a + 3] += across + along;
            }
          }
        }
        for (index a = 0; a < 3; ++a) {
          double* const out = loads.at(a, plane, row, 1);
          for (index k = 0; k <= nz; ++k) out[k] = sums[static_cast<std::size_t>(3 * k + a)];
        }
      }
    }
  });
  return h[0] * h[1] * h[2] * std::accumulate(work.begin(), work.end(), 0.);
}

double elastic_fields(const Cells& cells, View<const double, 4> eigenstrain, View<const double, 4> u,
                      View<double, 4> strain, View<double, 4> stress) {
  std::vector<double> energy(static_cast<std::size_t>(strain.shape[0]), 0.);
  for_ranges(strain.shape[0], planes_per_thread(strain.shape[1] * strain.shape[2]), [&](index begin, index end) {
    for (index i = begin; i < end; ++i) {
      for (index j = 0; j < strain.shape[1]; ++j) {
        for (index k = 0; k < strain.shape[2]; ++k) {
          double gradient[3][3] = {};
          for (int corner = 0; corner < 8; ++corner) {
            const int high[3] = {corner >> 2, corner >> 1 & 1, corner & 1};
            for (int a = 0; a < 3; ++a) {
              const double value = *u.at(a, i + 1 + high[0], j + 1 + high[1], k + 1 + high[2]);
              for (int axis = 0; axis < 3; ++axis) gradient[a][axis] += high[axis] ? value : -value;
            }
          }
          const double* const stress_free = eigenstrain.at(i, j, k);
          double elastic[6];
          for (int a = 0; a < 3; ++a) {
            for (std::size_t axis = 0; axis < 3; ++axis) gradient[a][axis] /= 4 * cells.spacing[axis];
          }
          for (int a = 0; a < 3; ++a) elastic[a] = gradient[a][a] - stress_free[a];
          elastic[3] = gradient[1][2] + gradient[2][1] - stress_free[3];
          elastic[4] = gradient[0][2] + gradient[2][0] - stress_free[4];
          elastic[5] = gradient[0][1] + gradient[1][0] - stress_free[5];
          double response[6];
          const bool exists = find_stress(cells, i + 1, j + 1, k + 1, elastic, response);
          for (index p = 0; p < 6; ++p) {
            if (exists) energy[static_cast<std::size_t>(i)] += elastic[p] * response[p] / 2;
            *strain.at(i, j, k, p) = exists ? elastic[p] : std::numeric_limits<double>::quiet_NaN();
            *stress.at(i, j, k, p) = exists ? response[p] : std::numeric_limits<double>::quiet_NaN();
          }
        }
      }
    }
  });
  const auto& h = cells.spacing;
  return h[0] * h[1] * h[2] * std::accumulate(energy.begin(), energy.end(), 0.);
}

}  // namespace chemomech::voxel
