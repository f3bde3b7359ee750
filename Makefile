# `make` lists the targets. Everything CI runs is here; every install step is here.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# Python compiles what it imports; of these packages that is a small part.
INSTALL := $(PIP) install --no-compile -c constraints.txt
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
RUST := $(shell find rust -name '*.rs' -o -name 'Cargo.toml') Cargo.toml Cargo.lock

.PHONY: help setup setup-dev demo test quick format lint rust-test python-test docs wheels bench fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

# Debian splits `venv` off into a package of its own.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "langadapt needs Python >= 3.10, and $(PYTHON) is $$($(PYTHON) --version); set PYTHON=..."; exit 1; }
	@command -v cargo >/dev/null || { echo "langadapt needs a Rust toolchain (cargo), see rustup.rs"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); } \
	  || { echo "cannot make a virtual environment: install python3-venv"; exit 1; }

$(VENV)/.runtime: constraints.txt pyproject.toml kernels/pyproject.toml | $(BIN)/python
	$(INSTALL) build maturin pip
	$(BIN)/python .ci/requirements.py > $(VENV)/requirements.txt
	$(INSTALL) -r $(VENV)/requirements.txt
	$(PIP) install --no-deps -e kernels
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime .ci/requirements-dev.txt
	$(INSTALL) -r .ci/requirements-dev.txt
	@touch $@

$(VENV)/.built: $(VENV)/.runtime $(RUST)
	VIRTUAL_ENV=$(abspath $(VENV)) PATH=$(abspath $(BIN)):$$PATH $(BIN)/maturin develop --release --locked -q
	@touch $@

setup: $(VENV)/.built ## environment, dependencies and release build in .venv

setup-dev: setup $(VENV)/.dev ## the same, with what tests and lints need

demo: setup ## adapt a tiny model from English to German, offline, and print what it bought
	$(BIN)/langadapt demo --out runs/demo

# The development environment is fetched while the core's tests are compiled.
test: setup ## what CI runs: formats, lints, all tests
	$(MAKE) -j 2 $(VENV)/.dev rust-test
	$(MAKE) lint python-test

quick: setup-dev ## Python tests without the slow ones
	$(BIN)/python -m pytest -q -m "not slow" $(PARALLEL)

format: setup-dev ## rewrite sources in house format
	cargo fmt --all
	$(BIN)/ruff format python kernels tests benches .ci
	$(BIN)/ruff check --fix python kernels tests benches .ci

lint: setup-dev ## rustfmt, clippy, ruff, mypy, import-linter; changes nothing
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -q -- -D warnings
	$(BIN)/ruff format --check python kernels tests benches .ci
	$(BIN)/ruff check python kernels tests benches .ci
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

rust-test: ## unit, property and documentation tests of the core
	cargo test --release --locked --workspace -q

python-test: setup-dev ## Python tests, Triton kernels in the interpreter
	$(BIN)/python -m pytest -q $(PARALLEL)

docs: setup ## write docs/recipe.md from the docstrings of the settings
	$(BIN)/python .ci/recipe_reference.py > docs/recipe.md

wheels: setup ## both wheels and both sdists into dist/
	rm -rf dist
	$(BIN)/maturin build --release --locked -q -o dist
	$(BIN)/maturin sdist -o dist
	$(BIN)/python -m build -q kernels -o dist

# Rivals live beside the development environment, never in it: their pins would fight with ours. Its packages are added
# as a site folder, as the two packages of the project are known there by `.pth` files alone.
$(VENV)/.bench: $(VENV)/.dev benches/requirements.txt
	$(BIN)/python -m venv --without-pip $(VENV)/bench
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$(echo $(VENV)/bench/lib/python3.*/site-packages)/development.pth"
	$(PIP) --python $(VENV)/bench/bin/python install --no-deps -r benches/requirements.txt
	@touch $@

BENCH := $(VENV)/bench/bin/python

BENCH_REPORT = benches/reports/$(1)_$(shell nproc)cores_$(shell date +%Y%m)

bench: setup $(VENV)/.bench ## every CPU bench beside its rivals; writes benches/reports/
	$(BENCH) benches/unpack.py de $(VENV)/bench/data/de.jsonl
	$(BENCH) benches/bpe_training.py --corpus $(VENV)/bench/data/de.jsonl --out $(call BENCH_REPORT,bpe_training_de)
	$(BENCH) benches/bpe_encoding.py --out $(call BENCH_REPORT,bpe_encoding)
	$(BENCH) benches/threads.py --out $(call BENCH_REPORT,threads)
	$(BENCH) benches/corpus.py --out $(call BENCH_REPORT,corpus)
	$(BENCH) benches/focus_cpu.py --out $(call BENCH_REPORT,focus_cpu)
	$(BENCH) benches/vectors.py --out $(call BENCH_REPORT,vectors)
	OMP_NUM_THREADS=1 $(BENCH) benches/training_cpu.py --threads 1 --out $(call BENCH_REPORT,training_cpu)

fuzz: ## readers, pre-tokenizers, encoder and tokenizer.json on random damage, for longer than the tests do
	cargo test --release --locked --workspace -- --ignored fuzz

clean: ## remove what was built
	rm -rf dist target $(VENV) runs
