# What there is to do in this repository. Everything needs the Rust toolchain with a C compiler, and nothing else, but for
# `deny` and `mutants`: each installs its own tool (some 4 CPU minutes and some 1), so that `check` and `test` are without them.
# `deny` fetches the advisories too.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
SHRINKD := $(TARGET)/release/shrinkd

.DEFAULT_GOAL := help
FAULTS := scripts/services run -- $(CARGO) test --locked --test faults -- --ignored --nocapture

.PHONY: help demo test chaos chaos-broken alerts soak fuzz bench bench-pipeline bench-upgrade mutants first-minute check lint doc deny approximations ratio-scales verdicts alike asos

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## See it work: a simulated portfolio through the worker into a database, and what came of it (release build)
	$(CARGO) build --release --locked
	$(SHRINKD) demo

test: export SHRINKD_SKIPPED = $(abspath $(TARGET))/skipped
test: export SHRINKD_POSTGRES_FSYNC = off
# What tests write is gone after them: in memory, where the machine has a folder there with 4 GiB to spare.
MEMORY := $(shell [ "$$(df -k /dev/shm 2>/dev/null | awk 'END { print $$4 }')" -ge 4194304 ] 2>/dev/null && echo /dev/shm)
test: export TMPDIR := $(or $(TMPDIR),$(MEMORY),/tmp)
test: lint ## Formatting, lints and every test, on real PostgreSQL and Apache Kafka that it installs, starts and stops
	@: >$(SHRINKD_SKIPPED)
	CARGO="$(CARGO)" scripts/services run -- scripts/test; status=$$?; sort -u -o $(SHRINKD_SKIPPED) $(SHRINKD_SKIPPED); \
		printf '\n%s skipped, whose names are in %s:\n' "$$(wc -l <$(SHRINKD_SKIPPED))" $(SHRINKD_SKIPPED); \
		sed 's/^[^ ]*: //' $(SHRINKD_SKIPPED) | sort | uniq -c; exit $$status

chaos: ## Some 200 faults under load, then the tables against those of a run without faults (some 20 minutes; SHRINKD_CHAOS_SEED=n)
	$(FAULTS) two_hundred_faults

chaos-broken: ## Whether the faults find out a program without the fence, and one that commits offsets on their own
	tests/faults/broken/check

alerts: ## Outages of real servers, and whether a real Prometheus raises the alert for each in time (a quarter of an hour)
	$(FAULTS) within_the_minutes

soak: ## Ten minutes of load and rebalances: memory and file descriptors stay, and nothing is left to read
	$(FAULTS) does_not_grow

bench-pipeline: ## Measure the worker on real servers: throughput, freshness, write amplification, memory, cost of metrics and logs (PARTS=throughput for one)
	scripts/services run -- $(CARGO) bench --locked --bench pipeline -- $(PARTS)

bench-upgrade: BLOCKS ?= 1000000
bench-upgrade: ## Measure how long an upgrade from the last release stops ingest (BLOCKS=1000000)
	$(CARGO) build --release --locked
	scripts/services run -- scripts/upgrade $(SHRINKD) $(BLOCKS)

bench: ## Measure the speed that is promised, as ratios within one run (some 4 minutes)
	$(CARGO) bench --locked --bench speed

first-minute: ## The first three commands of the README, in a clone in an empty folder: estimates of 40 experiments (a release build)
	scripts/first-minute

check: lint doc ## What is judged without running anything: formatting, lints, documentation

lint: ## Formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

doc: ## Build the documentation, broken links are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

fuzz: ## Hostile bytes at what reads bytes from outside, until nothing new is reached (RUNS=1000000 for so many of each target)
	RUNS=$(RUNS) CARGO="$(CARGO)" scripts/fuzz

mutants: ## Changes that no test notices: of a FILE=, of the lines changed since BASE=main, or of a SAMPLE=100 SEED=1; installs cargo-mutants the first time
	@$(CARGO) mutants --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-mutants
	@FILE='$(FILE)' BASE='$(BASE)' SAMPLE='$(SAMPLE)' SEED='$(SEED)' CARGO="$(CARGO)" scripts/mutants

deny: ## Licences, advisories and sources of all dependencies; installs cargo-deny the first time
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked check

approximations: ## Table of how far laplace and variational are from exact: make approximations EVENTS=folder
	@$(CARGO) run --locked --quiet --example approximations -- $(EVENTS)

ratio-scales: ## Bias, coverage and error of each scale where conversions are few (docs/ratio-scales.md; REPLICATES=500)
	@$(CARGO) run --locked --quiet --release --example ratio_scales -- $(REPLICATES)

verdicts: ## Verdicts on 500 simulated portfolios of each kind, and whether they are the right ones (docs/verdicts.md; REPLICATES=500)
	@$(CARGO) run --locked --quiet --release --example verdicts -- $(REPLICATES)

alike: ## How estimates cover where variants of one experiment are alike, and controls that are flagged (docs/alike.md; REPLICATES=500, SVG=file)
	@$(CARGO) run --locked --quiet --release --example alike -- $(or $(REPLICATES),500) $(SVG)

asos: DIR ?= $(TARGET)/asos
asos: ## A real history through the worker (docs/history.md): make asos CSV=file DIR=folder
	@[ -r "$(CSV)" ] || { echo 'name the dataset: make asos CSV=file; docs/history.md says where to get it' >&2; exit 2; }
	$(CARGO) build --release --locked --bin shrinkd --example asos
	mkdir -p "$(DIR)"
	$(TARGET)/release/examples/asos "$(CSV)" >"$(DIR)/asos.ndjson"
	SHRINKD__SOURCE__FILE__PATH="$(DIR)/asos.ndjson" SHRINKD__STORE__URL="sqlite://$(DIR)/asos.db" \
		SHRINKD__HTTP__LISTEN=127.0.0.1:0 $(SHRINKD) run
	@printf '\nThe populations in %s/asos.db; shrinkd fit %s/asos.ndjson says the same:\n\n' "$(DIR)" "$(DIR)"
	@! command -v sqlite3 >/dev/null || sqlite3 -box "$(DIR)/asos.db" "$(POPULATIONS)"
	@command -v sqlite3 >/dev/null || printf 'to see them, ask any client of SQLite:\n%s\n' "$(POPULATIONS)"

POPULATIONS = select population_id, correlation, experiments, effects, mu_mean, mu_sd, tau_median \
	from current_population_fits order by population_id, correlation
