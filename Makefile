.DEFAULT_GOAL := help
.PHONY: help setup lock check format test test-unit test-long test-images test-gpu fuzz up demo docs screens bench chaos soak
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv, as locked (quick when nothing changed)

$(READY): pyproject.toml requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv; the first time takes a few minutes."
	@# torch by pip, which sees builds of it that uv does not; the rest by uv, three times as fast.
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile \
		--constraint requirements.lock torch uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
		--constraint requirements.lock --editable '.[dev]'
	@touch $@

lock: $(READY) ## Write the exact versions of what is installed now to requirements.lock
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

check: $(READY) ## Lint, types, layers, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m shared.settings_page --check
	$(BIN)/python -m api.reference --check

format: $(READY) ## Format, and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(READY) ## Run every test but those below
	@# Three processes, as much of the time is waiting. In order: what takes longest, tests/e2e, comes first.
	$(BIN)/python -m pytest -m "not gpu and not images and not long" -n 3 --dist loadfile --no-loadscope-reorder

test-unit: $(READY) ## Run the tests that need no service
	$(BIN)/python -m pytest tests/unit

test-long: $(READY) ## Run the tests that take minutes: demo, documents, fuzz, canary, imports, hosts, cache
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile

test-images: $(READY) ## Install what the images install, and run it (minutes at the first time)
	$(BIN)/python -m pytest -m images

test-gpu: $(READY) ## Run the tests that need a GPU
	$(BIN)/python -m pytest -m gpu

fuzz: $(READY) ## Hold the API to its OpenAPI with thousands of requests (FUZZ_EXAMPLES, FUZZ_SEED)
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),100) $(BIN)/python -m pytest tests/fuzz

up: $(READY) ## Start the whole stack on this machine; Ctrl-C stops it
	$(BIN)/lifecycle up

demo: $(READY) ## Watch a model go from a hub to an answer (MODEL=<hub id> for one of your own)
	$(BIN)/lifecycle demo $(if $(MODEL),--model $(MODEL))

docs: $(READY) ## Write the generated documents
	$(BIN)/python -m shared.settings_page
	$(BIN)/python -m api.reference

screens: $(READY) ## Record the terminal again into docs/screens (needs tmux)
	$(BIN)/python -m tests.screens

bench: $(READY) ## Measure throughput beside cp, many files, and ten times too much load
	$(BIN)/python -m benchmarks

soak: $(READY) ## Watch memory and descriptors at half the capacity (MINUTES=30)
	$(BIN)/python -m benchmarks soak $(if $(MINUTES),--minutes $(MINUTES))

chaos: $(READY) ## Let everything fail under load for ten minutes (MINUTES=, SEED=, JOBS=)
	$(BIN)/python -m tests.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(JOBS),--jobs $(JOBS))
