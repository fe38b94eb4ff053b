# Two commands do everything on a machine with Python 3.10 to 3.12 and make: `make serve` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

# make serve STUDIES=/data/hips PROFILE=paper serves your own images with the papers' full-size systems.
SYSTEM  ?= hip_tissue_ct
SAMPLES  = sample_data/$(SYSTEM)
STUDIES ?= $(SAMPLES)/images
MODELS  ?= $(SYSTEM)
PROFILE ?= demo
HOST    ?= 127.0.0.1
PORT    ?= 8000
# A folder that `make wheels` made, to install from where there is no internet access.
WHEELS  ?=
# Tests side by side.
JOBS    ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup serve demo ohif test test-long lint check bench wheels lock clean

help:   ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/' | expand -t 10

setup: $(STAMP)  ## build .venv with the locked versions

$(STAMP): requirements.lock pyproject.toml docker/install.sh
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13) and "Python 3.10 to 3.12 is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(if $(WHEELS),PIP_NO_INDEX=1 PIP_FIND_LINKS="$(WHEELS)") docker/install.sh $(BIN)/python --editable
	touch $@

$(SAMPLES)/.complete: $(STAMP)
	$(BIN)/python -m msklabel_phantoms $(SYSTEM) --count 12 --seed 0 --out $(SAMPLES)
	touch $@

serve: $(STAMP) $(if $(filter $(SAMPLES)/images,$(STUDIES)),$(SAMPLES)/.complete)  ## start the server on sample data (STUDIES=DIR for your own)
	$(BIN)/msklabel serve --studies "$(STUDIES)" --models $(MODELS) --host $(HOST) --port $(PORT) --conf profile $(PROFILE)

demo: $(STAMP)  ## go round the annotation loop on phantoms and draw what came of it (SYSTEM=name)
	$(BIN)/msklabel demo $(SYSTEM)

test: $(STAMP)  ## run all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-long: $(STAMP)  ## run the tests that take minutes each: the largest networks at the papers' full size
	$(BIN)/python -m pytest -m long

ohif: $(STAMP)  ## fetch the viewer OHIF by npm; without it MONAI Label's older one is served
	$(BIN)/python -m msklabel.serve.ohif.fetch

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## what CI runs

bench: $(STAMP)  ## latency of the server while it works
	$(BIN)/python tests/bench/bench_latency.py

wheels: $(STAMP)  ## fetch all packages into wheels/, for a machine without internet access
	$(BIN)/python -m pip wheel --quiet --wheel-dir wheels --constraint requirements.lock "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip wheel --quiet --wheel-dir wheels --no-deps --requirement requirements.lock
	$(BIN)/python -m pip wheel --quiet --wheel-dir wheels $(shell sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml) editables

lock: $(STAMP)  ## resolve the versions in requirements.lock anew
	$(BIN)/uv pip compile --universal --python-version 3.10 --extra dev --no-annotate --quiet --upgrade \
		--custom-compile-command "make lock" -o requirements.lock pyproject.toml

clean:  ## remove what was generated, but not .venv
	rm -rf demo sample_data/*/images sample_data/*/truth sample_data/*/facts.csv sample_data/*/.complete .pytest_cache .mypy_cache .ruff_cache
