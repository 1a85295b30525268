PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python -m

.PHONY: help install demo study-trace study-mini study-apps study-math bench-sandbox test test-slow check clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(VENV)/installed ## make .venv and install the project with its pinned requirements

$(VENV)/installed: setup.cfg setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## train the embedded task by PPO and by RRL, side by side (minutes on 2 cores)
	$(RUN) rrl.cli.demo

test: install ## run the default tests (under 10 minutes on 2 cores)
	$(RUN) pytest -m 'not slow and not gpu'

study-trace: install ## PPO, replay and re-draw on the embedded task: 2 critics x 3 arms x 3 seeds (about 25 minutes)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" experiments/trace/study.sh runs/study-trace

study-mini: install ## learning curves of minichat and minicode: 3 and 6 arms x 3 seeds
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" experiments/mini/study.sh runs/study-mini

study-apps: install ## the judge of APPS against the data's own solutions and mutants of them: DATA=<folder or file>
	$(VENV)/bin/python experiments/apps/references.py $(DATA) sandbox.limits.cpu_seconds=3

study-math: install ## the verifier of MATH on all canonical solutions: DATA=<folder of train.jsonl.gz> (about 10 minutes)
	$(VENV)/bin/python experiments/math/verifier.py $(DATA) experiments/results/math

bench-sandbox: install ## programs a second: the sandbox against one fresh python each (a minute on 2 idle cores)
	$(VENV)/bin/python experiments/sandbox/bench.py $(BENCH)

test-slow: install ## run the slow tests (about 20 minutes)
	$(RUN) pytest -m slow

check: install ## ruff, mypy --strict and the default tests
	$(RUN) ruff check src tests
	$(RUN) ruff format --check src tests
	$(RUN) mypy
	$(MAKE) test

clean: ## remove the environment, caches and build products (runs stay)
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
