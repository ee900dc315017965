# Every target does its own set-up in $(VENV), and nothing when nothing changed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= examples/demo.yaml
# The load generator has no end, so the demo of it takes six hours of midsummer; files are taken whole.
RANGE ?= $(if $(filter examples/demo.yaml examples/crowd.yaml,$(CONFIG)),--from 2026-06-21T06:00Z --to 2026-06-21T12:00Z)
# The outside services of that example are stand-ins, which run as long as the demo does.
AMONG_SERVICES := $(if $(filter examples/crowd.yaml,$(CONFIG)),$(BIN)/python tests/sources/services.py)

# Four at a time, also on two processors, as tests wait for servers; each has its own, and a file's tests share theirs.
SIDE_BY_SIDE := -n 4 --dist loadfile --no-loadscope-reorder
# Tests make a hundred thousand writes durable: in memory, where there is room for them, none waits for the disk.
SHM_FREE := df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $$4 }'
IN_MEMORY := $(shell [ "$$($(SHM_FREE))" -gt 4000000 ] 2>/dev/null && \
	echo PYTEST_DEBUG_TEMPROOT=/dev/shm)
PURE := tests/domain tests/exporters/test_tables.py tests/test_layers.py tests/test_models.py tests/test_config.py

.PHONY: help demo dev services lint types definitions check test soak bench servers clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16
	@echo
	@echo '  make demo CONFIG=examples/knmi.yaml    the same on a real day of observations'
	@echo '  make demo CONFIG=examples/crowd.yaml   every crowd-sourced network at once, from stand-ins'
	@echo '  make test PYTHON=python3.13 VENV=.venv313    the suite on another Python'

demo: $(VENV)/.run  ## the main job: observations to datasets, ODB and GeoParquet under demo/, no server needed
	$(AMONG_SERVICES) $(BIN)/ionbeam --config $(CONFIG) run $(RANGE)

dev: $(VENV)/.run  ## dagster dev on the demo's data: the UI, with sensors and automation on
	$(BIN)/ionbeam --config $(CONFIG) dev

services: $(VENV)/.run  ## stand-ins for the outside services of examples/crowd.yaml, until Ctrl-C
	$(BIN)/python tests/sources/services.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

definitions: $(VENV)/.dev
	$(BIN)/dagster definitions validate -w workspace.yaml

check: $(VENV)/.dev  ## lint, types and the tests that need no server, in under a minute
	@$(MAKE) --no-print-directory -j2 lint types
	$(BIN)/pytest $(PURE)

test: $(VENV)/.dev  ## the whole suite, side by side, after lint and types
	@$(MAKE) --no-print-directory -j3 lint types definitions
	$(IN_MEMORY) $(BIN)/pytest $(SIDE_BY_SIDE) -o tmp_path_retention_policy=failed

soak: $(VENV)/.dev  ## the tests that are long and sensitive to load
	$(IN_MEMORY) $(BIN)/pytest -m soak --timeout 0 -o tmp_path_retention_policy=failed

bench: $(VENV)/.dev  ## the benchmarks: ours, the named alternative, the ratio, peak memory
	$(BIN)/python benchmarks/run.py

servers:  ## RabbitMQ, Redis, InfluxDB 2, S3 and Mosquitto for the tests; minutes at first, then nothing
	@deployments/servers/install

clean:  ## remove the demo's data and the environment
	rm -rf demo $(VENV)

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/pip pyproject.toml ionbeam_client/pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ./ionbeam_client -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e './ionbeam_client[pandas,polars,archfx,datastore,influx]' -e '.[dev]'
	touch $@
