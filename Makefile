# Every target is one call; what is longer than a line lives in scripts/.
.DEFAULT_GOAL := help
SHELL := /bin/bash
COLLECTION := collections/ansible_collections/ops/maintenance
VENV := .venv/bin
export PATH := $(CURDIR)/$(VENV):$(PATH)
export SCENARIO

.PHONY: help setup lock engine images lint format docs sanity units units-fast units-py39 host-tests engine-tests postgresql-versions molecule test-fast test demo demo-check bench build clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv from requirements.lock (instant when the lock is unchanged)
	@scripts/setup.sh

lock: setup ## Compile requirements.lock anew from pyproject.toml
	@scripts/lock.sh

engine: ## Install and start Docker Engine where it does not answer yet
	@scripts/engine.sh

images: engine ## Build the test-host images (cached by content)
	@scripts/images.sh

lint: setup ## yamllint, ruff, mypy --strict, role READMEs, ansible-lint
	@scripts/lint.sh

format: setup ## Let ruff rewrite the Python files
	@scripts/format.sh

docs: setup ## Write each role's README tables from its argument_specs.yml
	@scripts/role_docs.py

sanity: setup ## ansible-test sanity
	@scripts/sanity.sh

units: setup ## Unit tests of the collection and tests of the repository
	@pytest -q -n 3 --dist worksteal

units-fast: setup ## The same without the slow ones
	@pytest -q -n 3 --dist worksteal -m "not slow"

units-py39: setup ## Unit tests of what runs on managed hosts, on their oldest Python
	@scripts/units_py39.sh

host-tests: images ## Tests with real PostgreSQL, Redis and backup tools inside the test hosts
	@scripts/host_tests.sh

engine-tests: setup images ## Tests of what asks Docker, against the engine of this machine
	@pytest -q tests/engine

postgresql-versions: images ## Optional: review, upkeep, retention, logs on PostgreSQL 13, 14 and 16
	@scripts/postgresql_versions.sh

molecule: setup images ## All scenarios on real systemd hosts, or one: SCENARIO=name
	@scripts/molecule.sh

test-fast: lint units-fast sanity ## What to run before each push: no hosts, under 3 minutes

test: ## Everything; ends with one line a CI can read
	@scripts/test.sh

demo: setup ## See the product work on this machine
	@scripts/demo.sh

demo-check: setup ## The demo, held against what it promises
	@scripts/demo.sh --check

bench: setup ## Measure time and memory
	@python benchmarks/run.py

build: setup ## Build the collection's archive into dist/
	@ansible-galaxy collection build $(COLLECTION) --output-path dist --force

clean: ## Remove everything the other targets made
	@scripts/clean.sh
