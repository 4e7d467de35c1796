# MoR-ViT sizing suite. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
DEVICE ?= auto
# One folder a run: the time is taken once.
SESSION ?= $(eval SESSION := results/measurements/$(shell date -u +%Y%m%dT%H%M%SZ))$(SESSION)
PROFILE_OPTIONS ?= --quick
TRAIN_OPTIONS ?=
BENCH_OPTIONS ?=
SELFTEST_OPTIONS ?=
TEST_WORKERS ?= 2
SIZING_OPTIONS ?= --reference
SEEDS ?= 0
FAULTS_OPTIONS ?= --output results/reference/faults.json

venv := .venv
py := $(venv)/bin/python
pip := $(py) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
inputs := pyproject.toml constraints.txt
dataset := /usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz

export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-base setup-dev setup-debian profile report train test test-gpu check bench selftest comparison faults sizing laws hostile rehearsal clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | \
	  while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

$(venv)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: wanted Python 3.11 or newer, got $$($(PYTHON) --version); set PYTHON=" >&2; exit 2; }
	$(PYTHON) -m venv $(venv)
	@touch $@

$(venv)/.base: $(venv)/.made $(inputs)
	$(pip) --editable .
	@touch $@

$(venv)/.profile: $(venv)/.made $(inputs)
	$(pip) --editable '.[profile]'
	@touch $@ $(venv)/.base

$(venv)/.dev: $(venv)/.made $(inputs)
	$(pip) --editable '.[profile,peers,dev]'
	@touch $@ $(venv)/.profile $(venv)/.base

setup: $(venv)/.profile ## environment to measure and predict (torch: 6 GB)

setup-base: $(venv)/.base ## environment to predict and size only (no torch)

setup-dev: $(venv)/.dev ## environment with everything that tests need

# Debian packages are installed where that is possible; what lacks them says so and is skipped.
setup-debian:
	@if ! command -v gcc >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null; fi
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; fi
	@if [ ! -e $(dataset) ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends dataset-fashion-mnist >/dev/null; fi

profile: ## measure this machine, fit, predict the catalogue, write the report [DEVICE=auto]
	@$(PYTHON) -m profiler.presence $(DEVICE)
	@$(MAKE) --no-print-directory setup
	@$(py) -m profiler run --device $(DEVICE) $(PROFILE_OPTIONS) --out $(SESSION)
	@$(py) -m costmodel.fit --journal $(SESSION) --output $(SESSION)/fit.txt
	@$(py) -m costmodel.validate --journal $(SESSION)
	@$(py) -m costmodel.predict --device all --batch 32 --offers results/predictions/catalogue.json --output results/predictions/catalogue.txt
	@$(py) -m costmodel.predict --device cpu --model morvit-fmnist
	@$(py) -m costmodel.design --p99-ms 30 --designs results/predictions/designs.json --output results/predictions/designs.txt
	@$(py) -m scenarios.size scenarios/library/inspection-line.toml --output results/plans/inspection-line.txt
	@$(py) -m reports --session $(SESSION)

report: setup-base ## write the report anew from what is in results/
	@$(py) -m reports

train: setup setup-debian ## train the shipped network from the data set on disk, resumable
	@$(py) -m morvit.train $(TRAIN_OPTIONS)

test: setup-dev setup-debian ## every test that needs no GPU
	@OMP_NUM_THREADS=1 $(py) -m pytest -q -m 'not gpu' -n $(TEST_WORKERS) --dist loadfile

test-gpu: setup-dev ## the tests that need a CUDA device
	@$(py) -m pytest -q -m gpu

check: setup-dev ## format, lint, types, import contract
	@$(venv)/bin/ruff format --check --quiet .
	@$(venv)/bin/ruff check --quiet .
	@$(venv)/bin/mypy
	@$(venv)/bin/lint-imports --no-cache | tail -n 12

bench: setup-dev setup-debian ## the self-test; MoR-ViT against its ideal, a ViT and its controls (quiet machine, half an hour)
	-@$(py) -m profiler selftest $(SELFTEST_OPTIONS)
	@$(py) -m profiler bench $(BENCH_OPTIONS)

selftest: setup-dev ## what the profiler itself costs and how often its verdicts are wrong (quiet machine, 20 minutes)
	@$(py) -m profiler selftest $(SELFTEST_OPTIONS)

comparison: setup-dev setup-debian ## train MoR-ViT and all it is compared with (hours; resumable) [SEEDS="0 1 2"]
	@for task in inspection fashion-mnist; do for seed in $(SEEDS); do \
	  for network in vit morvit shallow recursive random; do \
	    $(py) -m morvit.train --task $$task --network $$network --seed $$seed || exit; \
	  done; \
	  $(py) -m morvit.train --task $$task --network distilled --seed $$seed \
	    --teacher results/training/vit-$$task-$$seed/vit-$$task-$$seed.safetensors || exit; \
	done; done

faults: setup-dev setup-debian ## kill, mutate, fill the disk: nothing may be lost (results/reference/faults.json)
	@$(py) -m tests.faults $(FAULTS_OPTIONS)

sizing: setup-base ## how good the sizing is: closed forms, 200 random scenarios, brute force (resumable)
	@$(py) -m scenarios.acceptance $(SIZING_OPTIONS)

laws: setup-dev ## the laws of sizing and cost, 5,000 cases of each (5 to 20 minutes)
	@HYPOTHESIS_PROFILE=thorough $(py) -m pytest -q tests/scenarios/test_laws.py

hostile: setup-dev ## 10,000 hostile scenario files and command lines (results/reference/hostile.json)
	@$(py) -m tests.faults --only scenarios --output results/reference/hostile.json

rehearsal: setup setup-debian ## the acceptance kit with this CPU as the delivered machine (quiet machine, half an hour)
	@$(py) -m profiler run --brief --device cpu --out $(SESSION)
	@$(py) -m costmodel.fit --journal $(SESSION)
	@$(py) -m scenarios.size scenarios/rehearsal.toml --output results/plans/rehearsal.txt
	@$(py) -m scenarios.accept results/plans/rehearsal.json --out $(SESSION)-kit
	@sh $(SESSION)-kit/run.sh cpu

clean: ## remove the environment and caches, never results
	rm -rf $(venv) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
