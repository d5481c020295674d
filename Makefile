# make run    train, evaluate and report the contrastive ablation at tiny scale (minutes, two CPU cores)
# make test   the default test suite, in two processes; another number: make test PROCESSES=1
# make lint   formatting, lint and types, without changing anything
# make clean  remove the environment and caches; runs/ stays
#
# Everything runs in .venv, which is made on first use from pyproject.toml alone. Another
# interpreter: make run PYTHON=/path/to/python3.12. The stamp files under .venv say what is
# installed, so that a second call installs nothing unless pyproject.toml has changed.

STUDY ?= experiments/ablate_contrastive.yaml
PROCESSES ?= 2
VENV := .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$p && break; done)

.PHONY: help run test lint format clean

help:
	@sed -n 's/^# make/make/p' Makefile

run: $(VENV)/.installed
	$(VENV)/bin/lightning run $(STUDY)
	@echo
	@echo "report: runs/$(notdir $(basename $(STUDY)))/report/index.html"
	@echo "curves: $(VENV)/bin/tensorboard --logdir runs/$(notdir $(basename $(STUDY)))"

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest --numprocesses $(PROCESSES) --dist loadfile

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; install one, or write make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	$(VENV)/bin/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.made
	$(VENV)/bin/python -m pip install --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.installed
