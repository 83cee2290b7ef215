# Every target sets up .venv by itself; `make PYTHON=python3.12 demo` chooses another Python (3.10 or newer).
PYTHON ?= python3
IN_VENV := .venv/bin/python
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
MINUTES ?= 10

.PHONY: demo lab test test-browser chromium notebooks report page bench gpu kaggle colab
.DELETE_ON_ERROR:

demo: .venv/ready
	$(IN_VENV) -m kit demo

lab: .venv/ready
	cd notebooks && ../.venv/bin/jupyter lab

# a worker a core, but each needs 1 GB
test: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	OMP_NUM_THREADS=1 $(IN_VENV) -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal

# the widgets in JupyterLab, under the keys of a headless Chromium; screenshots land in tests/browser/shots/
test-browser: chromium .venv/ready-browser
	CHROMIUM="$(CHROMIUM)" $(IN_VENV) -m pytest tests/browser

chromium:
	@test -n "$(CHROMIUM)" || { echo "error: no Chromium found: apt-get install chromium" >&2; exit 2; }

notebooks: .venv/ready
	$(IN_VENV) -m notebooks.build

# one page from notebook 08: make report RUN=mine, or RUN="mine other" side by side
report: .venv/ready
	@$(IN_VENV) -m kit report $(call typed,RUN)

# the page on which the cartoons are drawn in a browser, in dist/page, shown at an address of this machine
page: .venv/ready
	@$(IN_VENV) -m kit page --checkpoint cartoons --serve

bench: .venv/ready
	$(IN_VENV) -m benchmarks

# what only an NVIDIA GPU can show, in dist/gpu: make gpu MINUTES=10
gpu: .venv/ready
	$(IN_VENV) -m benchmarks.gpu --minutes $(MINUTES) --out dist/gpu

# the names must be typed: many systems set USERNAME to the login name, which is not the one on Kaggle
typed = '$(if $(filter command,$(origin $(1))),$($(1)))'

kaggle: .venv/ready
	@$(IN_VENV) -m kit.publish kaggle $(call typed,USERNAME)

colab: .venv/ready
	@$(IN_VENV) -m kit.publish colab $(call typed,REPOSITORY)

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than Python 3.10; try make PYTHON=python3.12" >&2; exit 2; }
	@echo "Setting up .venv from requirements.txt; the first time this downloads PyTorch and takes some minutes."
	@$(PYTHON) -m venv .venv
	@$(IN_VENV) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

.venv/ready-browser: tests/browser/requirements.txt .venv/ready
	@$(IN_VENV) -m pip install --quiet --disable-pip-version-check --requirement tests/browser/requirements.txt
	@touch $@
