# Everything runs in .venv, built from constraints.txt; `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench bench-peers clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: .venv/.installed  ## build .venv

demo: setup  ## train 3 architectures at several sizes, fit the laws, write out/demo/report.html
	$(BIN)/scisci sweep run configs/studies/demo.yaml --out out/demo
	$(BIN)/scisci scale study out/demo/results.parquet --y force_mae --json out/demo/fits.json
	$(BIN)/scisci report out/demo/results.parquet --fits out/demo/fits.json --out out/demo/report.html
	@echo "Open out/demo/report.html; the table behind it is out/demo/results.parquet, the fits out/demo/fits.json."

lint: setup  ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint and the whole test suite
	$(BIN)/pytest -n 2

# Peers disagree about e3nn, so each has an environment of its own.
.venv-%/.installed: benchmarks/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench-peers: .venv-peers/.installed .venv-peers-mace/.installed  ## environments of the packages to compare with

bench: setup  ## speed and memory, side by side with peers
	$(BIN)/python -m benchmarks

clean:  ## remove environments and what runs left behind
	rm -rf .venv .venv-peers* out runs
