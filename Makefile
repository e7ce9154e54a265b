# Every target sets up .venv by itself; nothing else has to be typed on a fresh machine.
#   make demo       the whole study on the generated corpus, into results/demo
#   make test       the tests (offline)
#   make test-published   the wheel and a pushed model in new environments, the Space in a browser
#   make test-studies     a study from end to end, tiny: killed, and started again
#   make quality    ruff and mypy; `make style` lets ruff mend what it can
# Another Python: make test PYTHON=python3.12 (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR ?= results/demo

.PHONY: help install demo test test-published test-studies quality style
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#  *\(make .*\)/\1/p' Makefile

install: $(STAMP)

# The stamp is written last: an installation that was cut off starts again and goes on.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: make PYTHON=python3.11 takes another one (3.11 or newer)"; exit 1; }
	@echo "Installing into $(VENV) (torch and the other wheels are about 5 GB, once)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	@touch $@

# Made for two CPU cores, and the same everywhere: a GPU is left alone. The lock of the operating system
# stands in for Snakemake's own, which a killed run would leave behind.
demo: export CUDA_VISIBLE_DEVICES =
demo: $(STAMP)
	@mkdir -p $(DEMO_DIR)
	@flock $(DEMO_DIR)/.lock $(BIN)/snakemake -s studies/demo/Snakefile --cores 2 --config output_dir=$(DEMO_DIR) \
		--nolock --rerun-incomplete --show-failed-logs
	@$(BIN)/python -m tse_ser.evaluation.demo $(DEMO_DIR)/demo.parquet

test: $(STAMP)
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --quiet -n 2 --dist loadfile

# Debian's Chromium for root, else the one of Playwright; without either the tests skip and say so.
test-published: $(STAMP)
	@command -v chromium >/dev/null || \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
		else $(BIN)/playwright install chromium; fi \
		|| echo "no Chromium could be installed: the tests in a browser skip"
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --quiet -m slow tests/test_space_browser.py \
		tests/test_hub_fresh_environment.py tests/test_wheel.py

# A tiny study with real trainings, killed on its way: it ends with the tables of one that was not.
test-studies: $(STAMP)
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --quiet -m slow tests/test_study_runs.py

quality: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

style: $(STAMP)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
