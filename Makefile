# On a new machine, start with `make run` or `make test`: both install missing tools.

SHELL := /bin/bash
CARGO ?= cargo
BINARY := target/release/slotwheel
DEMO_DIR ?= /usr/share/doc
# Most tests mostly wait for due times and timeouts, so more threads than processors pay off.
AT_ONCE := --test-threads 6
# The benchmark is a separate package. It shares the target directory, so that common dependencies are built once.
BENCH := --manifest-path bench/Cargo.toml --target-dir target

.PHONY: run build test check otlp chaos model model-long mutants fuzz schemathesis demo sdk-check events-check figures bench peers pieces profile help

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

run: tools-run build ## Start a server on http://127.0.0.1:8080 with its embedded Redis
	exec $(BINARY) serve

build: tools-build ## Build the release binary, target/release/slotwheel
	$(CARGO) build --release --locked

test: tools-test ## Run all tests: on a Redis, on a one-process Cluster, and with the script checker
	$(CARGO) test --locked -- $(AT_ONCE)
	SLOTWHEEL_TEST_ON=cluster $(CARGO) test --locked --test it -- --test-threads 8
	SLOTWHEEL_TEST_ON=shim $(CARGO) test --locked --test it -- $(AT_ONCE)
	$(CARGO) test --release --locked --test simulation
	$(CARGO) test --locked $(BENCH)

otlp: tools-test ## Run the tracing tests with a program that can send spans
	$(CARGO) test --locked --features otlp --test it -- tracing::

chaos: tools-test ## Inject random faults under load for SECONDS (60), with SEED (random)
	SLOTWHEEL_CHAOS_SECONDS=$(or $(SECONDS),60) SLOTWHEEL_CHAOS_SEED=$(SEED) \
		$(CARGO) test --locked --test it -- --exact --nocapture chaos::tasks_are_neither_lost_nor_completed_twice_under_faults

model: tools-test ## Compare CASES (500) request sequences with the reference model; SEED repeats a run
	PROPTEST_CASES=$(or $(CASES),500) $(if $(SEED),PROPTEST_RNG_SEED=$(SEED)) $(CARGO) test --locked --test it -- model

model-long: tools-test ## Simulate an hour of random tasks and workers, and compare measured with predicted waits
	SLOTWHEEL_SIMULATION_MINUTES=60 $(CARGO) test --release --locked --test simulation -- --nocapture

mutants: tools-test ## Apply each deliberate fault (ONLY=name: one) and require a failing test; ALL=1: run every layer
	ALL=$(ALL) .ci/mutants $(ONLY)

check: tools-check ## Check format, lints, docs, dependencies, contract and metrics
	$(CARGO) fmt --check -- src/store/ops/*.rs
	$(CARGO) clippy --locked -- -D warnings
	$(CARGO) clippy --locked --all-targets --features pieces,otlp -- -D warnings
	$(CARGO) clippy --locked --test simulation -- -D warnings
	$(CARGO) fmt --check --manifest-path bench/Cargo.toml
	$(CARGO) clippy --locked --all-targets $(BENCH) -- -D warnings
	$(CARGO) tree --quiet --locked --manifest-path fuzz/Cargo.toml > /dev/null
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	.ci/dependencies
	.ci/contract
	$(CARGO) build --locked
	.ci/alerts

fuzz: tools-fuzz ## Run each fuzz target for SECONDS (20); a finding fails the run and prints the path of its input
	.ci/fuzz $(or $(SECONDS),20)

schemathesis: tools-schemathesis ## Test a server against openapi.yaml with EXAMPLES (50) requests per operation
	$(CARGO) build --locked
	.ci/schemathesis $(or $(EXAMPLES),50)

sdk-check: ## Generate clients from openapi.yaml, compile them, and drain a queue with each; ONLY="ogen python": some of them
	@.ci/install rust redis python go $(if $(ONLY),,node java maven)
	sdk-check/run $(ONLY)

events-check: ## Listen to /events with foreign clients, while connections, a server and Redis fail; ONLY=r3labs: one of them
	@.ci/install rust redis python $(if $(ONLY),,node go)
	$(CARGO) build --locked
	events-check/run $(ONLY)

demo: tools-demo build ## Process each file of DEMO_DIR by workers in three languages, and verify every digest
	examples/demo.sh $(DEMO_DIR)

figures: tools-test ## Measure the figures of docs/figures.md on this machine
	$(CARGO) bench --locked --bench figures -- $(ONLY)

bench: tools-test build peers ## Compare with peers and the limit: ONLY=b SYSTEMS=slotwheel,ocypod PAIRS=12 SECONDS=3 MORE="--fsync always"
	$(CARGO) build --release --locked $(BENCH)
	target/release/slotwheel-bench $(if $(ONLY),--only $(ONLY)) $(if $(SYSTEMS),--systems $(SYSTEMS)) \
		$(if $(PAIRS),--pairs $(PAIRS)) $(if $(SECONDS),--seconds $(SECONDS)) $(MORE)

pieces: tools-build ## Benchmark single steps of a request (criterion); ONLY=reply: some of them
	$(CARGO) bench --locked --features pieces --bench pieces -- $(ONLY)

profile: tools-profile ## Profile a server and its Redis under a workload of `make bench`: ONLY=b SECONDS=10
	.ci/profile $(or $(ONLY),b) $(or $(SECONDS),10)

peers: ## Install the benchmark's peers from their registries, and list the missing ones
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
