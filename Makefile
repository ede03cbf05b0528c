# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOOR := .venv-floor
READY := $(VENV)/.ready
# Tensors are small: a second thread gains little, and where cores are shared the first waits for it, ten times as long.
ONE_THREAD := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # dozens of processes import the package: it is compiled once
.PHONY: help setup report test tests browser bench gpu calibrate defaults unknown experiment instability unlabelled systems sweep labels pictures docs lab app check floor clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv and install everything, once

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"expected Python 3.11 or newer, found {v[0]}.{v[1]}; run: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

report: $(READY) ## Run the notebooks and write reports/index.html
	$(ONE_THREAD) $(BIN)/rlm report --out reports

docs: report ## Build the documentation site in docs/_build/html, with the executed notebooks
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	cp -R reports/. docs/_build/html/notebooks

check: $(READY) ## Check style, types, imports, docstrings, sizes and the built package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(BIN)/python -m pytest --quiet tests/test_project.py
	rm -rf dist
	$(BIN)/python -m build --no-isolation >/dev/null
	$(BIN)/twine check --strict dist/*

test: $(READY) ## Run all checks and tests, side by side
	$(MAKE) --jobs 2 check tests

tests: $(READY) browser ## Run all tests
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder --ignore tests/test_project.py

floor: ## Run the tests with the lowest versions that pyproject.toml allows, in a separate environment
	$(PYTHON) -m venv $(FLOOR)
	$(FLOOR)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(FLOOR)/bin/uv pip install --quiet --python $(FLOOR)/bin/python --resolution lowest-direct --editable '.[dev]'
	$(ONE_THREAD) $(FLOOR)/bin/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder -k 'not browser' \
	--ignore tests/test_project.py

browser: ## Install Chromium for the tests in a browser, where that is possible
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium >/dev/null; } || \
	echo "No Chromium on the PATH, and it cannot be installed from here: the tests in a browser will be skipped."

bench: $(READY) ## Time training beside its peers, write docs/performance.md (an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	mkdir -p docs/benchmarks
	$(BIN)/python -m benchmarks.peers --out docs/benchmarks/peers.json
	$(BIN)/python -m benchmarks.whole_study --out docs/benchmarks/study.json
	$(BIN)/python -m benchmarks.growth --out docs/benchmarks/growth.json
	$(BIN)/python -m benchmarks.reading --out docs/benchmarks/reading.json
	$(BIN)/python -m benchmarks.search --out docs/benchmarks/search.json
	$(BIN)/python -m benchmarks.performance docs/benchmarks

gpu: $(READY) ## Time training on a GPU, write docs/gpu.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.gpu --page

calibrate: $(READY) ## Measure how often the verdict is wrong, write docs/calibration.md (an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.pools
	$(BIN)/python -m benchmarks.calibration
	$(BIN)/python -m benchmarks.calibration_page
	$(BIN)/python -m benchmarks.new_data

defaults: $(READY) ## Compare orders of triplets and optimizers seed by seed, write docs/defaults.md (an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.defaults

unknown: $(READY) ## Compare treatments of unknown words seed by seed, write docs/unknown_words.md (hours)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.unknown_words

experiment: $(READY) ## Run the experiment at full length in parts, write docs/experiment.md (many hours)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.experiment

instability: $(READY) ## Measure what made runs of the author's setting differ, write docs/instability.md (hours)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.instability

unlabelled: $(READY) ## Pre-train on unlabelled texts with few and many pairs, write docs/unlabelled.md (hours)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.unlabelled

systems: $(READY) ## Train every system with its controls, write docs/systems.md (hours)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.systems

sweep: $(READY) ## Simulate sweeps, write docs/sweep.md (minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.sweep

labels: $(READY) ## Memorise random labels with twenty seeds, write docs/random_labels.md (an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.random_labels --db labels.db

pictures: $(READY) browser report ## Draw and take the pictures of README and docs
	$(BIN)/python -m benchmarks.pictures

app: $(READY) ## Serve the explorer as an app, on localhost, behind a token
	$(BIN)/voila notebooks/05_explore.ipynb --Voila.ip=127.0.0.1 --Voila.auto_token=True

lab: $(READY) ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

clean: ## Remove .venv and reports
	rm -rf $(VENV) $(FLOOR) reports dist
