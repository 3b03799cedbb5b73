# The one door: people and CI use the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(PATH):/usr/sbin:/sbin

CFLAGS_STRICT := -std=c11 -Wall -Wextra -Wconversion -Werror
C_SOURCES := $(filter-out native/test_%.c,$(wildcard native/*.c))
NATIVE := $(wildcard native/*.[ch] native/*.py)

# What is measured is an installed package in an environment of its own, as a user has it.
BENCH := build/bench-venv/.installed
BENCH_OPTIONS := $(SCALE:%=--scale %) $(RUNS:%=--runs %)
NATIVE_BENCH := benchmarks/native_functions.py

.PHONY: help fuzz fuzz-keep demo test check format native-test native-test-arm native-test-x86 asan clean
.PHONY: set-up
.PHONY: bench bench-matrix bench-startup bench-scaling bench-compression bench-native
.PHONY: bench-reading bench-publish

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/.built ## build, convert a sparse sample into every format, show the result
	@$(BIN)/python docs/demo.py

test: $(VENV)/.tested ## run every test, against the real peers
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(VENV)/.tested ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.tested ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

set-up: $(VENV)/.tested build/.emulation ## install all that the targets below need

native-test: build/native/test_native build/native/test_io build/native/test_frames ## unit tests of the C functions
	build/native/test_native
	build/native/test_io
	build/native/test_frames

native-test-arm: build/arm/test_native build/arm/test_io build/arm/test_frames ## the same for Arm, under emulation
	qemu-aarch64-static -cpu max build/arm/test_native scalar neon neon-pmull
	qemu-aarch64-static -cpu max build/arm/test_io
	qemu-aarch64-static -cpu max build/arm/test_frames

native-test-x86: build/x86/test_native ## kernels as older x86 processors run them, emulated
	qemu-x86_64-static -cpu Westmere $< scalar clmul
	qemu-x86_64-static -cpu Haswell $< scalar clmul avx2

asan: build/asan/test_native build/asan/test_io build/asan/test_frames ## the same under sanitizers of addresses and undefined behaviour
	build/asan/test_native
	build/asan/test_io
	build/asan/test_frames

fuzz: $(VENV)/.tested ## fuzz a reader, guided by coverage; FORMAT=qcow2 TIME=600 (seconds)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(or $(FORMAT),qcow2) $(or $(TIME),600)

fuzz-keep: $(VENV)/.tested ## keep as seeds what fuzzing found that leads further; FORMAT=qcow2
	PYTHONPATH=tests $(BIN)/python -m fuzz.keep $(or $(FORMAT),qcow2) build/corpus/$(or $(FORMAT),qcow2)

bench: $(BENCH) ## time everything beside the peers; SCALE=0.1 RUNS=3 for a laptop
	@$(MAKE) --no-print-directory bench-matrix bench-startup bench-scaling \
		bench-reading bench-compression bench-native
	$(BIN)/python benchmarks/plots.py $(BENCH_OPTIONS)
	$(BIN)/python benchmarks/report.py $(BENCH_OPTIONS)

bench-matrix: $(BENCH) ## corpus x format x tool; CORPUS=zeros FORMAT=qcow2 for a part
	$(BIN)/python benchmarks/matrix.py $(BENCH_OPTIONS) $(CORPUS:%=--corpus %) $(FORMAT:%=--format %)

bench-startup: $(BENCH) ## an empty 1 TiB disk beside `import numpy`; FORMAT=vdi for a part
	$(BIN)/python benchmarks/startup.py $(BENCH_OPTIONS) $(FORMAT:%=--format %)

bench-scaling: $(BENCH) ## against size, data, threads; AXIS=size FORMAT=qcow2 for a part
	$(BIN)/python benchmarks/scaling.py $(BENCH_OPTIONS) $(AXIS:%=--axis %) $(FORMAT:%=--format %)

bench-compression: $(BENCH) ## compressed outputs beside other tools; CASE="qcow2 zstd" for a part
	$(BIN)/python benchmarks/compression.py $(BENCH_OPTIONS) $(if $(CASE),--case "$(CASE)")

bench-reading: $(BENCH) ## images of other formats to raw beside qemu-img; CASE=vmdk for a part
	$(BIN)/python benchmarks/reading.py $(BENCH_OPTIONS) $(if $(CASE),--case "$(CASE)")

bench-native: $(BENCH) ## the native functions beside libraries
	$(if $(wildcard $(NATIVE_BENCH)),$(BIN)/python $(NATIVE_BENCH))

bench-publish: $(BENCH) ## put the results into README.md and the plots into docs/
	$(BIN)/python benchmarks/plots.py $(BENCH_OPTIONS) --plots docs
	$(BIN)/python benchmarks/report.py $(BENCH_OPTIONS) --plots docs --into README.md

clean: ## remove what was built
	rm -rf build dist demo $(VENV) native/generated imgconv/_native* *.egg-info

$(VENV)/.made:
	@PYTHON=$(PYTHON) .ci/system-packages build
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.made pyproject.toml setup.py $(NATIVE)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.tested: $(VENV)/.built
	@PYTHON=$(PYTHON) .ci/system-packages test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch $@

$(BENCH): $(VENV)/.tested $(wildcard imgconv/*.py imgconv/*/*.py)
	$(PYTHON) -m venv build/bench-venv
	build/bench-venv/bin/pip install --quiet --disable-pip-version-check '.[deflate]'
	@touch $@

native/generated/crc_tables.h: native/make_crc_tables.py
	$(PYTHON) $<

# A program for each native/test_*.c, in a folder for each way to build it; static where an
# emulator runs it, because that brings no libraries.
define C_TEST
@mkdir -p $(@D)
$(CC) $(CFLAGS_STRICT) $(OPTIONS) -o $@ $(C_SOURCES) native/$(@F).c
endef
C_NEEDS := $(NATIVE) native/generated/crc_tables.h
build/native/%: OPTIONS := -O2
build/asan/%: OPTIONS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover
build/arm/%: OPTIONS := -O2 -static
# Its kernels run natively at every alignment, too; here, only on what older processors have.
build/x86/%: OPTIONS := -O2 -static -DSTRIDE=7
build/arm/%: CC := aarch64-linux-gnu-gcc
build/x86/%: CC := x86_64-linux-gnu-gcc

build/native/%: $(C_NEEDS)
	$(C_TEST)

build/asan/%: $(C_NEEDS)
	$(C_TEST)

build/arm/%: $(C_NEEDS) | build/.emulation
	$(C_TEST)

build/x86/%: $(C_NEEDS) | build/.emulation
	$(C_TEST)

build/.emulation:
	@PYTHON=$(PYTHON) .ci/system-packages emulation
	@mkdir -p $(@D)
	@touch $@
