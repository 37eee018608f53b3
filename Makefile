# The same few commands everywhere: here, on a fresh machine, in CI. Each does its own set-up; a second call is quick.
# Needs Python 3.11 or later and make. To choose the interpreter: make PYTHON=/path/to/python3 test

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo docs test setup test-oldest chaos mutation schemathesis check format bench bench-peers pressure recovery clean

WORKERS ?= 4
PYTEST_ARGS ?=

export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# Tests start hundreds of interpreters: where the environment forbids bytecode, each would compile the tests' modules again.
unexport PYTHONDONTWRITEBYTECODE

# Folders are listed beside files, so that a file that was removed makes a new wheel too.
SOURCES := pyproject.toml README.md LICENSE \
    $(shell find paddock runtime ipc watchdog examples \( -name __pycache__ -prune \) -o \( -type d -o -type f \) -print)

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|' 2>/dev/null \
	    || grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST)

demo: .venv/.app  ## install Paddock into .venv and run its demo
	@.venv/bin/paddock demo

docs: .venv/.dev .venv/.app  ## build the documents into build/docs; a warning is an error
	@.venv/bin/python -P -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

test: setup  ## check, build the documents, then run the tests against the installed wheel; PYTEST_ARGS="-k name", WORKERS=0
	@$(MAKE) --no-print-directory -j2 check docs
	@PADDOCK_TEST_INSTALLED=1 .venv-test/bin/python -P -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# Two environments side by side, and never two installations into one of them.
setup:  ## make the environments that `make test` works with
	@$(MAKE) --no-print-directory -j2 .venv/.dev .venv-test/.venv
	@$(MAKE) --no-print-directory -j2 .venv/.app .venv-test/.app

test-oldest: .venv-oldest/.app  ## run the tests with the oldest release of every dependency
	@PADDOCK_TEST_INSTALLED=1 .venv-oldest/bin/python -P -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

chaos: .venv-test/.app  ## 200 kills while 50 instances run; CHAOS_ARGS="--seed 7 --kills 1000 --cancels"
	@PADDOCK_TEST_INSTALLED=1 .venv-test/bin/python -P tests/chaos/loop.py $(CHAOS_ARGS)

mutation: .venv-test/.app  ## take out one line of each guarantee; a test must fail; MUTATION_ARGS="G2 G11"
	@PADDOCK_TEST_INSTALLED=1 .venv-test/bin/python -P tests/mutation/run.py $(MUTATION_ARGS)

schemathesis: .venv-test/.app  ## hold a server to its OpenAPI description, two minutes; SCHEMATHESIS_ARGS="--seed 7 --max-time 600"
	@tools/schemathesis.sh .venv-test tests/support/httpflows.py --max-examples 10 --max-time 140 $(SCHEMATHESIS_ARGS)

check: .venv/.dev  ## lint, format, strict types
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python tools/typecheck.py

format: .venv/.dev  ## format the code, and repair what the linter can
	@.venv/bin/python -m ruff check --fix --exit-zero .
	@.venv/bin/python -m ruff format .

bench: .venv/.app  ## print the benchmarks; BENCH_ARGS="..."
	@.venv/bin/python benchmarks/run.py $(BENCH_ARGS)

pressure: .venv/.app  ## print what many instances do to one, and to their server; PRESSURE_ARGS="--small"
	@.venv/bin/python benchmarks/pressure.py $(PRESSURE_ARGS)

bench-peers: .venv/.app .venv-peers/.venv  ## print the benchmarks with DBOS beside them, which gets an environment of its own
	@.venv/bin/python benchmarks/run.py --dbos .venv-peers/bin/python $(BENCH_ARGS)

recovery: .venv/.app  ## print how long recovery takes; RECOVERY_ARGS="--rounds 20"
	@.venv/bin/python benchmarks/recovery.py $(RECOVERY_ARGS)

clean:  ## remove environments, builds and caches
	rm -rf .venv .venv-test .venv-oldest .venv-peers build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Below, each dot file is a stamp: the time of its last success.

# setuptools adds to build/lib and never removes, so a deleted module would live on in the wheel.
build/.wheel: $(SOURCES) .venv/.venv
	@echo "building the wheel"
	@rm -rf build/lib build/bdist.* build/wheel
	@.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	@touch $@

.venv/.venv: tools/venv.sh
	@echo "making .venv"
	@bash tools/venv.sh .venv
	@touch $@

# Not compiled: few of these files are ever imported, and what is imported is compiled then.
.venv/.dev: .venv/.venv pyproject.toml
	@echo "installing the tools into .venv"
	@mkdir -p build
	@.venv/bin/python tools/requirements.py > build/requirements.txt
	@.venv/bin/python -m pip install --quiet --no-compile --upgrade --upgrade-strategy only-if-needed --group dev -r build/requirements.txt
	@touch $@

.venv/.app: build/.wheel
	@echo "installing the wheel into .venv"
	@.venv/bin/python -m pip uninstall --quiet --yes paddock 2>/dev/null
	@.venv/bin/python -m pip install --quiet build/wheel/*.whl
	@touch $@

# Made afresh whenever a dependency may have changed: the tests see what a user gets who installs today.
.venv-test/.venv: tools/venv.sh pyproject.toml
	@echo "making .venv-test"
	@bash tools/venv.sh .venv-test
	@.venv-test/bin/python -m pip install --quiet --group test
	@touch $@

.venv-test/.app: .venv-test/.venv build/.wheel
	@echo "installing the wheel into .venv-test"
	@.venv-test/bin/python -m pip uninstall --quiet --yes paddock 2>/dev/null
	@.venv-test/bin/python -m pip install --quiet build/wheel/*.whl
	@.venv-test/bin/python -m pip check --quiet
	@touch $@

.venv-peers/.venv: tools/venv.sh
	@echo "making .venv-peers"
	@bash tools/venv.sh .venv-peers
	@.venv-peers/bin/python -m pip install --quiet "dbos>=2,<4"
	@touch $@

.venv-oldest/.app: tools/venv.sh build/.wheel
	@echo "making .venv-oldest"
	@bash tools/venv.sh .venv-oldest
	@.venv/bin/python tools/requirements.py --oldest > build/oldest.txt
	@.venv-oldest/bin/python -m pip install --quiet --group test -r build/oldest.txt build/wheel/*.whl
	@touch $@
