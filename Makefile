# The front door. Needs Python 3.11 or newer; with cargo the native kernel is built, without it the reference kernel serves.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export UV_LINK_MODE ?= copy
# Registries are slow or away now and then.
export PIP_RETRIES ?= 10
export UV_HTTP_RETRIES ?= 10
export UV_HTTP_TIMEOUT ?= 180
export CARGO_NET_RETRY ?= 10
again = for pause in 5 30 60 end; do $(1) && break; test $$pause != end || exit 1; echo "once more in $$pause s" >&2; sleep $$pause; done
# What is installed is what the lock names, by its hash, or nothing. Never an editable tree: that has no hash.
INSTALL := $(BIN)/uv pip install --quiet --require-hashes
SET_UP := $(INSTALL) --python $(BIN)/python --constraint constraints.txt --requirement pyproject.toml --extra s3 --extra azure --extra p2p --extra kms --extra iceberg --extra dev
TOOLS := $(VENV)/tools
# At most so many, since a container may have less of the machine than it sees.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

.PHONY: help setup demo check check-python check-native schedulers test test-all fuzz coverage bench lock audit sbom docs wheels infra-check image-steps clean

help:  ## say what the targets are
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: $(VENV)/.ready  ## make .venv with statecast and all that its tests need

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' constraints.txt > $(VENV)/uv.txt
	$(call again,$(BIN)/python -m pip install --quiet --require-hashes --requirement $(VENV)/uv.txt)

$(VENV)/.ready: pyproject.toml constraints.txt $(shell find native -name '*.rs' -not -path '*/target/*' -o -name 'Cargo.*' -not -path '*/target/*' -o -name pyproject.toml 2>/dev/null) | $(BIN)/uv
	$(call again,$(SET_UP))
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@if command -v cargo >/dev/null; then \
	    echo "Building the native kernel"; \
	    $(call again,cargo fetch --quiet --locked --manifest-path native/binding/Cargo.toml); \
	    $(BIN)/maturin build --quiet --release --manifest-path native/binding/Cargo.toml --interpreter $(BIN)/python --out $(VENV)/wheels && \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python --reinstall --no-deps $$(ls -t $(VENV)/wheels/*.whl | head -n 1); \
	else \
	    echo "No cargo here: statecast will use the reference kernel, which is slow. See https://rustup.rs and run make setup again."; \
	fi
	touch $@

demo: setup  ## produce, publish and check an epoch out of the bundled node database
	$(BIN)/python examples/demo.py

# Side by side: the one waits for downloads and for one core, the other compiles on all.
check:  ## formatting, lint, types, import directions, dependencies, dead code; Rust too where cargo is there
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target check-python check-native

check-python: setup
	$(BIN)/ruff check --quiet && $(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/vulture
	@if $(BIN)/python -c 'import statecast_kernel' 2>/dev/null; then $(BIN)/stubtest statecast_kernel --concise --ignore-unused-allowlist --mypy-config-file pyproject.toml --allowlist native/binding/stubtest_allowlist.txt; fi

check-native:
	@unset MAKEFLAGS MFLAGS; if command -v cargo >/dev/null; then cd native && cargo fmt --check && { $(call again,cargo fetch --quiet --locked); } && cargo clippy --quiet --workspace --all-targets -- -D warnings && cargo test --quiet --workspace; fi

# The schedulers that the examples are for need other versions of libraries than we do.
schedulers: $(VENV)/schedulers/.ready

$(VENV)/schedulers/.ready: $(VENV)/.ready examples/constraints.txt
	test -x $(VENV)/schedulers/bin/python || $(PYTHON) -m venv $(VENV)/schedulers
	$(call again,$(INSTALL) --python $(VENV)/schedulers/bin/python --requirement examples/constraints.txt)
	touch $@

test:  ## the checks and all tests but the long ones
	@$(MAKE) --no-print-directory --jobs 3 --output-sync=target check-python check-native schedulers
	$(PYTEST) -m 'not slow'

test-all: check schedulers  ## the long tests too: chaos, many kills, servers that must be built first
	$(call again,$(SET_UP) --extra cluster)
	STATECAST_BUILD_SERVERS=1 $(PYTEST)

# A third of the time is the kernel's own, in Rust; SEED=2 makes other inputs, FUZZ='--decoder manifest' chooses. Exit code 1 where one failed.
MINUTES ?= 5
SEED ?= 1

# INPUTS is how many of each decoder, for as long as that takes; of the kernel, which is quick, a hundred times as many.
fuzz: setup  ## try made-up inputs on every decoder and on the kernel: make fuzz MINUTES=30 SEED=2, or INPUTS=1000000
	@failed=0; \
	if command -v cargo >/dev/null; then (cd native && cargo test --quiet --package statecast-trie --test fuzz --no-run && \
	    $(if $(INPUTS),STATECAST_FUZZ_SECONDS=1000000000 STATECAST_FUZZ_INPUTS=$(INPUTS)00,STATECAST_FUZZ_SECONDS=$$(( $(MINUTES) * 20 ))) \
	    STATECAST_FUZZ_SEED=$(SEED) STATECAST_FUZZ_THREADS=$$(nproc) \
	    cargo test --quiet --package statecast-trie --test fuzz -- --ignored --nocapture) || failed=1; \
	else echo "No cargo here: the kernel's own inputs are left out" >&2; fi; \
	$(BIN)/python -m tests.fuzz.run --seed $(SEED) $(if $(INPUTS),--inputs $(INPUTS),--seconds $$(( $(MINUTES) * 40 ))) $(FUZZ) || failed=1; exit $$failed

# Processes that tests kill leave no count. Rust's tools for it are `cargo install --locked cargo-llvm-cov` and `rustup component add llvm-tools`.
# Where rustup has none, a distribution's package llvm-N serves, N as `rustc -vV` says: LLVM_COV=/usr/lib/llvm-N/bin/llvm-cov, LLVM_PROFDATA alike.
coverage: setup  ## which lines and branches of Python and Rust the tests run: printed, never a threshold
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --maxprocesses 8 --dist loadfile -m 'not slow' $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@if command -v cargo-llvm-cov >/dev/null; then cd native && cargo llvm-cov --locked --workspace; \
	else echo "No cargo-llvm-cov here: cargo install --locked cargo-llvm-cov" >&2; fi

bench: setup  ## time every stage against its floor on one million records
	$(BIN)/python -m benchmarks.produce

# Versions stay unless they must change; `make lock UPGRADE=--upgrade` takes the newest of all, `UPGRADE='--upgrade-package ray'` of one.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url --custom-compile-command 'make lock'

lock: | $(BIN)/uv  ## renew constraints.txt and examples/constraints.txt after a change of dependencies
	$(COMPILE) $(UPGRADE) --all-extras --group audit --group build --output-file constraints.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --output-file examples/constraints.txt examples/requirements.txt

docs: setup  ## build the documentation's site into dist/site; a link that leads nowhere fails
	$(call again,$(SET_UP) --extra docs)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

wheels: setup  ## build the wheels and sources of statecast, and the kernel's wheel, into dist/; test them (needs cargo)
	@command -v cargo >/dev/null || { echo "wheels: cargo is not here, and the kernel's wheel is built with it: see https://rustup.rs" >&2; exit 1; }
	rm -rf dist/*.whl dist/*.tar.gz
	$(BIN)/hatchling build --target sdist --target wheel --directory dist
	$(BIN)/maturin build --quiet --release --locked --manifest-path native/binding/Cargo.toml --interpreter $(BIN)/python --out dist
	STATECAST_WHEELS=dist $(BIN)/python -m pytest -q tests/packaging

$(TOOLS)/audit/.ready: constraints.txt pyproject.toml | $(BIN)/uv
	test -x $(TOOLS)/audit/bin/python || $(PYTHON) -m venv $(TOOLS)/audit
	$(call again,$(INSTALL) --python $(TOOLS)/audit/bin/python --constraint constraints.txt --group audit)
	touch $@

# The kinds of answer are told apart, so that a database out of reach is never taken for a finding, nor for none.
audit: $(TOOLS)/audit/.ready  ## known vulnerabilities of all that is locked (asks the advisory databases), licences and origins of crates
	@failed=0; log=$$(mktemp); \
	told() { cat $$log; if grep -qE "$$2" $$log; then echo "audit: $$1 could not reach its advisory database, so nothing was audited: this says nothing of the dependencies" >&2; \
	    else echo "audit: $$1 has found what is listed above" >&2; fi; failed=1; }; \
	$(TOOLS)/audit/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes --requirement constraints.txt >$$log 2>&1 \
	    || told pip-audit 'could not be audited|ConnectionError|ServiceError|HTTPSConnectionPool'; \
	if command -v cargo-deny >/dev/null; then cd native; \
	    cargo deny --locked check bans licenses sources || failed=1; \
	    cargo deny --locked check advisories >$$log 2>&1 || told cargo-deny 'failed to (fetch|load|open) advisory database'; \
	else echo "audit: cargo-deny is not here, so no crate was audited: cargo install --locked cargo-deny" >&2; failed=1; fi; \
	rm -f $$log; test $$failed = 0 && echo "audit: no known vulnerability in what constraints.txt and native/Cargo.lock name"

sbom: $(TOOLS)/audit/.ready  ## what statecast is made of, as CycloneDX, into dist/: the packages of constraints.txt; the kernel's wheel has its own list
	$(BIN)/uv venv --quiet --clear $(TOOLS)/sbom
	$(call again,$(INSTALL) --python $(TOOLS)/sbom/bin/python --constraint constraints.txt --requirement pyproject.toml)
	mkdir -p dist
	$(TOOLS)/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file dist/statecast.cdx.json $(TOOLS)/sbom

$(TOOLS)/tflint:
	GOBIN=$(abspath $(TOOLS)) go install github.com/terraform-linters/tflint@v0.64.0

$(TOOLS)/checkov/bin/checkov: | setup
	$(BIN)/uv venv --quiet $(TOOLS)/checkov
	VIRTUAL_ENV=$(abspath $(TOOLS)/checkov) $(BIN)/uv pip install --quiet checkov==3.3.30  # its pins clash with ours

infra-check: setup $(TOOLS)/tflint $(TOOLS)/checkov/bin/checkov  ## tests of infra/, then tflint and checkov (needs go; no cloud)
	$(BIN)/python -m pytest -q tests/infra tests/monitoring -m 'not slow'
	cd infra/terraform && $(abspath $(TOOLS)/tflint) --recursive --config "$$PWD/.tflint.hcl"
	mkdir -p $(TOOLS)/manifests
	for overlay in infra/kubernetes/overlays/*; do kubectl kustomize $$overlay > $(TOOLS)/manifests/$$(basename $$overlay).yaml || exit 1; done
	$(TOOLS)/checkov/bin/checkov --config-file infra/checkov.yaml --directory infra/terraform --framework terraform
	$(TOOLS)/checkov/bin/checkov --config-file infra/checkov.yaml --directory $(TOOLS)/manifests --framework kubernetes
	$(TOOLS)/checkov/bin/checkov --config-file infra/checkov.yaml --file infra/image/Dockerfile --framework dockerfile

image-steps: setup  ## run the Dockerfile's steps in an empty folder, without a container engine
	$(BIN)/python -m tests.support.image_steps $$(mktemp -d)

clean:  ## remove what setup and demo made
	rm -rf $(VENV) demo dist native/target .coverage
