# podwire: every target is one line of help away (make help).

TARGET ?= x86_64-unknown-linux-musl
CARGO_TARGET_DIR ?= $(CURDIR)/target
LAB ?= $(CURDIR)/target/lab
RELEASE = $(CARGO_TARGET_DIR)/$(TARGET)/release
export CARGO_TARGET_DIR LAB
export PODWIRE_BIN_DIR = $(LAB)/podwire
export PEERS_BIN_DIR = $(LAB)/peers
export POLICYD_BIN = $(CARGO_TARGET_DIR)/$(TARGET)/daemon/policyd
export PROXYD_BIN = $(CARGO_TARGET_DIR)/$(TARGET)/daemon/proxyd
export FLOOR_BIN = $(RELEASE)/floor
export PODWIRE_BIN = $(RELEASE)/podwire
VM_BIN = $(CARGO_TARGET_DIR)/$(TARGET)/debug/vm
export TESTBED_BIN = $(CARGO_TARGET_DIR)/$(TARGET)/debug/testbed
export TESTBED_IMAGES = $(LAB)/images
export TESTBED_STATE = $(LAB)/cluster
# Where insta looks for snapshots: what another checkout compiled may be in the same CARGO_TARGET_DIR.
export INSTA_WORKSPACE_ROOT = $(CURDIR)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: build
build: ## the static programs: target/x86_64-unknown-linux-musl/release/podwire, .../daemon/policyd (TARGET=aarch64-unknown-linux-musl for the other)
	@scripts/setup build
	cargo build --release --locked --target $(TARGET) -p podwire
	cargo build --profile daemon --locked --target $(TARGET) -p policyd -p proxyd

.PHONY: install
install: build ## put the plugins into /opt/cni/bin (or BIN_DIR=...)
	$(RELEASE)/podwire install --bin-dir "$(or $(BIN_DIR),/opt/cni/bin)"

.PHONY: demo
demo: ## two pods as namespaces, traffic between them, and a NetworkPolicy that stops it; needs root, leaves nothing
	@scripts/setup demo
	@$(MAKE) --no-print-directory build
	@scripts/demo $(RELEASE)/podwire $(POLICYD_BIN)

.PHONY: test-setup
test-setup: ## what the tests run against: podwire, installed, and its peers (the reference plugins, an API server, kube-router), built with Go
	@scripts/setup test
	@$(MAKE) --no-print-directory build
	@mkdir -p $(LAB)
	@$(RELEASE)/podwire install --bin-dir $(PODWIRE_BIN_DIR) >/dev/null
	@tests/peers/build $(PEERS_BIN_DIR)

# What runs policyd: once by iptables, with all others, and once by nf_tables.
BY_BOTH := agent attachments cluster conformance node_network policy traffic

.PHONY: test
test: test-setup ## everything: unit, property, differential, conformance, traffic and fault tests; needs root
	cargo test --locked --workspace
	@echo "policyd by its other backend:"
	POLICYD_BACKEND=nftables cargo test --locked -p lab $(addprefix --test ,$(BY_BOTH))

.PHONY: test-vm
test-vm: test-setup ## the tests on other kernels, in virtual machines (KERNEL=6.1|6.12|all LANE=full|nft-only|all SUITE=part of a name TEST=parts of names); needs root
	@scripts/setup vm
	cargo build --locked --target $(TARGET) -p vm
	@scripts/kernels $(LAB)/kernels $(patsubst all,6.1 6.12,$(or $(KERNEL),all))
	@mkdir -p $(LAB)/vm
	cargo test --no-run --locked --workspace --profile emulated --message-format=json >$(LAB)/vm/built.json
	@$(VM_BIN) run --built $(LAB)/vm/built.json --kernels $(LAB)/kernels --state $(LAB)/vm \
		--kernel $(or $(KERNEL),all) --lane $(or $(LANE),all) --suite "$(SUITE)" --test "$(TEST)"

.PHONY: image
image: build ## podwire's container images as archives: target/lab/images/podwire.tar, and podwire-nftables.tar without iptables; with their lists of parts
	@scripts/setup image
	@scripts/image $(TESTBED_IMAGES)/podwire.tar $(PODWIRE_BIN) $(POLICYD_BIN) $(PROXYD_BIN)
	@scripts/image $(TESTBED_IMAGES)/podwire-nftables.tar $(PODWIRE_BIN) $(POLICYD_BIN) $(PROXYD_BIN) nftables
	@echo "image: podwire, in $(TESTBED_IMAGES)/podwire.tar; for nf_tables alone in podwire-nftables.tar"

.PHONY: manifests
manifests: ## conf/kubernetes/podwire.yaml, policyd.yaml and proxyd.yaml, from their kustomizations (after make test-setup)
	@scripts/manifests $(PEERS_BIN_DIR)/kubectl

.PHONY: cluster-setup
cluster-setup: image ## what a whole cluster runs: Kubernetes, containerd and CoreDNS, built with Go; and their images
	@scripts/setup cluster
	@tests/peers/build $(PEERS_BIN_DIR) kubernetes
	@tests/peers/build $(PEERS_BIN_DIR) cluster
	cargo build --locked --target $(TARGET) -p testbed
	@tests/peers/images $(PEERS_BIN_DIR) $(dir $(TESTBED_BIN))pause $(TESTBED_IMAGES)

.PHONY: cluster
cluster: cluster-setup ## a whole cluster on this machine, podwire on it (NODES=3 FAMILY=ipv4|ipv6|dual PROXY=iptables|nftables|proxyd BACKEND=auto|iptables|nftables); needs root
	@$(TESTBED_BIN) up --nodes $(or $(NODES),1) --family $(or $(FAMILY),ipv4) --proxy $(or $(PROXY),iptables) --backend $(or $(BACKEND),auto)
	@echo "kubectl: $(TESTBED_BIN) --state $(TESTBED_STATE) kubectl get pods -A"
	@echo "more:    $(TESTBED_BIN) --state $(TESTBED_STATE) status | logs | on NODE PROGRAM ... | down"

.PHONY: cluster-down
cluster-down: ## take it down; it leaves nothing but its logs
	@$(TESTBED_BIN) down

.PHONY: e2e
e2e: cluster-setup ## tests of podwire on whole clusters (E2E=smoke: the shortest, or any part of a name); needs root
	cargo test --locked -p e2e --test e2e -- $(E2E)

.PHONY: bench-cni
bench-cni: test-setup ## podwire beside the reference plugins and the kernel's floor; writes benches/results
	@scripts/setup bench
	cargo build --release --locked --target $(TARGET) -p benches
	$(RELEASE)/bench-cni $(BENCH_ARGS)

.PHONY: bench-policy
bench-policy: test-setup ## policyd beside kube-router over a real API server; writes benches/results
	cargo build --profile daemon --locked --target $(TARGET) -p bench-policy
	TMPDIR=/mnt $(CARGO_TARGET_DIR)/$(TARGET)/daemon/bench-policy $(BENCH_ARGS)

.PHONY: bench-proxy
bench-proxy: cluster-setup ## proxyd beside kube-proxy over a real API server; writes benches/results
	cargo build --profile daemon --locked --target $(TARGET) -p bench-proxy
	TMPDIR=/mnt $(CARGO_TARGET_DIR)/$(TARGET)/daemon/bench-proxy $(BENCH_ARGS)

.PHONY: bench-cluster
bench-cluster: cluster-setup ## pods of a whole cluster, wired by podwire and by the reference plugins; writes benches/results
	@tests/peers/build $(PEERS_BIN_DIR) cni
	cargo build --release --locked --target $(TARGET) -p bench-cluster
	$(RELEASE)/bench-cluster $(BENCH_ARGS)

.PHONY: fuzz
fuzz: ## a short run of every fuzz target (SECONDS=20 each); needs a nightly toolchain and cargo-fuzz
	@scripts/fuzz "$(or $(SECONDS),20)"

.PHONY: check
check: build ## formatting, lints, licences, sizes
	@scripts/check
