# `make run` and `make test` are all that a fresh machine needs: they install what is missing.

SHELL := /bin/bash
CARGO ?= cargo
BINARY := target/release/slotwheel
DEMO_DIR ?= /usr/share/doc
# Most tests wait most of their time: for something to be overdue, or to be given up.
AT_ONCE := --test-threads 6
# A package of its own, built beside the program so that what both depend on is built once.
BENCH := --manifest-path bench/Cargo.toml --target-dir target

.PHONY: run build test check otlp chaos model model-long mutants fuzz schemathesis demo figures bench peers pieces profile help

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

run: tools-run build ## Serve on http://127.0.0.1:8080 with a Redis of its own
	exec $(BINARY) serve

build: tools-build ## The release binary, at target/release/slotwheel
	$(CARGO) build --release --locked

test: tools-test ## All tests: on a Redis, on a one-process Cluster, and with every script watched
	$(CARGO) test --locked -- $(AT_ONCE)
	SLOTWHEEL_TEST_ON=cluster $(CARGO) test --locked --test it -- --test-threads 8
	SLOTWHEEL_TEST_ON=shim $(CARGO) test --locked --test it -- $(AT_ONCE)
	$(CARGO) test --release --locked --test simulation
	$(CARGO) test --locked $(BENCH)

otlp: tools-test ## The tests of what joins requests, logs and traces, with a program that can send spans
	$(CARGO) test --locked --features otlp --test it -- tracing::

chaos: tools-test ## Faults by a seed, under load, for SECONDS (60), with SEED (any)
	SLOTWHEEL_CHAOS_SECONDS=$(or $(SECONDS),60) SLOTWHEEL_CHAOS_SEED=$(SEED) \
		$(CARGO) test --locked --test it -- --exact --nocapture chaos::tasks_are_neither_lost_nor_completed_twice_under_faults

model: tools-test ## CASES traces against the reference model; SEED repeats those of a run before
	PROPTEST_CASES=$(or $(CASES),500) $(if $(SEED),PROPTEST_RNG_SEED=$(SEED)) $(CARGO) test --locked --test it -- model

model-long: tools-test ## An hour of random tasks and workers, and the waits measured against those predicted
	SLOTWHEEL_SIMULATION_MINUTES=60 $(CARGO) test --release --locked --test simulation -- --nocapture

mutants: tools-test ## Deliberate faults (ONLY=name: one), each of which a test must catch; ALL=1: by every layer
	ALL=$(ALL) .ci/mutants $(ONLY)

check: tools-check ## Format, lints, docs, dependencies, contract, metrics
	$(CARGO) fmt --check -- src/store/ops/*.rs
	$(CARGO) clippy --locked -- -D warnings
	$(CARGO) clippy --locked --all-targets --features pieces,otlp -- -D warnings
	$(CARGO) fmt --check --manifest-path bench/Cargo.toml
	$(CARGO) clippy --locked --all-targets $(BENCH) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	.ci/dependencies
	.ci/contract
	$(CARGO) build --locked
	.ci/alerts

fuzz: tools-fuzz ## Every fuzz target for SECONDS (20) each; fails on a finding and says where its input is
	.ci/fuzz $(or $(SECONDS),20)

schemathesis: tools-schemathesis ## A server held against openapi.yaml, EXAMPLES (50) requests an operation and more
	$(CARGO) build --locked
	.ci/schemathesis $(or $(EXAMPLES),50)

demo: tools-demo build ## One task per file of DEMO_DIR, three workers in three languages, every digest checked
	examples/demo.sh $(DEMO_DIR)

figures: tools-test ## The figures of docs/figures.md, measured on this machine
	$(CARGO) bench --locked --bench figures -- $(ONLY)

bench: tools-test build peers ## Against peers and the limit: ONLY=b SYSTEMS=slotwheel,ocypod PAIRS=12 SECONDS=3 MORE="--fsync always"
	$(CARGO) build --release --locked $(BENCH)
	target/release/slotwheel-bench $(if $(ONLY),--only $(ONLY)) $(if $(SYSTEMS),--systems $(SYSTEMS)) \
		$(if $(PAIRS),--pairs $(PAIRS)) $(if $(SECONDS),--seconds $(SECONDS)) $(MORE)

pieces: tools-build ## The parts of the way through the server, each on its own (criterion); ONLY=reply: some of them
	$(CARGO) bench --locked --features pieces --bench pieces -- $(ONLY)

profile: tools-profile ## Where the time goes in a server and its Redis under a workload of `make bench`: ONLY=b SECONDS=10
	.ci/profile $(or $(ONLY),b) $(or $(SECONDS),10)

peers: ## Those that the benchmark compares with, where their registries have them; what is missing is told
	bench/peers/install

.PHONY: tools-run tools-build tools-test tools-check tools-fuzz tools-schemathesis tools-demo tools-profile
tools-run: ; @.ci/install rust redis
tools-build: ; @.ci/install rust
tools-test: ; @.ci/install rust redis openssl faketime
tools-check: ; @.ci/install rust redis python node curl promtool
tools-fuzz: ; @.ci/install rust c++
tools-schemathesis: ; @.ci/install rust redis python curl
tools-profile: ; @.ci/install rust redis perf
tools-demo: ; @.ci/install rust redis python node curl
