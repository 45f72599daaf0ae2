# `make demo` shows the whole road on a shipped model; `make test` runs the tests; `make check` lints. CONTRIBUTING.md says more.
# Each makes what it needs: a virtual environment in .venv, which is reused until pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo compare test test-slow test-docs test-devices test-exports test-lowest test-newest test-bare test-runtime chaos check format reference hooks clean

help:
	@echo "make demo         quantize, export, compile and check a shipped model; ends in a table"
	@echo "make compare      the demo against the build that was accepted last, .ci/baseline"
	@echo "make test         run the tests"
	@echo "make test-slow    run those that take minutes"
	@echo "make test-docs    those of them that run what the documents say, and a user's file under a type checker"
	@echo "make test-devices that nothing of the host meets a device, on one that is emulated, and that kernels compile: minutes"
	@echo "make test-exports what the shipped models export to, in every preset, against tests/reference, and its layer plans: minutes"
	@echo "make test-runtime the shipped models in an environment with NumPy, Pillow and ONNX Runtime alone: minutes"
	@echo "make test-lowest  the tests where libraries meet, with the lowest versions; test-newest, test-bare alike: gigabytes"
	@echo "make chaos        builds that are killed, stopped, started twice and starved of disk; flipped bits: minutes"
	@echo "make check        lint, formatting and types"
	@echo "make format       rewrite the sources in the project's format"
	@echo "make reference    write docs/reference anew from the code"
	@echo "make hooks        check every commit before it is made"
	@echo "make clean        remove .venv and build"

demo: $(INSTALLED)
	$(BIN)/fimaq-deploy build --model swin_digits --sensitivity 64 --out build/swin_digits --overwrite

compare: demo
	$(BIN)/fimaq-deploy compare build/swin_digits .ci/baseline --max-drop 1 --max-growth 10 --annotations \
		--html build/compare.html --markdown build/compare.md --junit build/compare.xml

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow

test-docs: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow tests/test_documents.py tests/test_types.py

test-devices: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow tests/calibration/test_other_devices.py tests/calibration/fused tests/benchmarks/test_traffic.py

test-runtime: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow tests/runtime/test_bare_environment.py

test-exports: $(INSTALLED)
	$(BIN)/python tests/reference/export_digests.py
	$(BIN)/python -m pytest -q -m slow tests/export/test_whole_models.py

test-lowest test-newest test-bare: test-%:
	PYTHON=$(PYTHON) tests/environment.sh $*

chaos: $(INSTALLED)
	$(BIN)/python benchmarks/chaos.py

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(INSTALLED)
	$(BIN)/python docs/reference/generate.py

hooks: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pre-commit
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) build

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or newer is needed; name one with make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@
