# make demo     builds examples/hello with Slipway and runs the image
# make test     formatting, lints, licences, all tests
# make bench    compares with BuildKit and buildah; takes half an hour
# make soak     a farm whose machines fail, then the kills and the conformance corpus, again and
#               again, for HOURS (default 1)
# make differential  builds CASES random Dockerfiles (default 1000) by Slipway and by the BuildKit of
#               docker.io, and shows what differs: with 3 to 5 of 100 that one is too old;
#               PEER=--buildah takes buildah instead, or any builder's command line
# make fuzz     feeds parsers and decoders with random input for SECONDS each (default 600)
#
# Two commands, one machine: each target installs what it needs (ops/install). Everything is
# compiled by one profile and with one set of features, so that RocksDB is compiled once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(HOME)/.cargo/bin:$(PATH)
export CARGO_TARGET_DIR ?= $(CURDIR)/target

CARGO := cargo
ALL := --workspace --release --locked
SLIPWAY := $(CARGO_TARGET_DIR)/release/slipway
HOURS ?= 1
CASES ?= 1000
SECONDS_EACH ?= $(or $(SECONDS),600)

.PHONY: help demo test lint licences bench soak differential fuzz build
help:
	@sed -n 's/^# //p;/^$$/q' Makefile

build:
	@ops/install build run
	$(CARGO) build $(ALL)

# With a state directory of its own, which is gone afterwards.
demo:
	@ops/install build run demo
	$(CARGO) build $(ALL)
	@demo=$$(mktemp -d); \
	export SLIPWAY_HOME=$$demo/state; \
	trap '$(SLIPWAY) down --now 2>/dev/null || true; rm -rf $$demo' EXIT; \
	cp -r examples/hello $$demo/hello; \
	cp "$$(command -v busybox)" $$demo/hello/busybox; \
	echo '$$ slipway build -t hello examples/hello'; \
	$(SLIPWAY) build -t hello $$demo/hello; \
	echo '$$ slipway run --rm hello'; \
	$(SLIPWAY) run --rm hello

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings

licences:
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny --locked check licenses bans

# The tests come last: what they say at the end is the result.
test:
	@ops/install build run test
	@command -v cargo-nextest >/dev/null || $(CARGO) install cargo-nextest --locked
	$(MAKE) lint
	$(MAKE) licences
	$(CARGO) build $(ALL) --all-targets
	$(CARGO) test $(ALL) --doc --quiet
	$(CARGO) nextest run $(ALL)

bench:
	@ops/install build run test
	$(CARGO) build $(ALL)
	bench/run

soak:
	@ops/install build run test
	$(CARGO) build $(ALL) --all-targets
	$(CARGO_TARGET_DIR)/release/soak $$(( $(HOURS) * 1800 )) $$(date +%s)
	@end=$$(( $$(date +%s) + $(HOURS) * 1800 )); round=0; \
	while [ $$(date +%s) -lt $$end ]; do \
	    round=$$((round + 1)); echo "Round $$round"; \
	    $(CARGO) nextest run $(ALL) -E 'test(crash) + test(lifetime::) + test(conformance::)'; \
	done

differential:
	@ops/install build run test
	$(CARGO) build $(ALL) --all-targets
	$(CARGO_TARGET_DIR)/release/differential --cases $(CASES) $(PEER)

fuzz:
	@ops/install build
	$(CARGO) run --release --locked -p fuzz -- --seconds $(SECONDS_EACH)
