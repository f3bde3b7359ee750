# `make` lists the targets. Everything CI runs is here; every install step is here.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Packages are installed without bytecode. Where none may be written, each process compiles torch's again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# Python compiles what it imports; of these packages that is a small part.
INSTALL := $(PIP) install --no-compile -c constraints.txt
# An index that has torch's builds for CPUs, for machines without a GPU: 2.6 GB less. PyTorch's installation page names it.
TORCH_INDEX ?=
GPU = $(shell command -v nvidia-smi || ls /dev/nvidiactl 2>/dev/null)
PACKAGES = $(VENV)/.runtime
PROCESSORS ?= x86_64 aarch64
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
RUST := $(shell find rust -name '*.rs' -o -name 'Cargo.toml') Cargo.toml Cargo.lock

.PHONY: help setup setup-dev demo test quick format lint rust-test python-test docs site wheels manylinux bench fuzz kills clean

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

# The core is compiled while packages are fetched: the one wants processors, the other the network.
$(VENV)/.maturin: constraints.txt | $(BIN)/python
	@echo "setup: a virtual environment in $(VENV)"
	@$(INSTALL) maturin pip
	@touch $@

$(VENV)/.runtime: constraints.txt pyproject.toml kernels/pyproject.toml $(VENV)/.maturin
	@echo "setup: packages into $(VENV), most of it torch$(if $(TORCH_INDEX),, and CUDA: 4.8 GB); a few minutes"
	@$(INSTALL) build
	@$(if $(TORCH_INDEX),$(INSTALL) --index-url $(TORCH_INDEX) torch)
	@$(BIN)/python .ci/requirements.py > $(VENV)/requirements.txt
	@$(INSTALL) -r $(VENV)/requirements.txt
	@$(PIP) install --no-deps -e kernels
	@touch $@

# The same without CUDA's libraries and Triton, 3 GB less: enough for the demo. `make setup` adds them.
$(VENV)/.light: constraints.txt pyproject.toml kernels/pyproject.toml $(VENV)/.maturin
	@echo "setup: packages into $(VENV), most of it torch: 1.5 GB without CUDA, as no GPU is here; 1-2 minutes"
	@$(INSTALL) --no-deps torch
	@$(BIN)/python .ci/requirements.py --without-cuda > $(VENV)/requirements-light.txt
	@$(INSTALL) --no-warn-conflicts -r $(VENV)/requirements-light.txt
	@$(PIP) install --no-deps -e kernels
	@$(BIN)/python .ci/light_torch.py && $(BIN)/python -c 'import torch' 2>/dev/null \
	  || { echo "setup: this torch does not load without CUDA's libraries, so they are fetched"; $(INSTALL) torch; }
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime .ci/requirements-dev.txt
	$(INSTALL) -r .ci/requirements-dev.txt
	@touch $@

MATURIN := VIRTUAL_ENV=$(abspath $(VENV)) PATH=$(abspath $(BIN)):$$PATH $(BIN)/maturin

$(VENV)/.core: $(VENV)/.maturin $(RUST)
	@echo "setup: the compiled core, meanwhile; 1-2 minutes on two cores"
	@$(MATURIN) develop --release --locked -q --skip-install > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@touch $@

# What a light environment lacks is not to be fetched here.
$(VENV)/.built: $(PACKAGES) $(VENV)/.core
	@PIP_NO_DEPS=1 $(MATURIN) develop --release --locked -q >> $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@touch $@

setup: ## environment, dependencies and release build in .venv
	@$(MAKE) --no-print-directory -j 2 $(VENV)/.built

setup-dev: setup $(VENV)/.dev ## the same, with what tests and lints need

# A machine that has a GPU, an environment that is complete and an index of builds for CPUs need no light environment.
demo: ## adapt a tiny model from English to Spanish, offline, and print what it bought
	@$(MAKE) --no-print-directory setup PACKAGES=$(if $(GPU)$(TORCH_INDEX)$(wildcard $(VENV)/.runtime),$(VENV)/.runtime,$(VENV)/.light)
	@echo "demo: makes a tiny English model, adapts it to Spanish in three ways, measures all; minutes on two idle cores"
	@$(BIN)/langadapt demo --out runs/demo
	@echo "langadapt is $(BIN)/langadapt; \`source $(BIN)/activate\` puts it into your path"
	@[ -e $(VENV)/.runtime ] || echo "this environment is without CUDA; \`make setup\` completes it for GPUs and development"

# The development environment is fetched while the core's tests are compiled.
test: setup ## what CI runs: formats, lints, all tests
	$(MAKE) -j 2 $(VENV)/.dev rust-test
	$(MAKE) lint python-test
	$(BIN)/python tests/fuzz.py encoder pieces readers stores --seconds 60

quick: setup-dev ## Python tests without the slow ones
	$(BIN)/python -m pytest -q -m "not slow" $(PARALLEL)

format: setup-dev ## rewrite sources in house format
	cargo fmt --all
	$(BIN)/ruff format python kernels tests benches .ci
	$(BIN)/ruff check --fix python kernels tests benches .ci

lint: setup-dev ## rustfmt, clippy, lengths, ruff, mypy, import-linter; changes nothing
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -q -- -D warnings
	cargo test --release --locked -q -p langadapt-core --test house
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

site: setup-dev ## the documentation as a site, into site/
	$(BIN)/mkdocs build --quiet

wheels: setup ## both wheels and both sdists into dist/
	rm -rf dist
	$(BIN)/maturin build --release --locked -q -o dist
	$(BIN)/maturin sdist -o dist
	$(BIN)/python -m build -q kernels -o dist

# A wheel runs on any Linux with glibc 2.17: zig links against that one, for either processor. `auditwheel` looks at what the
# library asks of a system, `abi3audit` at what it asks of Python.
manylinux: $(VENV)/.maturin ## manylinux wheels for x86-64 and aarch64 into dist/manylinux/, checked
	@$(INSTALL) abi3audit auditwheel cargo-zigbuild ziglang
	@rm -rf dist/manylinux
	@for each in $(PROCESSORS); do \
	  target=$$each-unknown-linux-gnu; \
	  [ -d "$$(rustc --print target-libdir --target $$target)" ] || rustup target add $$target \
	    || { echo "no Rust library for $$each: get it by \`rustup target add $$target\`, or PROCESSORS=x86_64"; exit 1; }; \
	  echo "wheel for $$each"; \
	  PATH=$(abspath $(BIN)):$$PATH maturin build --release --locked -q --zig --target $$target --compatibility manylinux2014 \
	    -o dist/manylinux; \
	done
	@for wheel in dist/manylinux/*.whl; do \
	  $(BIN)/auditwheel show $$wheel | tee /dev/stderr | grep manylinux_2_17 > /dev/null; \
	  $(BIN)/abi3audit --strict --summary $$wheel; \
	done

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
	OMP_NUM_THREADS=1 $(BENCH) benches/adamw_cpu.py --threads 1 --out $(call BENCH_REPORT,adamw_cpu)
	OMP_NUM_THREADS=1 $(BENCH) benches/sparsemax_cpu.py --threads 1 --out $(call BENCH_REPORT,sparsemax_cpu)
	OMP_NUM_THREADS=1 $(BENCH) benches/training_cpu.py --threads 1 --out $(call BENCH_REPORT,training_cpu)
	OMP_NUM_THREADS=1 $(BENCH) benches/training_products.py --out $(call BENCH_REPORT,training_products)

# A new seed each time; a failure names the one that shows it again. An hour on two cores is the default.
SECONDS ?= 3600
fuzz: setup-dev ## encoder, readers, tokenizer.json, stores and weights on random input; SECONDS=3600
	$(BIN)/python tests/fuzz.py --seconds $(SECONDS)

kills: setup-dev ## every command that writes, killed 200 times, and the other ways to fail; hours
	$(BIN)/python tests/kills.py

clean: ## remove what was built
	rm -rf dist site target $(VENV) runs
