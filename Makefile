# Both README commands set up what they need, then do the job: `make discover`, `make test`.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" --numprocesses logical --maxprocesses 4

FACE := tests/cli tests/test_docs.py tests/test_pages.py tests/test_extending.py

.PHONY: discover test slow lint docs clean

discover: .venv/installed
	$(BIN)/circuit discover ioi

# Shapes are checked in the library's own tests; the command line is tested as it runs at a user's.
test: lint
	$(PYTEST) $(addprefix --ignore ,$(FACE))
	$(PYTEST) $(FACE) --override-ini addopts="-q --strict-markers"

slow: .venv/tools
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

# Tables, outputs and pictures of the pages, made anew by the commands that the pages show.
docs: .venv/tools
	$(BIN)/python docs/remake.py

lint: .venv/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "circuit needs Python 3.11 or newer; make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/tools: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
