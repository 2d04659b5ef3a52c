# Everything a developer types. `make help` lists it; the work is done by the scripts in scripts/.

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick check soak docs format screenshots clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup:  ## make or update .venv with the plugin, napari and the development tools
	@bash scripts/setup.sh

demo: setup  ## open the demonstration
	.venv/bin/python -m napari_unetvnet demo

test: setup  ## all checks and all tests
	@bash scripts/check.sh all

quick: setup  ## all checks and the tests that take seconds
	@bash scripts/check.sh quick

check: setup  ## the checks that run no test: ruff, mypy, lint-imports, structure, npe2
	@bash scripts/check.sh static

soak: setup  ## damage, interrupt and overload the program for 40 minutes; figures in benchmarks/soak.md
	OMP_NUM_THREADS=1 .venv/bin/python benchmarks/soak.py

docs: setup  ## regenerate the pages that are made from the code (docs/reference/)
	.venv/bin/python scripts/reference.py

format: setup  ## put every file into ruff's form and fix what it can fix
	.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

screenshots: setup  ## make the figures of the docs anew
	bash scripts/with_display.sh .venv/bin/python scripts/screenshots.py

clean:  ## remove caches and builds (.venv stays; to make it anew: rm -rf .venv && make setup)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
