# Everything a newcomer needs: `make demo` and `make test`. Both prepare .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build is enough for everything here. For a GPU: make demo TORCH=torch
TORCH ?= torch==2.13.0
WORKERS ?= 2

.PHONY: install demo test slow lint types wheel studies bench bench-trl assets clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlhf_gym needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/rlhf-gym demo

test: install
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

wheel: install
	$(BIN)/python -m build --wheel --outdir dist .

# Remake the models that come with the package.
assets: install
	$(BIN)/rlhf-gym build-assets --install

# The published figures. All but the first read real data from the folder $RLHF_GYM_DATA.
studies: install
	$(BIN)/rlhf-gym study exact
	$(BIN)/rlhf-gym study reviews
	$(BIN)/rlhf-gym study stories
	$(BIN)/rlhf-gym study human-preferences

# Tests that take minutes each.
slow: install
	$(BIN)/python -m pytest -m slow

bench: install
	$(BIN)/rlhf-gym bench

# TRL 1.12, the last release with a PPO trainer, in an environment of its own.
bench-trl: install .bench-trl/.installed
	$(BIN)/rlhf-gym bench --parts iteration

.bench-trl/.installed:
	$(PYTHON) -m venv .bench-trl
	.bench-trl/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	.bench-trl/bin/python -m pip install --quiet --disable-pip-version-check 'trl==1.12.*'
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
