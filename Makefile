# Entry points for people and for CI. Each target first makes what it needs.

# Where cargo put it: variables and config.toml of a person's own can name another target directory.
LAB = $(shell scripts/build-lab --path)
# Passed to the command of the target, for example: make lab-run ARGS="--kernel 6.12"
ARGS ?=
# The tests start what a person starts, also make and labs: without the settings of this make.
TEST = env -u MAKELEVEL -u MAKEFLAGS -u MFLAGS cargo test
# Where `make install` installs.
PREFIX ?= /usr/local

.DEFAULT_GOAL := help
.PHONY: help lab lab-run mutants witness plants kernels-matrix arm64 stress setup setup-tests setup-builds doctor bisect-packages bisect-commits test test-kvm test-kvm-long test-all canary foreign objects selftests faults hostile fuzz shards test-slurm lint-ci check dist install clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

lab-run: setup ## Run every case on every default kernel (ARGS="--kernel 6.12" narrows it)
	@$(LAB) run $(ARGS)

mutants: setup ## Inject deliberate faults into the programs, and show which case notices each
	@$(LAB) mutants $(ARGS)

witness: setup ## Run the whole suite under the witness on four kernels, its faults, and what attaches in large numbers
	@$(TEST) -p lab --test witness --test witness_suite -- --ignored $(ARGS)

plants: setup-builds ## Boot a kernel with each of its deliberate faults, and show which case notices it (builds a kernel)
	@$(LAB) kernels plant $(ARGS)

kernels-matrix: setup-builds ## Run kernels of every source in one table, and the faults that only a kernel with debugging notices (builds two)
	@$(TEST) -p lab --test kernels_matrix -- --ignored --test-threads 1 --nocapture $(ARGS)

arm64: setup ## Run the attach and verdict cases on an emulated arm64 kernel
	@$(TEST) -p lab --test arm64 -- --ignored --test-threads 1 --nocapture $(ARGS)

stress: setup ## Run the suite 20 times beside busy loops with QEMU stopped at random: no cell may flip (CASES='V* T*' narrows it)
	@scripts/stress

test: setup-tests ## Run every test of the project, those on real guests included (ARGS="exec_guests roots" selects programs)
	@scripts/test $(ARGS)

objects: setup-tests ## Check the corpus of objects on 15 kernels, hold predictions against the boots, and find the check's own faults
	@$(TEST) -p lab --test check -- --include-ignored --test-threads 1 $(ARGS)

faults: setup ## Break guests, host and lab on purpose, and count lost verdicts and leftovers
	@$(TEST) --quiet -p lab --test faults -- $(ARGS)

hostile: setup ## Attack the lab: hostile guests, agents, results and other users, each contained
	@$(TEST) --quiet -p lab --test hostile -- $(ARGS)

fuzz: setup-tests ## Fuzz each reader of foreign data with a million inputs or more (RUNS=100000 for a short run)
	@scripts/fuzz

canary: setup ## Run cells that must fail, hang, leak or panic on real guests, and check each exact outcome
	@$(TEST) -p lab --test canaries $(ARGS)

foreign: setup-tests ## Run suites of others (cilium/ebpf, kernel selftests, psutil, a crate) on the default matrix, a quarter of an hour
	@$(TEST) -p lab --test foreign --test pasta -- --include-ignored --test-threads 1 $(ARGS)

selftests: setup-tests ## Run selftests of the kernel's own from the sources of each kernel, ten minutes
	@$(LAB) run --workload selftests-net $(ARGS); net=$$?; $(LAB) run --workload test-progs $(ARGS) && exit $$net

test-kvm: setup ## Run the lab under KVM, on a nested host: the probe, boot, snapshot, restore, a panic and a hang, compared with TCG
	@scripts/test-kvm short

test-kvm-long: setup ## The same with three kernels, an area of the suite and every canary
	@scripts/test-kvm long

test-all: test fuzz shards test-slurm foreign objects selftests witness kernels-matrix test-kvm-long ## Everything that the gate runs, in its long forms

shards: setup ## Run the default matrix as 4 shards in 4 checkouts, and compare every cell with one run (CASES='A01* L0*' narrows it)
	@scripts/shards

test-slurm: setup-tests ## Run the default matrix on a Slurm cluster of four nodes and kill one of them, and compare every cell with one run
	@$(TEST) -p lab --test slurm -- --ignored --nocapture $(ARGS)

bisect-packages: setup ## Find the Debian package from which on a prog_array refuses a program with another expected_attach_type
	@$(LAB) bisect --capability prog-array-strict --terms permissive,strict --good 6.12.43 --bad 6.12 --changelog expected_attach_type $(ARGS)

bisect-commits: setup-builds ## Find the commit that breaks netkit in a history with a known culprit (builds kernels)
	@tree=$$(scripts/bisect-demo) && $(LAB) bisect --case 'A04-netkit-link[netkit,nk-l3,from-workload]' --tree "$$tree" --good demo-good --bad demo-bad $(ARGS)

lint-ci: setup-tests ## Check the workflows in ci/ with each system's linter or schema
	@$(TEST) -p lab --quiet --test workflows

setup: lab ## Install or build what running the lab needs
	@$(LAB) setup

setup-tests: lab ## The same, and what the tests need: a browser, programs that read the reports
	@$(LAB) setup --tests

setup-builds: lab ## The same, and what building kernels needs: flex, bison and others
	@$(LAB) setup --builds

doctor: lab ## Show what is there, what is missing, and the command that fixes it
	@$(LAB) doctor $(ARGS)

check: setup-tests ## Formatting, lints, lock files, and the dependencies' licences, sources and known weaknesses
	@cargo fmt --all --check
	@cargo fmt --manifest-path ebpf/Cargo.toml --check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@scripts/clippy-loader
	@scripts/locks
	@scripts/deny

dist: setup ## Build the packages: an archive, a .deb and an OCI image, in target/dist
	@scripts/dist

install: setup ## Install the lab, what guests run, man pages and completions in PREFIX (/usr/local)
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" scripts/dist install

clean: ## Remove what was built here; keep the cache of kernels and tools
	@cargo clean
	@rm -rf ebpf/target

lab:
	@scripts/build-lab
