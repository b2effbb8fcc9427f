// Allen-Cahn reaction of one particle at a prescribed mean rate or potential (Zhao 2023, eq. 1 and 2), and what its
// derivatives are made of. Time h, chemical potential kT, rates 1/h.
//
//   dc/dt = rate = w [exp(-alpha e) - exp((1 - alpha) e)],  e = mu + potential,  w = k j0(c)
//   mu = ln(c / (1 - c)) + sum_n mu_n L_n(2c - 1) + G c + E c + edge(t)
//   ln j0 = sum_n j_n L_n(2c - 1)
//
// G, symmetric, is -kappa laplacian / (c_s kT); compositions held beyond the edge add edge(t) to it. E is the elastic
// energy of coherency, of low rank: the cells of a pixel share its mean composition and its stress.
//
// With p = -d rate / d e > 0, s = d ln j0 / dc and K the symmetric operator dmu/dc, a change of c and of the parameters
// (d ln w, d mu at fixed c) gives
//   d rate = rate (s dc + d ln w) - p (K dc + d mu + d potential).
// Where the mean rate is prescribed, sum of d rate = d (prescribed total), and d potential only shifts the solution of
// an implicit step along one known vector; where the potential is, it does not change.
#pragma once

#include <memory>
#include <vector>

#include "base/views.hpp"
#include "kinetics/coupling.hpp"

namespace chemomech::kinetics {

struct Particle {
  std::shared_ptr<const Coupling> coupling;
  View<const double, 1> edge_time;  // (n_knots,), h; none where no composition is held
  View<const double, 2> edge;       // (n_knots, n_cells), kT, linear between knots, constant beyond

  index n_cells() const { return coupling->n_cells(); }
};

struct Laws {
  View<const double, 1> mu;      // coefficients of L_0, L_1, ...
  View<const double, 1> log_j0;  // the same, ln of 1/h
  View<const double, 1> log_k;   // (n_pixels,)
  double alpha = 0.5;
};

// What is prescribed, the mean rate or the potential: linear between knots, constant beyond them.
struct Control {
  View<const double, 1> time, value;
  bool galvanostatic = true;
};

// Between which knots a time lies: (1 - share) of `before` and share of `after`; the end knots beyond them.
struct Place {
  index before = 0, after = 0;
  double share = 0;
};
Place place_of(View<const double, 1> knots, double t);

// What of a state the implicit step needs, cell by cell.
struct Rates {
  std::vector<double> rate, p, s, curvature;  // curvature: the diagonal of K without those of G and E
  std::vector<double> coupled;                // G c + E c + edge(t)
  double potential = 0;

  explicit Rates(index n) : rate(n), p(n), s(n), curvature(n), coupled(n) {}
};

// False when a composition is not inside (0, 1) or the rates overflow.
bool evaluate(const Particle& particle, const Laws& laws, const Control& control, double t, const double* c,
              Rates& out);

// diag((1 - step rate s) / (step p) + curvature) of the symmetric matrix that, with G + E, makes the implicit step
// (1 - step d rate/dc) x = b at fixed potential: it times x is b / (step p).
std::vector<double> step_diagonal(const Rates& rates, double step);

// Legendre polynomials L_0..L_{count - 1} at 2c - 1.
void legendre(double c, index count, double* value);

}  // namespace chemomech::kinetics
