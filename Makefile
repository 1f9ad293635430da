# `make run` starts the app, `make test` runs the suite; both install what they need into .venv first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run demo profile test mutations check lint types contracts proof bench-tui bench-history docs screenshots wheel clean format

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: $(VENV)/.app ## Install on first use, then start edge-tui (ARGS="--strategy beam" passes flags)
	@$(BIN)/edge-tui $(ARGS)

demo: $(VENV)/.app ## Watch the shipped pair of models under contrastive decoding; nothing is kept on disk
	@$(BIN)/edge-tui --no-history --strategy contrastive --expert demo/expert --amateur demo/amateur $(ARGS)

# Workers take files in the order of their names: by number of tests, the long ones that hold a single test would be last.
# Where Python may not keep compiled modules, as in many containers, every process that a test starts compiles them anew.
test: $(VENV)/.dev ## Install on first use, then run the tests (ARGS="tests/tui -k theme" chooses some)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: lint types contracts test ## Everything that must hold before a change is handed in

lint: $(VENV)/.dev ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## Put the code into its format
	$(BIN)/ruff format .

types: $(VENV)/.dev ## Static types
	$(BIN)/mypy

contracts: $(VENV)/.dev ## Which part may import which
	$(BIN)/lint-imports

proof: $(VENV)/.proof mutations ## The long tests, and the table of mutations
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m proof $(ARGS)

mutations: $(VENV)/.dev ## Break critical lines on purpose; a test must notice each (NAMES="luck cache" chooses some)
	$(BIN)/python -m tests.mutations $(NAMES)

# Every thread, native frames too: the engine's is the one named "engine". On a GPU the host's part alone is seen.
profile: $(VENV)/.dev ## Draw where the time of a run goes into profile.svg (ARGS="--strategy beam" passes flags)
	$(BIN)/py-spy record --native --threads --rate 200 --output profile.svg -- \
	    $(BIN)/python -m edge_tui run --no-history --quiet --model demo/expert --max-new-tokens 600 $(ARGS) "def main():" > /dev/null
	@echo "profile.svg holds a flame graph; a browser shows it."

bench-tui: $(VENV)/.dev ## Measure the screen through a pseudo-terminal
	$(BIN)/python -m tools.bench_app
	$(BIN)/python -m tools.bench_screen $(ARGS)

docs: $(VENV)/.dev ## Write the generated parts of README.md and docs/ anew
	$(BIN)/python -m tools.write_docs

screenshots: $(VENV)/.dev ## Take the README's pictures anew, and put every screen on one sheet
	$(BIN)/python tools/take_screenshot.py
	$(BIN)/python -m pytest -q tests/tui/test_screens.py tests/tui/test_kept_screens.py --snapshot-update
	$(BIN)/python tools/contact_sheet.py

bench-history: $(VENV)/.dev ## Measure the history: opening, searching, bytes and time of a token
	$(BIN)/python -m tools.bench_history $(ARGS)

wheel: $(VENV)/.dev ## Build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## Remove the environment and everything built
	rm -rf $(VENV) build dist

# PYTHON=… chooses one; otherwise the first that is at least 3.11 and can make environments.
$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3; do \
	    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Making $(VENV) with $$("$$python" --version) ($$(command -v "$$python"))."; \
	        exec "$$python" -m venv $(VENV); \
	    fi; \
	done; \
	echo "edge-tui needs Python 3.11 or newer with its venv module; install it, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	exit 1

$(VENV)/.app: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing edge-tui and what it needs into $(VENV) (once; some minutes, mostly torch)."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing edge-tui, what it needs and the test tools into $(VENV) (once; some minutes, mostly torch)."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.app

$(VENV)/.proof: pyproject.toml constraints.txt | $(VENV)/.dev
	@echo "Installing what the long tests compare with into $(VENV) (once; lm-evaluation-harness brings several hundred MB)."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,proof]'
	@touch $@
