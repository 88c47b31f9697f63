# Thin names for what people and CI run. `make demo` and `make test` set up all that they need themselves.
# Caches live outside the tree: $ONPREM_LLM_CACHE, ~/.cache/onprem-llm by default.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export ONPREM_LLM_CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/onprem-llm
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup tools engine images demo demo-down test test-system test-faults test-driver check format molecule bench-% clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(VENV)/.done ## Make the virtual environment

$(VENV)/.done: pyproject.toml
	@sh tests/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $@

engine: ## Install and start a docker engine where none answers
	@sh images/ensure-engine.sh

images: setup engine ## Build the images and the tiny model (a second run takes seconds)
	@sh images/build.sh

demo: setup engine ## From nothing to a chat on two rehearsal hosts; OFFLINE=1: through a bundle, with no way out
	@sh examples/demo.sh

demo-down: setup ## Remove what the demo made
	@onprem-llm lab down --name demo

check: setup ## Lint, types, unit, contract and golden tests, in under a minute
	@python -m tests.stages check

test: setup ## Everything, real parts included
	@python -m tests.stages test

test-system: setup ## Updates under load on real vLLM; ONLY=NAME for one scenario, RESUME=1 for those not passed yet
	@python -m tests.stages system

test-faults: setup ## Every fault: bad input, kills, full disks, hosts that die; ONLY and RESUME as above
	@python -m tests.stages faults

test-driver: setup ## A GPU driver: really built on Debian, stand-ins as Ubuntu and Rocky Linux; the container toolkit; ONLY and RESUME as above
	@python -m tests.stages driver

format: setup ## Format the Python code
	@ruff format . && ruff check --fix .

bench-%: setup ## Run one benchmark, e.g. make bench-cli-latency
	@python benchmarks/$(subst -,_,$*).py $(ARGS)
