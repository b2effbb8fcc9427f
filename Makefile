# make demo | test | test-slow | mpi | bench | lint | sanitize | clean. Needs python3 (with venv), a C++ compiler and PyPI.
# Everything is kept in .venv; stamp files there say what is installed, so that a second run starts at once.
PYTHON ?= python3
CXX ?= c++
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
# What the compiled core and the list of dependencies are made of; Python files are used in place.
SOURCES := pyproject.toml CMakeLists.txt $(shell find cpp -type f) $(wildcard README.md)

.PHONY: demo test test-slow mpi bench lint sanitize clean
.DELETE_ON_ERROR:

demo: $(STAMPS)/base
	$(BIN)/chemomech demo -o out/demo

test: $(STAMPS)/base $(STAMPS)/test $(STAMPS)/mpi-tried
	$(BIN)/python -m pytest

test-slow: $(STAMPS)/base $(STAMPS)/test $(STAMPS)/mpi-tried
	$(BIN)/python -m pytest -m "slow or not slow"

bench: $(STAMPS)/base $(STAMPS)/bench
	@for file in bench/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

lint: $(STAMPS)/base $(STAMPS)/lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find cpp -name '*.hpp' -o -name '*.cpp')

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "chemomech: no $(PYTHON); on Debian: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "chemomech: $(PYTHON) is older than Python 3.11; name another: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "chemomech: $(PYTHON) cannot make a venv; on Debian: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check
$(STAMPS)/base: $(SOURCES) | $(VENV)/bin/python
	@command -v $(CXX) >/dev/null || \
	  { echo "chemomech: no C++ compiler ($(CXX)); on Debian: sudo apt-get install g++" >&2; exit 1; }
	@$(BIN)/python -c 'import sysconfig, pathlib, sys; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || \
	  { echo "chemomech: no Python.h; on Debian: sudo apt-get install python3-dev" >&2; exit 1; }
	$(pip) --editable .
	@mkdir -p $(STAMPS) && touch $@

# An extra is installed by its list of requirements, which does not compile the core again.
$(STAMPS)/test $(STAMPS)/bench $(STAMPS)/lint: $(STAMPS)/%: pyproject.toml | $(VENV)/bin/python
	@mkdir -p $(STAMPS)
	@$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	  print(*extras["$*"], sep="\n")' >$(STAMPS)/$*.txt
	$(pip) --requirement $(STAMPS)/$*.txt
	@touch $@

# MPI and PETSc. A cluster's own are used where mpicc is on the PATH and PETSC_DIR is set; elsewhere MPICH comes as a wheel
# and PETSc is compiled, once for a machine: pip keeps what it built.
PETSC_BLAS = $$(echo 'int main(){}' | $(CXX) -x c++ - -lopenblas -o /dev/null 2>/dev/null \
  && echo --with-blaslapack-lib=-lopenblas || echo --download-f2cblaslapack)
mpi: $(STAMPS)/mpi
$(STAMPS)/mpi: pyproject.toml | $(VENV)/bin/python
	@mkdir -p $(STAMPS)
	@command -v mpicc >/dev/null || $(pip) mpich
	@test -n "$$PETSC_DIR" || echo "chemomech: installing PETSc; the first time on a machine takes ten minutes" >&2
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; options="--with-debugging=0 --with-fc=0 --with-cuda=0 --COPTFLAGS='-O3 -march=native' \
	  --CXXOPTFLAGS='-O3 -march=native' $(PETSC_BLAS)"; \
	  export PETSC_CONFIGURE_OPTIONS="$${PETSC_CONFIGURE_OPTIONS:-$$options}"; \
	  { test -n "$$PETSC_DIR" || $(pip) petsc; } && $(pip) mpi4py petsc4py
	@touch $@

# The tests go on without it: those that need it say so and are skipped. `make mpi` tries again.
$(STAMPS)/mpi-tried: pyproject.toml | $(VENV)/bin/python
	@$(MAKE) --no-print-directory mpi || echo "chemomech: no PETSc (see above): tests on many ranks are skipped" >&2
	@touch $@

# The core with AddressSanitizer and UndefinedBehaviorSanitizer, in a venv of its own. Python itself is not
# instrumented, so the runtime is preloaded, and its leaks (interned objects) are not ours to report.
SANITIZED := build/sanitize
sanitize: | $(VENV)/bin/python
	@test -x $(SANITIZED)/bin/python || $(PYTHON) -m venv $(SANITIZED)
	$(SANITIZED)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -C cmake.define.CHEMOMECH_SANITIZE=ON -C build-dir=build/sanitize-core ".[test]"
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=2 \
	  $(SANITIZED)/bin/python -m pytest tests/mechanics/test_fem_kernels.py tests/mechanics/test_mesh.py \
	  tests/mechanics/test_multigrid.py tests/mechanics/test_dislocations.py tests/mechanics/test_voxel.py \
	  tests/phasefield/test_reaction.py tests/phasefield/test_planar_coherency.py \
	  tests/phasefield/test_node_grid.py tests/phasefield/test_cahn_hilliard.py

clean:
	rm -rf $(VENV) build out dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
