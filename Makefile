# Every target makes its own .venv; nothing but python3 (>= 3.11, with venv) and make is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo up check test nightly sim chaos bench peers clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## create .venv with everything the other targets need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Quorate needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

demo: setup  ## three nodes, two workers, kill -9 of a worker and of the leader; exits 0 if nothing was lost
	@$(BIN)/python -m chaos.live.demo

up: setup  ## leave a cluster of three nodes and two workers running; Ctrl-C ends it
	@$(BIN)/quorate dev --nodes 3 --workers 2 --data .up

check: setup  ## ruff, mypy --strict, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_tidy.py

test: check  ## the whole test suite: first what runs in one process, then real processes one by one
	@$(BIN)/python -m pytest -n 2 -m "not e2e"
	@$(BIN)/python -m pytest -m "e2e and not nightly"

nightly: setup  ## tests of real processes that take too long for every day: two releases rolled up and down
	@$(BIN)/python -m pytest -m nightly

sim: setup  ## seeded simulations of whole clusters: SEEDS=1000 make sim
	@$(BIN)/python -m chaos.sim --jobs 2 --seeds $(or $(SEEDS),100)

chaos: setup  ## kill -9, pauses and restarts of real nodes under load: CYCLES=500 SEED=7 make chaos
	@$(BIN)/python -m chaos.live.kills --cycles $(or $(CYCLES),50) --seed $(or $(SEED),1)

bench: setup  ## measure all rows, P1 to P11, F, S1 and variants (SCALE=full for the record, ROWS=P2,V), append to bench/RESULTS.md
	@$(BIN)/python -m bench --scale $(or $(SCALE),quick) $(if $(ROWS),--rows $(ROWS))

peers: setup  ## the same work on other queues, side by side (docs/comparison.md): JOBS=20000 ROUNDS=3
	@$(BIN)/python -m bench.peers --jobs $(or $(JOBS),5000) --rounds $(or $(ROUNDS),1)

clean:  ## remove .venv and everything generated
	rm -rf $(VENV) .demo .up .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
