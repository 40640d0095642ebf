# Everything starts here; `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# Downloads and builds live outside the repository, keyed by version.
export AUTOTLS_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/autotls
VENV := $(AUTOTLS_CACHE)/venv-$(shell cat requirements.lock 2>/dev/null | sha256sum | cut -c1-16)
PYTHON := $(VENV)/bin/python

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-22s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements.lock
	@command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || {
	  echo "installing python3 and python3-venv" >&2; apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3 python3-venv >/dev/null; }
	exec 9>"$(AUTOTLS_CACHE).venv.lock" 2>/dev/null || { mkdir -p "$(AUTOTLS_CACHE)"; exec 9>"$(AUTOTLS_CACHE).venv.lock"; }
	flock 9
	[ -f "$(VENV)/.ready" ] && exit 0
	echo "creating the Python environment (about a minute)" >&2
	mkdir -p "$(AUTOTLS_CACHE)"; rm -rf "$(VENV)"; python3 -m venv "$(VENV)"
	"$(VENV)/bin/pip" install -q --no-deps -r requirements.lock >&2
	touch "$@"

.PHONY: venv venv-path
venv: $(VENV)/.ready ## create the Python environment (cached)
venv-path: venv ## print the folder of the Python environment
	@echo $(VENV)

##### Checks and tests. `make test` is everything; each part can be run alone.

PYTEST := $(PYTHON) -m pytest
FAST := -m 'not apiserver and not envoy and not cluster and not browser'

.PHONY: test-host
test-host: venv
	@$(PYTHON) -m cluster host

.PHONY: lint
lint: test-host ## style, types and who imports whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV)/bin/pyright --pythonpath $(PYTHON) --warnings
	$(VENV)/bin/lint-imports --no-cache
	shellcheck proxy/autotls-* proxy/settings.sh .ci/run

.PHONY: test-unit
test-unit: test-host ## pure parts and fakes; no root, no cluster
	$(PYTEST) $(FAST) -n 2

# A process of its own: Playwright keeps an event loop running in the thread of the tests, beside which no other can.
.PHONY: test-browser
test-browser: test-host ## the dashboard's pages in a real Chromium
	$(PYTEST) -m browser

.PHONY: test-apiserver
test-apiserver: test-host binaries ## against a real kube-apiserver and etcd
	$(PYTEST) -m 'apiserver and not cluster' -n 2

.PHONY: test-envoy
test-envoy: test-host ## the proxy, with the real Envoy in network namespaces of its own (root)
	$(PYTEST) -m envoy -n 2

.PHONY: test-cluster
test-cluster: test-host up ## on the real cluster of `make up`
	$(PYTEST) -m cluster

# The test modules that declare a table; MODULES='tests/cluster/test_x.py' runs those and keeps the others' tables.
.PHONY: results
results: test-host up ## run the cluster tests that record what they see, and write docs/results.md
	@export AUTOTLS_RESULTS=$$(mktemp); trap 'rm -f "$$AUTOTLS_RESULTS"' EXIT
	$(PYTEST) -m cluster $${MODULES:-$$($(PYTHON) -m tests.cluster.results --modules)}
	$(PYTHON) -m tests.cluster.results "$$AUTOTLS_RESULTS"

.PHONY: test
test: lint test-unit test-browser test-apiserver test-envoy test-cluster ## everything
	$(MAKE) down

# A cluster on this machine; CLUSTER=name chooses another than `autotls`.
.PHONY: binaries up down kubeconfig bin load
binaries: venv ## build Kubernetes and the other programs (once; the first `make up` does it too)
	@$(PYTHON) -m cluster binaries
up: venv ## start the cluster with our images, chart and a sample application (BARE=1: images only)
	@$(PYTHON) -m cluster up $(if $(BARE),--bare)
down: venv ## end the cluster and remove everything it made (PURGE=1: its images too)
	@$(PYTHON) -m cluster down $(if $(PURGE),--purge)
kubeconfig: venv ## print the path of the cluster's kubeconfig
	@$(PYTHON) -m cluster kubeconfig
bin: venv ## print a folder with autotls, kubectl, helm and ctr for PATH
	@$(PYTHON) -m cluster bin
load: venv ## import an image into the node: make load ARCHIVE=image.tar
	@$(PYTHON) -m cluster load "$(ARCHIVE)"

.PHONY: manifest
manifest: venv ## render the manifests that `autotls install` uses where there is no helm
	@PATH="$$($(MAKE) -s bin):$$PATH" $(PYTHON) -m cli.manifest

.PHONY: images
images: venv ## build the container images and print their sizes (docker, podman or buildah)
	@$(PYTHON) -m images

##### Recorded admission reviews.

.PHONY: record-fixtures goldens
record-fixtures: venv ## record admission reviews of real API servers, newest and older (builds what is missing)
	@$(PYTHON) -m tests.fixtures.admission.record $(KUBE_VERSIONS)

goldens: venv ## rewrite the golden answers to the recorded reviews; read the diff
	@$(PYTHON) -m tests.fixtures.admission.goldens

# Modules of bench/, in this order. Each ends in bench.budget.report(...): value, baseline of the same run, ratio, budget,
# verdict. A missed budget is printed, never a failure; one table of all of them comes last.
BENCHES := webhook issuance secrets_throughput
BENCHES += mesh proxy_memory discovery
BENCHES += stat
BENCHES += statistics tap
BENCHES += dashboard
BENCHES += pod_start first_connection

.PHONY: bench
bench: up ## every budget next to a baseline of the same run (quiet machine, about 20 minutes)
	@$(PYTHON) -m bench $(BENCHES)
