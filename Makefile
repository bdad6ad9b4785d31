# Every target sets up what it needs; nothing here depends on an activated environment.
unexport VIRTUAL_ENV
export UV_PYTHON_DOWNLOADS := never
# The system's certificates where there are any: an authority that the owner of the machine added counts too.
export UV_SYSTEM_CERTS := $(if $(wildcard /etc/ssl/certs/ca-certificates.crt),true,false)
BIN := .venv/bin
# The distribution's interpreter if it will do: it is built with profile-guided optimisation, and serves 10 % cheaper here
# than one built plainly.
PYTHON ?= $(firstword $(shell for python in /usr/bin/python3 python3; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python; done) python3)

.DEFAULT_GOAL := help
.PHONY: help setup compiled demo test test-kube kube-tools check style types arch bench profile bench-docs faults soak fuzz faults-docs image docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.synced ## .venv with exactly what uv.lock says

.venv/.synced: pyproject.toml uv.lock
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; }
	$(BIN)/uv sync --locked --quiet --python $(BIN)/python && touch $@

compiled: setup ## the modules that requests pass, in C: half the CPU time; without a compiler the proxy runs as Python
	$(BIN)/python hatch_build.py

demo: setup ## two versions, the proxy, a rollout and simulated users; Ctrl-C ends all of it
	$(BIN)/cohort demo

test: setup ## what CI runs, in several processes; ARGS="-k name" narrows it, in one
	sh tests/support/components.sh
	$(MAKE) --no-print-directory -j2 check compiled
	$(BIN)/python -m pytest $(or $(ARGS),-p tests.beside)

test-kube: setup ## tests/kube on a real API server; builds its programs first, 10 minutes once
	sh tests/support/components.sh
	$(BIN)/python -m tests.kube.tools
	$(BIN)/python -m pytest tests/kube $(ARGS)

kube-tools: setup ## etcd, API server, controller manager, kubectl and Helm from their Go modules; what is there stays
	$(BIN)/python -m tests.kube.tools

check: style types arch ## all that needs no test run

style: setup ## formatting and lint
	$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	$(BIN)/ruff check --quiet .

types: setup ## mypy --strict
	$(BIN)/mypy

arch: setup ## who may import whom
	$(BIN)/lint-imports --no-logo

bench: setup ## what a request costs, beside nginx, HAProxy, Envoy and Caddy; ARGS="--help"
	sh tests/support/components.sh
	$(MAKE) --no-print-directory compiled
	$(BIN)/python -m tests.bench $(ARGS)

profile: setup ## where the microseconds of a request go: phases, and profile/flame.svg
	sh tests/support/components.sh
	$(MAKE) --no-print-directory compiled
	$(BIN)/python -m tests.bench.profile $(ARGS)

bench-docs: setup ## docs/performance.md from the last result
	$(BIN)/python -m tests.bench.render

faults: setup ## every fault at full length, an hour; writes tests/faults/results/; ARGS="F03 --short" narrows it
	sh tests/support/components.sh
	$(BIN)/python -m tests.faults --save $(ARGS)

soak: setup ## F33: hours of load with faults at random, not in CI; HOURS=8
	$(BIN)/python -m tests.faults.soak --hours $(or $(HOURS),8)

fuzz: setup ## bytes that nobody knows the right answer to, for FOR=600 seconds; SEED=1 repeats a search
	$(BIN)/python -m tests.wire --mutate $(or $(FOR),600) $(if $(SEED),--seed $(SEED))

faults-docs: setup ## docs/reliability.md from the last results
	$(BIN)/python -m tests.faults.render

image: setup ## the image, built and started without a container runtime; writes tests/image/results/
	sh tests/support/components.sh
	$(BIN)/python -m tests.image
	$(BIN)/python -m tests.image.render

docs: bench-docs faults-docs ## every generated page
	$(BIN)/python -m tests.docs

clean: ## all that is not under version control
	rm -rf .venv dist profile proxy/_compiled .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
