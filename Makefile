# Everything runs in .venv, built from constraints.txt; `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test gpu-check lint bench bench-peers clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: .venv/.installed  ## build .venv

# Study and the error whose laws are fitted.
DEMOS := demo:force_mae demo-cosmology:velocities_fvu demo-series:series_wql

demo: setup  ## small studies of every kind of data: train, fit the laws, rank; writes out/*/report.html, out/site
	@set -e; rm -rf out/submissions out/scores; for demo in $(DEMOS); do \
		study=$${demo%:*}; out=out/$$study; \
		$(BIN)/scisci sweep run configs/studies/$$study.yaml --out $$out; \
		$(BIN)/scisci scale study $$out/results.parquet --y $${demo#*:} --json $$out/fits.json; \
		$(BIN)/scisci report $$out/results.parquet --fits $$out/fits.json --metric $${demo#*:} --out $$out/report.html; \
		echo "Open $$out/report.html; the table behind it is $$out/results.parquet, the fits $$out/fits.json."; \
		$(BIN)/scisci leaderboard pack $$out --out out/submissions; \
	done; \
	$(BIN)/scisci leaderboard score out/submissions/* --scores out/scores; \
	$(BIN)/scisci leaderboard build --scores out/scores --reference demo-transformer --out out/site; \
	echo "Open out/site/index.html: every model of the studies, ranked."

lint: setup  ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint and the whole test suite
	$(BIN)/pytest -n 2

gpu-check: setup  ## what needs a GPU: every architecture in both precisions, kernels, two processes where two GPUs are
	$(BIN)/pytest -m gpu -s -rs

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
