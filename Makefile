# Everything a person needs: make demo | lab | test | check | bench. Each does its own set-up on a fresh Debian or Ubuntu machine.

.PHONY: demo lab test test-native test-guest test-image check format setup setup-test setup-image clean
.DEFAULT_GOAL := help

PY := .venv/bin/python
PACKAGES := tf_reconcile tf_runtime tf_vsphere tf_api tf_controller vcenter_plugin vcenter_manager vrouter_vm tf_cli vrouter_firstboot images lab bench

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Debian packages and .venv
	@tools/setup

setup-test: setup
	@tools/setup test

setup-image: setup
	@tools/setup image

build/vcsim: $(wildcard vcsim/*.go) vcsim/go.mod vcsim/go.sum | setup
	cd vcsim && ../tools/go build -o ../build/vcsim .

build/gobgpd: tools/gobgpd $(wildcard speaker/go.* speaker/*.patch) | setup
	tools/gobgpd

demo: setup build/vcsim build/gobgpd  ## bring the lab up from nothing, show the job being done, end with a verdict
	$(PY) -m lab demo

lab: setup build/vcsim build/gobgpd  ## bring the lab up and leave it running with a shell to look around
	$(PY) -m lab shell

test: test-native test-guest  ## every test: unit, property, golden, contract, Go; kernel and end to end

# Half of what these tests take is waiting.
WORKERS := $(shell echo $$((2 * $$(nproc))))

test-native: setup-test build/vcsim build/gobgpd
	cd vcsim && ../tools/go test ./...
	$(PY) -m pytest -q -n $(WORKERS) --dist loadfile -m "not kernel and not e2e and not e2e_image"

test-guest: setup-test build/vcsim build/gobgpd
	$(PY) -m lab test

test-image: setup-image build/vcsim build/gobgpd  ## the vRouter VM as an image, on a Debian base, booted in QEMU
	$(PY) -m pytest -q -m e2e_image

check: setup  ## format, lint, types, import rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy $(PACKAGES) tests
	.venv/bin/lint-imports
	@unformatted=$$(cd vcsim && ../tools/go run cmd/gofmt -l .) && \
	    { [ -z "$$unformatted" ] || { echo "not gofmt'ed: $$unformatted"; exit 1; }; }
	cd vcsim && ../tools/go vet ./...

format: setup  ## rewrite the sources in the project's format
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean:  ## what was built here (not .venv, not the kernel in .cache)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
