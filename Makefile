# Each target does all the set-up it needs: virtual environment, native core, tools.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# Processes that run tests side by side; 0 runs them in one, as a debugger needs it.
WORKERS ?= 2
CORE := $(wildcard src/portico/_core/*.pyx src/portico/_core/*.pxd src/portico/_core/*.h)

.PHONY: help demo test test-all lint autobahn bench wheels clean

help:
	@echo "make demo      a chat server to join at once; ARGS=\"--bots 50 --seconds 5\" lets bots talk and ends by itself"
	@echo "make test      all tests; ARGS=\"tests/unit -k address\" runs some, WORKERS=0 in one process"
	@echo "make test-all  the same on each of Python 3.11, 3.12 and 3.13 that is installed"
	@echo "make lint      ruff, mypy --strict, the layers"
	@echo "make autobahn  the Autobahn test suite for WebSockets (needs Python 2.7); ARGS=\"--quick\" without compression"
	@echo "make bench     Portico beside C and its peers; ARGS=\"--quick\" for a first look"
	@echo "make wheels    source distribution and wheel, built in isolation, under dist/"
	@echo "make clean     remove what these made"

# pip runs only when what it would install has changed.
$(VENV)/ready-cli: pyproject.toml setup.py $(CORE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Portico needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "no venv: on Debian, apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) and building the native core (a minute, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" "setuptools>=77" wheel "Cython>=3.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[cli]"
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready-cli
	@echo "installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

demo: $(VENV)/ready-cli
	@$(BIN)/portico demo $(ARGS)

test: $(VENV)/ready-dev
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-all:
	@for version in 3.11 3.12 3.13; do \
	    if command -v python$$version >/dev/null && python$$version -c '' 2>/dev/null; then \
	        echo "Python $$version"; $(MAKE) --no-print-directory test PYTHON=python$$version VENV=.venv/$$version || exit 1; \
	    else echo "Python $$version is not installed"; fi; \
	done

lint: $(VENV)/ready-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

autobahn: $(VENV)/ready-cli
	@$(BIN)/python tests/autobahn/run.py $(ARGS)

bench: $(VENV)/ready-dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --requirement bench/requirements.txt
	@$(BIN)/python bench/run.py $(ARGS)

wheels: $(VENV)/ready-dev
	@$(BIN)/python -m build --outdir dist .

clean:
	rm -rf $(VENV) build dist bench/build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f src/portico/_core/*.so src/portico/_core/*.c
	rm -rf src/portico.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
