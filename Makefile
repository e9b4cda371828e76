# Short names for what people run often. `make` lists them.
# Every target builds with the same package selection: cargo chooses features by selection, so another one would build
# the dependencies again. The feature `postgres-wire` changes two packages and no dependency: lints and documentation have it, so
# that they see all there is, tests and binaries do not, but for those of `check-postgres-wire`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
DEV_DIR := $(or $(KARAT_DEV_DIR),target/dev)
LAKE ?= data/lake
URL ?= http://127.0.0.1:8080
MINUTES ?= 2
# Parts of the end-to-end suite and of the contract of the log that need no service: they are left to `make test`.
WITHOUT_SERVICES := accounts bad_input canary chaos clock consent crash dashboard demo disk epochs failing_calls flood fsck matrix memory openapi \
  observed power replay settings shell stop vitals embedded kill

.PHONY: help check fetch test chaos soak test-services check-demo check-openapi check-slow check-sockets check-browser check-postgres-wire schemathesis lint fmt doc bench demo read-tables check-buckets coverage clean-dev

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check: ## Compiles everything without linking it
	$(CARGO) check --workspace --all-targets --locked

fetch: ## Fetches what the services and the scripts in dev/ need from elsewhere, once
	dev/services.sh fetch
	dev/kafka.sh fetch
	dev/engines.sh >/dev/null
	dev/schemathesis.sh fetch
	dev/check-browser.sh fetch
	dev/check-postgres-wire.sh fetch

test: ## Runs every test that needs no service
	$(CARGO) test --workspace --locked

chaos: ## Faults under load for MINUTES=2, from SEED if given, with LOG=embedded or kafka, or LAKE=s3; prints a table
	$(if $(filter kafka,$(LOG)),trap 'dev/kafka.sh stop' EXIT;) \
	$(if $(filter s3,$(LAKE)),trap 'dev/services.sh stop' EXIT; bucket=$$(dev/services.sh start s3); export $$bucket;) \
	KARAT_CHAOS_MINUTES=$(MINUTES) $(if $(SEED),KARAT_SEED=$(SEED)) $(if $(ONLY),KARAT_CHAOS_ONLY=$(ONLY)) \
	  $(CARGO) test --workspace --locked --test end_to_end -- --include-ignored --nocapture --exact \
	  $(if $(filter s3,$(LAKE)),on_s3::failing_requests_lose_and_double_nothing,$(if \
	    $(filter kafka,$(LOG)),chaos_on_kafka::chaos_on_kafka,chaos::chaos))

soak: ## Nine commits of bronze a second beside maintenance for MINUTES=2; prints what must stay flat
	KARAT_SOAK_MINUTES=$(MINUTES) \
	  $(CARGO) test --workspace --locked --test end_to_end -- --ignored --nocapture --exact soak::soak

test-services: ## Starts real services, runs on them what can run on them, stops them
	@trap 'dev/kafka.sh stop; dev/services.sh stop' EXIT; \
	services=$$(dev/services.sh start); \
	export $$services; \
	postgres=$${KARAT_TEST_POSTGRES:?services.sh gave no address} mysql=$${KARAT_TEST_MYSQL:?services.sh gave no address}; \
	unset KARAT_TEST_POSTGRES KARAT_TEST_MYSQL; \
	echo "testing limits on Redis" >&2; \
	$(CARGO) test --workspace --locked --test http -- limits:: rates::; \
	echo "testing the accounts on PostgreSQL, with mail and providers" >&2; \
	KARAT_TEST_POSTGRES=$$postgres $(CARGO) test --workspace --locked --test access; \
	KARAT_TEST_POSTGRES=$$postgres $(CARGO) test --workspace --locked --lib -- auth::tests::; \
	echo "testing the accounts on MariaDB, with mail and providers" >&2; \
	KARAT_TEST_MYSQL=$$mysql $(CARGO) test --workspace --locked --test access; \
	KARAT_TEST_MYSQL=$$mysql $(CARGO) test --workspace --locked --lib -- auth::tests::; \
	echo "asking a server on SQLite what its API document allows" >&2; \
	$(CARGO) build --workspace --bin karat --locked; \
	dev/schemathesis.sh; \
	echo "using passkeys and pages in a browser" >&2; \
	dev/check-browser.sh; \
	broker=$$(dev/kafka.sh start); \
	export "$$broker"; \
	echo "testing on Kafka at $${KARAT_TEST_KAFKA:?kafka.sh gave no address}, with a lake on disk and on S3" >&2; \
	$(CARGO) test --workspace --locked --test contract --test end_to_end --test on_s3 -- \
	  --skip an_embedded_log_ $(foreach part,$(WITHOUT_SERVICES),--skip $(part)::)

coverage: ## Lines of accounts and access that the tests run, file by file; fails below 90 of 100, of all and of api/src/auth (needs cargo-llvm-cov)
	dev/coverage.sh

check-demo: ## Runs the demo, verifies its tables, compares them and the summaries with delta-rs, Polars and DuckDB
	$(CARGO) build --workspace --bin karat --locked
	dev/check-demo.sh

check-openapi: ## Compares openapi.json with that of the last release, or of BASE=main; fails on what breaks clients and is not in docs/openapi-breaks.txt
	dev/check-openapi.sh $(BASE)

check-slow: ## Runs slow clients and idle sockets against the demo, and asks meanwhile for its health (needs slowhttptest)
	$(CARGO) build --workspace --bin karat --locked
	dev/check-slow.sh

check-sockets: ## Runs clients from npm (ws, eventsource) against the WebSockets and the stream of events of the demo (needs Node.js)
	$(CARGO) build --workspace --bin karat --locked
	dev/check-sockets.sh

check-browser: ## Uses passkeys, the dashboard and the reference pages of the demo in Chromium (needs Node.js and Chromium)
	$(CARGO) build --workspace --bin karat --locked
	dev/check-browser.sh

# It leaves the binary with the port; every target that needs the usual one builds it, which links it anew and no more.
check-postgres-wire: ## Builds the PostgreSQL port, runs its tests, and asks the demo with psql and psycopg (needs psql and openssl)
	$(CARGO) build --workspace --bin karat --locked --features postgres-wire
	$(CARGO) test --workspace --locked --features postgres-wire --lib --test serving -- wire::
	dev/check-postgres-wire.sh

schemathesis: ## Asks a server with the sample data what its API document allows, for some minutes; SEED=5 for the same questions
	$(CARGO) build --workspace --bin karat --locked
	$(if $(SEED),KARAT_SEED=$(SEED)) dev/schemathesis.sh

lint: ## Formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked --features postgres-wire -- -D warnings

fmt: ## Formats the code
	$(CARGO) fmt --all

doc: ## Builds the API documentation of the crates, warnings are errors
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --locked --features postgres-wire

bench: ## Runs every benchmark in release mode and prints a table (benches/README.md)
	benches/run.sh

demo: ## Runs everything in one process, with the sample data
	$(CARGO) run --locked -- up --demo

read-tables: ## Compares the tables in LAKE=data/lake between delta-rs, Polars and DuckDB
	dev/read-tables.sh $(LAKE)

check-buckets: ## Compares the summaries of the instance at URL, whose tables are in LAKE, with DuckDB (needs KARAT_KEY)
	dev/check-buckets.sh $(URL) $(LAKE)

clean-dev: ## Stops the test services and removes what the scripts in dev/ fetched
	dev/kafka.sh stop
	dev/services.sh stop
	rm -rf -- "$(DEV_DIR)"
