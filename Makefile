# Everything a user or a developer types. Each target sets up what it needs by itself, from nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := qemu-utils nbdkit libnbd-bin nbdfuse fio e2fsprogs xfsprogs btrfs-progs strace

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast soak check bench docs clean system-packages

help:
	@echo "make demo       two systems on this machine, and a volume that replicates itself (DEMO_EXIT=1: end when done)"
	@echo "make test       all tests; as root it installs the system packages they need"
	@echo "make test-fast  the quick ones of them, on all cores: a minute or two"
	@echo "make soak       the simulator, seed after seed on all cores, until stopped or one fails (SOAK='--from 5000')"
	@echo "make check      ruff, mypy --strict, import-linter"
	@echo "make bench      Offsite beside its peers, one table, in benchmarks/RESULTS.md"
	@echo "make docs       docs/commands.md, docs/return-codes.md and cli/commands.json, from what is declared"

# The virtual environment is made anew when what it holds is to change.
$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.develop: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,check]'
	@touch $@

demo: $(VENV)/.run
	$(BIN)/offsite demo

test: $(VENV)/.develop system-packages
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST)

test-fast: $(VENV)/.develop
	$(BIN)/python -m pytest -m "not slow and not root" -n auto $(PYTEST)

soak: $(VENV)/.develop
	$(BIN)/python -m tests.simulation --soak $(SOAK)

check: $(VENV)/.develop
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.run
	$(BIN)/python -m offsite.interfaces.cli.declared
	$(BIN)/python -m offsite.interfaces.cli.reference > docs/commands.md
	$(BIN)/python -m offsite.interfaces.cli.return_codes > docs/return-codes.md

bench: $(VENV)/.develop system-packages
	$(BIN)/python -m benchmarks $(BENCH)

# Root installs what is missing; anyone else is told, and the tests that need it say that they were left out.
system-packages:
	@missing=$$(for package in $(PACKAGES); do \
		dpkg-query --show --showformat='$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || echo $$package; \
	done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else \
		echo "!! These packages are not installed:" $$missing; \
		echo "!! Tests that need them will be left out. To run all: sudo apt-get install" $$missing; \
	fi

clean:
	rm -rf $(VENV) build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
