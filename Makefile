# Every target sets up .venv by itself; `make PYTHON=python3.12 demo` chooses another Python (3.10 or newer).
PYTHON ?= python3
IN_VENV := .venv/bin/python

.PHONY: demo lab test notebooks bench kaggle colab
.DELETE_ON_ERROR:

demo: .venv/ready
	$(IN_VENV) -m utils demo

lab: .venv/ready
	cd notebooks && ../.venv/bin/jupyter lab

test: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(IN_VENV) -m pytest

notebooks: .venv/ready
	$(IN_VENV) notebooks/build.py

bench: .venv/ready
	$(IN_VENV) -m benchmarks

# the names must be typed: many systems set USERNAME to the login name, which is not the one on Kaggle
typed = '$(if $(filter command,$(origin $(1))),$($(1)))'

kaggle: .venv/ready
	@$(IN_VENV) notebooks/publish.py kaggle $(call typed,USERNAME)

colab: .venv/ready
	@$(IN_VENV) notebooks/publish.py colab $(call typed,REPOSITORY)

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than Python 3.10; try make PYTHON=python3.12" >&2; exit 2; }
	@echo "Setting up .venv from requirements.txt; the first time this downloads PyTorch and takes some minutes."
	@$(PYTHON) -m venv .venv
	@$(IN_VENV) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@
