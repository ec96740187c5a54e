# The task runner: `make` lists the tasks. CI runs the same ones.
#
# Every task sets up what it needs and does it once: Debian packages (asked of apt only when one is missing, by root or
# through sudo), a virtual environment in .venv, and this package in it, editable. Nothing needs an active environment.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= /usr/bin/python3
# With COMPILED=1 every task uses the compiled form (setup.py), in an environment of its own; building that takes 5 minutes.
VENV := .venv$(if $(COMPILED),/compiled)
BIN := $(VENV)/bin
STATE := $(VENV)/state
# A directory in which the checkout has the package's name.
SOURCE := $(VENV)/source

# The program of `make run`, the arguments of `make test` and `make bench`.
CMD ?= /bin/sh -c 'echo hello from a sandbox: uname says; uname -a'
ARGS ?=

RUN_PACKAGES := python3 python3-venv
# What the tests run inside sandboxes, beside what every Debian has.
TEST_PACKAGES := $(RUN_PACKAGES) bash binutils busybox-static bzip2 coreutils dash diffutils findutils gawk gcc git grep gzip inotify-tools \
	libc6-dev make mawk perl procps sed sqlite3 strace tar util-linux xz-utils
# What the compiled form is built with.
BUILD_PACKAGES := $(RUN_PACKAGES) gcc libc6-dev python3-dev
# What the benchmark's programs are made of, and what it compares with.
BENCH_PACKAGES := $(RUN_PACKAGES) findutils gcc git libc6-dev make sqlite3 tar
PEER_PACKAGES := bubblewrap proot runsc strace

# Tests that start a platform in pytest's own process.
ALONE := tests/platform tests/thread_group

# Tests that use sandboxes as everybody does.
OUTSIDE := tests/guest tests/replay tests/supervisor tests/test_packaging.py

.PHONY: help run test test-alone lint format typecheck bench results peers golden vdso setup setup-dev setup-bench clean

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## run CMD in a sandbox: make run CMD="python3 -c 'print(6*7)'"
	@$(BIN)/greenroom run -- $(value CMD)

test: setup-dev ## run every test; ARGS goes to pytest: make test ARGS="-k pipes"
# The platform takes SIGCHLD through a descriptor, which the threads of pytest's workers would get in the way of.
# With COMPILED=1: the tests that look from outside. Others put stand-ins in places where compiled code takes only the real thing.
	$(if $(ARGS)$(COMPILED),,$(MAKE) test-alone)
	$(BIN)/pytest -n auto $(or $(ARGS),$(if $(COMPILED),$(OUTSIDE),$(addprefix --ignore ,$(ALONE))))

test-alone: setup-dev ## run the tests that start platforms themselves
	$(BIN)/pytest $(ALONE)

lint: setup-dev ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup-dev ## fix style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mypy checks what is on its path, not what is installed. SOURCE is in .venv, so that mypy, which looks for modules everywhere below the
# package, does not find it from inside again.
# Tests hand fakes to what they test and take optional values for granted, hence the codes that are off for them.
LENIENT := arg-type comparison-overlap func-returns-value import-untyped misc no-any-return union-attr
typecheck: setup-dev ## check types, of the package and of each folder of tests
	MYPYPATH=$(SOURCE) $(BIN)/mypy -p greenroom
	@for folder in $(sort $(dir $(wildcard tests/*/*.py))); do (echo $$folder; cd $$folder; \
		MYPYPATH=$(CURDIR)/$(SOURCE):.:.. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
			--explicit-package-bases --follow-imports=silent --no-warn-unused-ignores \
			$(addprefix --disable-error-code=,$(LENIENT)) *.py) || exit; done

bench: setup-bench ## measure next to native and to the peers, in 3 minutes; ARGS="--help" has the options
	@$(compile)
	$(BIN)/python -m greenroom.bench $(ARGS)

results: setup-bench ## measure everything, in 12 minutes, and keep it in bench/RESULTS.md; the machine should be quiet
	@$(compile)
	$(BIN)/python -m greenroom.bench --full \
		--json bench/results.json --markdown bench/RESULTS.md --svg bench/results.svg $(ARGS)

peers: setup-bench ## install what the benchmark compares with: Debian's runsc, proot, strace and bubblewrap, PyPI's sandlock
	@$(call need_packages,$(PEER_PACKAGES))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check sandlock

golden: setup-dev ## record the golden traces anew, after a change of what the actors say or ask: look at what changed
	$(BIN)/python tests/replay/record.py

vdso: setup-dev ## make the vDSO's image anew, after a change of its source
	$(MAKE) -C platform/x86_64/vdso

setup: $(STATE)/run
setup-dev: $(STATE)/dev
setup-bench: $(STATE)/bench

ifndef COMPILED

$(STATE)/run: pyproject.toml
	@$(call need_packages,$(RUN_PACKAGES))
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call install_editable,.)
	@$(compile)
	@mkdir -p $(STATE) && touch $@

$(STATE)/dev: pyproject.toml Makefile $(STATE)/run
	@$(call need_packages,$(TEST_PACKAGES))
	@$(call install_editable,'.[dev]')
	@mkdir -p $(STATE) && touch $@

$(STATE)/bench: pyproject.toml Makefile $(STATE)/run
	@$(call need_packages,$(BENCH_PACKAGES))
	@$(call install_editable,'.[bench]')
	@mkdir -p $(STATE) && touch $@

else

# mypyc looks at the types of what greenroom uses; hence first an ordinary installation. What is left in build of an earlier wheel would
# come along in this one.
$(STATE)/run $(STATE)/dev $(STATE)/bench &: pyproject.toml setup.py $(shell find actors config messages platform supervisor -name '*.py')
	@$(call need_packages,$(sort $(BUILD_PACKAGES) $(TEST_PACKAGES) $(BENCH_PACKAGES)))
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call install_editable,'.[bench$(comma)compiled$(comma)dev]')
	rm -rf build
	GREENROOM_COMPILED=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation .
	rm -rf build
	@cd $(VENV)/lib/python3*/site-packages/greenroom && ln -sfn $(CURDIR)/bench bench
	@mkdir -p $(STATE) && touch $(STATE)/run $(STATE)/dev $(STATE)/bench

endif

clean: ## remove what the other tasks made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

comma := ,

# Install those Debian packages of the list that are missing. Elsewhere than on Debian, trust that they are there.
define need_packages
	command -v dpkg-query >/dev/null || exit 0; \
	missing=(); for package in $(1); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing+=($$package); \
	done; \
	[ $${#missing[@]} -gt 0 ] || exit 0; \
	if [ $$(id -u) -eq 0 ]; then as_root=(); else as_root=(sudo); fi; \
	command -v $${as_root[@]:-true} >/dev/null || { \
		echo "these Debian packages are missing: $${missing[*]}; please install them as root" >&2; exit 1; }; \
	$${as_root[@]} apt-get update -q && \
	DEBIAN_FRONTEND=noninteractive $${as_root[@]} apt-get install -qy --no-install-recommends $${missing[@]}
endef

# Where PYTHONDONTWRITEBYTECODE is set, each start would compile again what has changed.
compile = $(BIN)/python -m compileall -q __init__.py __main__.py actors config messages platform supervisor

# Install this package with the requirements of $(1), editable. setuptools does that by an import hook, which takes 13 ms of
# each start of Python; a path in its place takes none.
define install_editable
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable $(1); \
	mkdir -p $(SOURCE); ln -sfn $(CURDIR) $(SOURCE)/greenroom; \
	for file in $(VENV)/lib/python*/site-packages/__editable__.greenroom-*.pth; do \
		echo "$(CURDIR)/$(SOURCE)" >"$$file"; \
	done
endef
