# `make run` starts the registry, `make test` tests it; `make help` lists the rest.
#
# Everything Python lives in .venv, which every target brings up to date first (tools/prepare_venv.py).

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
MINUTES ?= 10
WORKERS ?= 3

# Tests in parallel (arguments: the database, the selection, more environment). Tests marked `serial` measure time or
# memory, so they run alone, last, and are in one folder, because collecting all tests takes long. With ARGS a selection may be empty (exit code 5), which is no failure then.
define run_tests
	$(3) TEST_DATABASE=$(1) $(PYTEST) -n $(WORKERS) -m "not serial and $(2)" $(ARGS) || [ $$? -eq $(EMPTY_IS_FINE) ]
endef
define run_serial_tests
	TEST_DATABASE=$(1) $(PYTEST) $(SERIAL_TESTS) -m "serial and $(2)" $(ARGS) || [ $$? -eq $(EMPTY_IS_FINE) ]
endef
PYTEST := $(BIN)/pytest --durations=10
SERIAL_TESTS := $(if $(ARGS),,tests/integration/data)
EMPTY_IS_FINE := $(if $(ARGS),5,0)
OF_THE_PRODUCT := not clients and not production

# The parallel tests create and delete hundreds of thousands of files: in memory, if 4 GB can be taken of 8 free ones.
IN_MEMORY := $(shell { df -k /dev/shm; cat /proc/meminfo; } 2>/dev/null | awk '$$6 == "/dev/shm" { room = $$4 } \
	/^MemAvailable:/ && room > 4000000 && $$2 > 8000000 { print "TMPDIR=/dev/shm" }')

# How both requirements files are made. `make lock ARGS=--upgrade` takes newer versions. Extras stay in it: pip
# before 23.3, which comes with Python 3.11, takes `a[b]` for pinned only where it is listed so.
COMPILE := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-strip-extras --no-emit-index-url --no-emit-find-links $(ARGS)

# Commands that look at the code must not touch the data in var/.
MANAGE := REGISTRY_STATE_DIR=.venv/scratch $(BIN)/python manage.py

# The tests of tests/integration/growth, on as many rows as a big registry has.
GROWN := GROWTH_MANIFESTS=1000000 $(BIN)/pytest --timeout=3600 tests/integration/growth

# Without cached bytecode every process compiles all sources again: a start takes twice the time, and so does the
# collection of the tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test check clients production conformance bench growth soak tools openapi oci-coverage lock clean venv venv-dev

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: venv ## Start the registry with its data in var/ (settings: README.md)
	@exec $(BIN)/python manage.py up

test: venv-dev ## Run the tests, on SQLite and then on PostgreSQL with Redis
	$(call run_tests,sqlite,$(OF_THE_PRODUCT),$(IN_MEMORY))
	$(call run_tests,postgresql,$(OF_THE_PRODUCT) and not database_independent,$(IN_MEMORY))
	$(call run_serial_tests,sqlite,$(OF_THE_PRODUCT))
	$(call run_serial_tests,postgresql,$(OF_THE_PRODUCT) and not database_independent)

check: venv-dev ## Check style, types, imports, migrations and the API description
	@! git ls-files --cached --ignored --exclude-standard | grep . || { echo "these files are ignored, but in the repository"; exit 1; }
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	REGISTRY_STATE_DIR=.venv/scratch $(BIN)/mypy
	$(BIN)/lint-imports
	$(MANAGE) check
	$(MANAGE) makemigrations --check --dry-run
	$(MANAGE) spectacular --validate --fail-on-warn --file .venv/openapi.yaml
	@diff -u docs/openapi.yaml .venv/openapi.yaml || { echo "docs/openapi.yaml is old: run make openapi"; exit 1; }

clients: venv-dev ## Run the tests that drive docker and other clients (first: make tools)
	$(call run_tests,sqlite,clients)

production: venv-dev ## Run several nodes from requirements.txt alone, and deploy/compose (first: make tools)
	$(PYTEST) -n $(WORKERS) --dist loadfile -m production tests/production $(ARGS)

conformance: venv-dev ## Install the official suite of the OCI specification (needs go) and run it, on disk and MinIO
	@tools/install.sh conformance minio
	$(BIN)/pytest -m clients tests/conformance $(ARGS)

bench: venv-dev tools ## Compare the speed with other registries; ARGS=--quick takes minutes, ARGS=--help lists the rest
	$(BIN)/python -m bench $(ARGS)

growth: venv-dev ## Fill databases with a million manifests: queries, plans, times (ARGS=--help)
	TEST_DATABASE=sqlite $(GROWN)
	TEST_DATABASE=postgresql $(GROWN)
	$(BIN)/python -m bench.growth $(ARGS)

soak: venv-dev ## Kill and cut while 64 clients push, pull and delete, then look at every promise; MINUTES=10 (ARGS=--help)
	$(BIN)/python -m bench.soak --minutes $(MINUTES) $(ARGS)

tools: ## Install the programs that `make clients` and `make bench` need (as root)
	@tools/install.sh

openapi: venv-dev ## Write docs/openapi.yaml from the code
	$(MANAGE) spectacular --validate --fail-on-warn --file docs/openapi.yaml

oci-coverage: venv-dev ## Write docs/oci-coverage.md from the checklist and the tests' markers
	$(BIN)/python -m tools.oci_coverage

lock: venv-dev ## Choose versions for pyproject.toml anew, with hashes
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) -c requirements.txt pyproject.toml --group dev -o requirements-dev.txt

clean: ## Remove .venv and caches; the data in var/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov .coverage .coverage.*
	find registry_control registry_data tests -name __pycache__ -prune -exec rm -rf {} +

venv:
	@$(PYTHON) tools/prepare_venv.py requirements.txt

venv-dev:
	@$(PYTHON) tools/prepare_venv.py requirements-dev.txt
