# Entry points for people and for CI. Each target says what it needs and brings it about.

LAB := $(or $(CARGO_TARGET_DIR),target)/release/lab
# Passed on to the command behind the target, for example: make lab-run ARGS="--kernel 6.12"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help lab lab-run mutants setup setup-tests setup-builds doctor bisect-packages bisect-commits test canary faults fuzz shards lint-ci check clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

lab-run: setup ## Run every case on every default kernel (ARGS="--kernel 6.12" narrows it)
	@$(LAB) run $(ARGS)

mutants: setup ## Build deliberate faults in, and show which case notices each
	@$(LAB) mutants $(ARGS)

test: setup-tests ## Run every test of the project, on real guests too
	@cargo test --workspace $(ARGS)

faults: setup ## Break guests, host and lab on purpose, and count what is lost or left behind
	@cargo test --quiet -p lab --test faults -- $(ARGS)

fuzz: ## Feed a million inputs or more to each reader of foreign text (RUNS=100000 for a short look)
	@scripts/fuzz

canary: setup ## Cells that must fail, hang, leak or panic, on real guests, each with its exact outcome
	@cargo test -p lab --test canaries $(ARGS)

shards: setup ## The default matrix as 4 shards in 4 checkouts, cell for cell what one run gives (CASES='A01*' narrows it)
	@scripts/shards

bisect-packages: setup ## From which Debian package on a prog_array refuses a program with another expected_attach_type
	@$(LAB) bisect --capability prog-array-strict --terms permissive,strict --good 6.12.43 --bad 6.12 --changelog expected_attach_type $(ARGS)

bisect-commits: setup-builds ## Which commit of a history with known answer breaks netkit: builds a kernel first
	@tree=$$(scripts/bisect-demo) && $(LAB) bisect --case 'A04-netkit-link[netkit,nk-l3,from-workload]' --tree "$$tree" --good demo-good --bad demo-bad $(ARGS)

lint-ci: setup-tests ## The workflows in ci/, each before its own linter or schema
	@cargo test -p lab --quiet --test workflows

setup: lab ## Install or build whatever is missing
	@$(LAB) setup

setup-tests: lab ## The same, and what only the tests need: a browser, programs that read the reports
	@$(LAB) setup --tests

setup-builds: lab ## The same, and what kernels are built with: flex, bison and others
	@$(LAB) setup --builds

doctor: lab ## Show what is there, what is missing, and how to mend it
	@$(LAB) doctor $(ARGS)

check: ## Formatting and lints
	@cargo fmt --all --check
	@cargo fmt --manifest-path ebpf/Cargo.toml --check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings

clean: ## Remove what was built here; the cache of kernels and tools stays
	@cargo clean
	@rm -rf ebpf/target

lab:
	@scripts/build-lab
