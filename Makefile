# make demo    the shipped network on BabyAI, scored against the bot
# make test    the tests
# make check   formatting, lint, types, and who imports whom
# make format  rewrite the sources in the project's format
# make .venv   the environment that all of these use

VENV := .venv
PYTHON_IN_VENV := $(VENV)/bin/python
STAMP := $(VENV)/installed.stamp
# a process of tests holds a core and two gigabytes
TEST_PROCESSES ?= 2
# the first Python that can make environments; another one: make PYTHON=/path/to/python
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$name && break; done)

.PHONY: demo test check format .venv
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(PYTHON_IN_VENV) -m benchmarks.run --suite babyai --episodes 5

test: $(STAMP)
	$(PYTHON_IN_VENV) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

check: $(STAMP)
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m mypy
	PYTHONPATH=. $(VENV)/bin/lint-imports

format: $(STAMP)
	$(PYTHON_IN_VENV) -m ruff format .
	$(PYTHON_IN_VENV) -m ruff check --fix .

.venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/install_torch.py
	@test -n "$(PYTHON)" || { echo "no Python with venv found: got none, expected 3.11 or newer;" \
		"install it (Debian: python3-venv) or name it with make PYTHON=/path/to/python"; exit 1; }
	test -x $(PYTHON_IN_VENV) || $(PYTHON) -m venv $(VENV)
	$(PYTHON_IN_VENV) scripts/install_torch.py
	$(PYTHON_IN_VENV) -m pip install --disable-pip-version-check --constraint constraints.txt \
		--editable ".[all,dev]"
	touch $@
