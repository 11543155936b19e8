# A fresh machine needs Python 3.11 or later, git and make; everything else comes into .venv.
PYTHON ?= python3
WORKERS ?= auto
TESTS ?= tests
SOAK_MINUTES ?= 10
SOAK_ROUNDS ?= 200
FUZZ_SECONDS ?= 60
SOAK_SEED ?=
DEMO_FLAGS ?=
BENCH_FLAGS ?=
LOCK_FLAGS ?=
WORDS ?=

VENV := .venv
OLDEST := .venv-oldest
# Benchmarks use the distribution's Python, as the package does, where it can make an environment.
BENCH := .venv-bench
LOCK := .venv-lock
DISTRIBUTION = $(shell /usr/bin/python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo python3)
# Quick tests come first, then the slow ones, then the others (conftest.py); one at a time keeps that order over the workers.
PYTEST := python -m pytest --numprocesses $(WORKERS) --maxschedchunk 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two targets may fill the same environment.
.NOTPARALLEL:
.PHONY: help demo test test-faults test-system prove mutants soak fuzz test-oldest bench bench-quick bench-micro bench-curves check deb lock audit format clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

demo: $(VENV)/.demo ## watch files travel from one directory into another, through an emulated AWS on this machine
	@$(VENV)/bin/syncloud demo $(DEMO_FLAGS)

test: $(VENV)/.test ## every test that needs no root (TESTS=tests/test_x.py for some of them)
	@$(VENV)/bin/$(PYTEST) $(TESTS)

prove: $(VENV)/.test ## the proofs of docs/SEMANTICS.md at full length (half an hour)
	@PROOFS=full $(VENV)/bin/python -m pytest -v tests/integration/test_proofs.py

test-faults: $(VENV)/.test ## every fault of docs/RELIABILITY.md, injected (PART=4 SEED=x for one in four of them)
	@$(VENV)/bin/$(PYTEST) tests/faults

test-system: $(VENV)/.test ## the package on a booted Debian 13 (root; mmdebstrap, systemd-container)
	@PACKAGE=$$(packaging/bin/build --twice --lintian) && export PACKAGE && \
		$(VENV)/bin/python -m pytest --numprocesses 4 --maxschedchunk 1 tests/system

mutants: $(VENV)/.test ## remove one defence after the other from a copy; a test must fail each time (WORDS="watch s3" for some)
	@$(VENV)/bin/python -m tests.mutants $(WORDS)

soak: $(VENV)/.test ## every fault at once for ten minutes, then 200 rounds of large files (SOAK_MINUTES=60 SOAK_ROUNDS=50 SOAK_SEED=word)
	@$(VENV)/bin/python -m tests.soak --minutes $(SOAK_MINUTES) --seed "$(SOAK_SEED)"
	@$(VENV)/bin/python -m tests.soak.rounds --rounds $(SOAK_ROUNDS) --seed "$(SOAK_SEED)"

fuzz: $(VENV)/.fuzz ## random foreign input, guided by coverage (FUZZ_SECONDS=600 for each of four targets)
	@$(VENV)/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

test-oldest: $(OLDEST)/.test ## the tests but the slow ones, with the oldest libraries supported (Debian 13's)
	@$(OLDEST)/bin/$(PYTEST) -m "not slow" $(TESTS)

bench: $(BENCH)/.bench ## syncloud beside its peers: every bar, into docs/BENCHMARKS.md (an hour; BENCH_FLAGS='--work DIR' for another disk)
	@$(BENCH)/bin/python -m benchmarks.peers
	@$(BENCH)/bin/python -m benchmarks bars --rounds 5 --write $(BENCH_FLAGS)

bench-quick: $(BENCH)/.bench ## the most important bars in three minutes
	@$(BENCH)/bin/python -m benchmarks.peers
	@$(BENCH)/bin/python -m benchmarks quick $(BENCH_FLAGS)

bench-micro: $(BENCH)/.bench ## instructions of the inner loops (perf, or valgrind)
	@$(BENCH)/bin/python -m benchmarks micro $(BENCH_FLAGS)

bench-curves: $(BENCH)/.bench ## how time and memory grow, drawn into docs/benchmarks/ (35 minutes; 60 GB of disk for the largest file)
	@$(BENCH)/bin/python -m benchmarks curves $(BENCH_FLAGS)

deb: ## build dist/syncloud_VERSION_all.deb, twice, byte for byte the same, and let lintian read it
	@packaging/bin/build --twice --lintian

check: $(VENV)/.dev ## lint, format and types
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy

# What comes into an environment is named with its hashes: a package that was exchanged on its way, or in the index, is refused.
# All platforms and all Pythons from 3.11 on share a file; setup.cfg's lower bounds are for those who install the package.
RESOLVE = $(LOCK)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' $(LOCK_FLAGS)

lock: $(LOCK)/.lock ## resolve requirements/ anew; fitting versions stay (LOCK_FLAGS=--upgrade for the newest)
	@sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | $(RESOLVE) --output-file requirements/build.txt - >/dev/null
	@for extra in demo test fuzz bench dev lock; do \
		$(RESOLVE) --extra $$extra --output-file requirements/$$extra.txt setup.cfg >/dev/null || exit 1; done
	@$(RESOLVE) --extra test --constraint tests/oldest.txt --output-file requirements/oldest.txt setup.cfg >/dev/null

audit: $(LOCK)/.lock ## ask OSV (api.osv.dev) for advisories about every version in requirements/
	@for file in requirements/*.txt; do echo "$$file"; \
		$(LOCK)/bin/pip-audit --vulnerability-service osv --disable-pip --require-hashes --requirement $$file || exit 1; done

format: $(VENV)/.dev ## bring the code into the form that check wants
	@$(VENV)/bin/ruff check --fix
	@$(VENV)/bin/ruff format

clean: ## remove the environments and the caches
	rm -rf $(VENV) $(OLDEST) $(BENCH) $(LOCK) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

SILENT := --quiet --quiet --disable-pip-version-check

# $(call environment,DIRECTORY,FILE,STAMPS): everything in requirements/FILE.txt, and the checkout itself. The stamps are missing
# while pip works, so that an environment whose making was interrupted is made again; so is one whose Python has gone. Builds
# are not isolated: pip would fetch their requirements without a hash.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "syncloud needs Python 3.11 or later; name one: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "This Python cannot make virtual environments; on Debian: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(1) ($(2)); the first time takes a minute." >&2
	@if ! { [ -e $(1)/.whole ] && $(1)/bin/python -m pip --version; } >/dev/null 2>&1; then \
		rm -rf $(1) && $(PYTHON) -m venv $(1); fi
	@rm -f $(addprefix $(1)/,.whole .demo .test .fuzz .bench .dev .lock)
	@$(1)/bin/python -m pip install $(SILENT) --no-build-isolation --require-hashes --requirement requirements/build.txt
	@$(1)/bin/python -m pip install $(SILENT) --no-build-isolation --require-hashes --requirement requirements/$(2).txt
	@$(1)/bin/python -m pip install $(SILENT) --no-build-isolation --no-deps --editable .
	@touch $(1)/.whole $(addprefix $(1)/,$(3))
endef

SOURCES := setup.cfg pyproject.toml requirements/build.txt

$(VENV)/.demo: $(SOURCES) requirements/demo.txt
	$(call environment,$(VENV),demo,.demo)

$(VENV)/.test: $(SOURCES) requirements/test.txt
	$(call environment,$(VENV),test,.demo .test)

$(VENV)/.fuzz: $(SOURCES) requirements/fuzz.txt
	$(call environment,$(VENV),fuzz,.demo .test .fuzz)

$(BENCH)/.bench: PYTHON = $(DISTRIBUTION)
$(BENCH)/.bench: $(SOURCES) requirements/bench.txt
	$(call environment,$(BENCH),bench,.bench)

$(VENV)/.dev: $(SOURCES) requirements/dev.txt
	$(call environment,$(VENV),dev,.demo .test .dev)

$(OLDEST)/.test: $(SOURCES) requirements/oldest.txt
	$(call environment,$(OLDEST),oldest,.test)

$(LOCK)/.lock: $(SOURCES) requirements/lock.txt
	$(call environment,$(LOCK),lock,.lock)
