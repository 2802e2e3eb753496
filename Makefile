# Everything a person or CI runs. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help install demo table test test-isa lint type docs gallery test-slow oracle bench docker clean
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(READY)  ## a virtual environment in .venv with everything pinned

demo: $(READY)  ## the main job on the embedded default: EOT 5, 128 digits
	$(BIN)/adpur test -c ssni_digits

table: $(READY)  ## the README's table: EOT 10, all 360 test digits
	$(BIN)/adpur test -c table_digits

test: $(READY) lint type docs  ## lint, types, the site, tests: a process a core, a thread a process
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

PLAIN := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE
RUNS := a_run_prints_its_table or killed_run_continues or killed_fit_resumes
test-isa: $(READY)  ## the laws and three runs from end to end, on the plainest instruction set
	$(PLAIN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal \
		tests/laws tests/cli/test_cli.py tests/lit/test/test_evaluation.py tests/lit/fit/test_training.py -k 'laws or $(RUNS)'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY)
	$(BIN)/mypy

docs: $(READY)  ## the site in build/docs; whatever it cannot resolve is an error
	$(BIN)/python -m sphinx -b html -q -E -n -W --keep-going docs build/docs

gallery: $(READY)  ## the figures of docs/gallery.md anew: half an hour of two cores
	sed -nE 's|^adpur analyse ([^ ]+)|$(BIN)/adpur analyse \1 --out docs/gallery|p; s|^python (.*)runs/analyse|$(BIN)/python \1docs/gallery|p' docs/gallery.md | sh -ex

test-slow: $(READY)  ## the tests that take minutes: retraining, 20 kills
	$(BIN)/python -m pytest -m slow

oracle: $(READY)  ## our attacks beside pyautoattack's and foolbox's, on deterministic networks
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,oracle]'
	$(BIN)/python -m pytest -m oracle -s

bench: $(READY)  ## the speed claims as one table: interleaved rounds, medians with intervals
	$(BIN)/python benchmarks

docker:  ## a CPU image; BASE=... and PIP_INDEX=... as build arguments
	docker build -f docker/Dockerfile -t adpur .

clean:  ## caches and builds; never runs/
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
