# make demo    the shipped network plays a task of each suite, scored against the experts, with clips
# make test    the tests
# make docs    the documentation site, in build/site
# make check   formatting, lint, types, and who imports whom
# make format  rewrite the sources in the project's format
# make .venv   the environment that all of these use

VENV := .venv
PYTHON_IN_VENV := $(VENV)/bin/python
STAMP := $(VENV)/installed.stamp
DEMO_STAMP := $(VENV)/demo.stamp
DEMO_TASKS := atari-breakout,babyai-go-to-local,dm_control-cheetah-run,metaworld-door-open,mujoco-reacher
# modules are compiled when they are imported: compiling all of them takes most of an installation
INSTALL := $(PYTHON_IN_VENV) -m pip install --disable-pip-version-check --no-compile \
	--constraint constraints.txt
# a process of tests holds a core and two gigabytes
TEST_PROCESSES ?= 2
# the first Python that can make environments; another one: make PYTHON=/path/to/python
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$name && break; done)

.PHONY: demo test docs check format .venv
.DEFAULT_GOAL := demo

demo: $(DEMO_STAMP)
	$(PYTHON_IN_VENV) -m benchmarks.run --suite all --tasks $(DEMO_TASKS) --episodes 1 --record 1

test: $(STAMP)
	$(PYTHON_IN_VENV) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --durations 40

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(PYTHON_IN_VENV) -m mkdocs build --strict --quiet --site-dir build/site
	@echo "the site is in build/site: open build/site/index.html"

check: $(STAMP)
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m mypy
	PYTHONPATH=. $(VENV)/bin/lint-imports

format: $(STAMP)
	$(PYTHON_IN_VENV) -m ruff format .
	$(PYTHON_IN_VENV) -m ruff check --fix .

.venv: $(STAMP)

$(STAMP): $(DEMO_STAMP)
	$(INSTALL) --editable ".[all,dev]"
	touch $@

$(DEMO_STAMP): pyproject.toml constraints.txt scripts/install_torch.py
	@test -n "$(PYTHON)" || { echo "no Python with venv found: got none, expected 3.11 or newer;" \
		"install it (Debian: python3-venv) or name it with make PYTHON=/path/to/python"; exit 1; }
	test -x $(PYTHON_IN_VENV) || $(PYTHON) -m venv $(VENV)
	$(PYTHON_IN_VENV) scripts/install_torch.py
	$(INSTALL) --editable ".[demo]"
	touch $@
