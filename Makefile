# Two commands are enough: `make demo` and `make test`. Both install what is missing.

SHELL := /bin/bash
CARGO ?= cargo
TAPESTRY := target/release/tapestry

.PHONY: help demo test regression build image deps lint doc bench bench-guests bench-peers bench-overload \
        bench-capture bench-accuracy bench-everything bench-repeat bench-campaigns figures figures-smoke clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build image ## Build everything and run a chain of three virtual machines
	$(TAPESTRY) run topologies/chain.yaml

test: deps ## Check formatting and lints, then run every test (virtual machines included)
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) run --quiet -- image build
	TAPESTRY=$(CURDIR)/target/debug/tapestry \
	  $(CARGO) test --workspace

regression: build ## Run the regression suite: real routing, DHCP and web daemons (4 minutes and more; virtual machines, too)
	$(TAPESTRY) image build --name routers --package bird2 --package iputils-ping
	$(TAPESTRY) test topologies/regression '!qemu'
	$(TAPESTRY) test topologies/regression qemu

build: deps ## Build the release binary
	$(CARGO) build --release

image: build ## Build the guest image (kernel and initramfs from Debian packages)
	$(TAPESTRY) image build

deps: ## Install the programs that Tapestry uses, where they are missing
	@.ci/deps

lint: ## Formatting and clippy only
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc: ## Build the API documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

bench: build ## Run the micro-benches (they report, they never fail)
	$(CARGO) bench -p tapestry-core -p tapestry-models

bench-guests: image ## Measure boot, shell round trip and start skew of virtual machines (2 minutes)
	$(CARGO) bench --bench guests

bench-peers: build ## Measure Tapestry beside a bare forwarder and ns-3 (about 20 minutes; QUICK=1: 2; VIRTUAL=1: virtual time only)
	$(CARGO) build --release --example bare --example echo
	$(CARGO) bench --bench peers -- $(if $(QUICK),--quick) $(if $(VIRTUAL),--only-virtual)

bench-overload: build ## Offer three times the critical load for a minute: what arrives, memory, accounts
	$(CARGO) bench --bench peers -- overload

bench-capture: build ## Processor time with and without captures at half the critical load; share of the ledger
	$(CARGO) build --release --example bare
	$(CARGO) bench --bench peers -- capture

bench-accuracy: build ## Delay, loss and rate of links at half the critical load, against the configured values
	$(CARGO) build --release --example bare
	$(CARGO) bench --bench peers -- accuracy

bench-everything: build ## The critical load of a link with every impairment, beside a plain one
	$(CARGO) build --release --example bare
	$(CARGO) bench --bench peers -- everything

bench-repeat: build ## Run a two-node ping 1000 times in a row (RUNS=N): failures, remains, overhead
	$(CARGO) bench --bench peers -- repeat $(if $(RUNS),--runs $(RUNS))

# Plans are gone on with where an earlier `make figures` stopped.
FIGURES := figure6-qemu figure6-local figure7-qemu figure7-local
PLANS := benches/chain$(if $(QUICK),/quick)
DRAWN := target/figures$(if $(QUICK),-quick)

figures: image ## The Qemunet paper's Figures 6 and 7 on this machine, into target/figures (45 minutes; QUICK=1: 5)
	@failed=; for figure in $(FIGURES); do \
	  out=$(DRAWN)/$$figure; status=0; \
	  $(TAPESTRY) campaign run $(PLANS)/$$figure.yaml --out $$out \
	    $$([ -e $$out/campaign.sqlite ] && echo --resume) || status=$$?; \
	  case $$status in 0|3) ;; 1) failed="$$failed $$figure" ;; *) exit $$status ;; esac; \
	  $(TAPESTRY) campaign report $$out || exit; \
	done; [ -z "$$failed" ] || { echo "runs failed, the reports say why:$$failed"; exit 1; }

figures-smoke: image ## Check the figures' plans; two of them, shortened, and a small chain of guests, in 2 minutes
	@set -e; for figure in $(FIGURES); do \
	  $(TAPESTRY) campaign run benches/chain/$$figure.yaml --dry-run >/dev/null; \
	done
	@rm -rf target/figures-smoke; for figure in smoke-qemu figure6-local figure7-local; do \
	  out=target/figures-smoke/$$figure; status=0; \
	  timeout 300 $(TAPESTRY) campaign run benches/chain/quick/$$figure.yaml --out $$out || status=$$?; \
	  $(TAPESTRY) campaign report $$out && test -s $$out/figures/xy-hop_pps.png || exit; \
	  case $$status in 0|3) ;; *) exit $$status ;; esac; \
	done

bench-campaigns: build ## Campaigns: 1000 namespace runs, 10,000 simulations, their report, 50 times SIGKILL
	$(CARGO) bench --bench peers -- campaigns

clean: ## Remove build products (images stay in the cache: `tapestry image list`)
	$(CARGO) clean
