# Everything runs in .venv, made on first use with Python 3.11 or later.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench faults lint docs check-extern wheel clean

.venv/demo: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

.venv/dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/demo

# Converts real panoramas; then draws a city, trains on it and looks for places never seen.
demo: .venv/demo
	$(BIN)/python -m pipelines.demo

# On all cores: each worker takes a run of neighbouring tests, and helps the others at the end.
test: .venv/dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m "not extern and not faults"

# Every row of docs/benchmarks.md, against its peers; also rewrites that page's tables.
bench: .venv/dev
	$(BIN)/python -m tests.benchmarks --docs

# Thousands of damaged files, and every situation; also rewrites docs/robustness.md.
faults: .venv/dev
	$(BIN)/python -m pytest -m faults
	$(BIN)/python -m tests.robustness

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: .venv/dev
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Needs h5ls, h5dump, Chromium, gdalinfo and QGIS (Debian: hdf5-tools, chromium, gdal-bin,
# python3-qgis, qgis-providers); what is not there is skipped.
check-extern: .venv/dev
	$(BIN)/python -m pytest -m extern

# The source archive, the wheel built from it, and that it works alone; both stay in dist/.
wheel:
	.ci/wheel

clean:
	rm -rf .venv .pytest_cache dist docs/_build demo-out
