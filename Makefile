# The verbs of this project. Each sets up .venv by itself; nothing is done twice while requirements and Python stay the same.
PYTHON ?= python3
BIN := .venv/bin
KEY := $(shell { cat requirements.txt requirements-dev.txt pyproject.toml; $(PYTHON) -VV; pwd; } 2>&1 | cksum | tr -d ' ')
READY := .venv/.ready-$(KEY)
READY_DEV := .venv/.ready-dev-$(KEY)

.PHONY: help lab test check fix bench soak serve
help:
	@echo 'make lab     run the experiments of both sources on an embedded PostgreSQL (ARGS=--full: at their exact sizes)'
	@echo 'make test    the tests (ARGS: options of pytest)'
	@echo 'make check   ruff and mypy'
	@echo 'make fix     let ruff format and mend'
	@echo 'make bench   side by side with peers (half an hour)'
	@echo 'make soak    the fair pool under five minutes of kills, timeouts and restarts (ARGS: --minutes N)'
	@echo 'make serve   the service on 4 workers'

lab: $(READY)
	@$(BIN)/loadgen lab $(ARGS)

# The browser's tests have a process of their own: Playwright's event loop and gevent's do not end well in one.
test: $(READY_DEV)
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n 2 --dist loadfile --ignore tests/browser)
	@$(if $(ARGS),true,$(BIN)/python -m pytest tests/browser)

check: $(READY_DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fix: $(READY_DEV)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY_DEV)
	@for each in pool service generators accuracy reports; do \
	  echo "## benchmarks/$$each.py"; $(BIN)/python -m benchmarks.$$each || exit 1; done

soak: $(READY_DEV)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

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
	@$(BIN)/pip install -q --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
	@touch $@

$(READY_DEV): $(READY)
	@$(BIN)/pip install -q --disable-pip-version-check --no-input -r requirements-dev.txt
	@touch $@
