# The one door: people and CI use the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(PATH):/usr/sbin:/sbin

CFLAGS_STRICT := -std=c11 -Wall -Wextra -Wconversion -Werror
C_SOURCES := $(filter-out native/test_native.c,$(wildcard native/*.c))
NATIVE := $(wildcard native/*.[ch] native/*.py)

.PHONY: help demo test check format native-test native-test-arm native-test-x86 asan bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.built ## build, convert a sparse sample into every format, show the result
	@$(BIN)/python docs/demo.py

test: $(VENV)/.tested ## run every test, against the real peers
	$(BIN)/python -m pytest -n auto

check: $(VENV)/.tested ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.tested ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

native-test: build/test-native ## unit tests of the C functions
	build/test-native

native-test-arm: build/test-native-arm ## the same for Arm, under emulation
	qemu-aarch64-static -cpu max $< scalar neon neon-pmull

native-test-x86: build/test-native-x86 ## the same under emulation of older x86 processors
	qemu-x86_64-static -cpu Westmere $< scalar clmul
	qemu-x86_64-static -cpu Haswell $< scalar clmul avx2

asan: build/test-native-asan ## the same under the address and undefined-behaviour sanitizers
	build/test-native-asan

bench: $(VENV)/.tested ## time imgconv beside qemu-img (needs 12 GiB of /dev/shm; SCALE=0.1 needs 1.5)
	$(BIN)/python benchmarks/convert.py --scale $(or $(SCALE),1)

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

native/generated/crc_tables.h: native/make_crc_tables.py
	$(PYTHON) $<

build/test-native: $(NATIVE) native/generated/crc_tables.h
	@mkdir -p build
	$(CC) -O2 $(CFLAGS_STRICT) -o $@ $(C_SOURCES) native/test_native.c

# Static, because an emulator brings no libraries.
build/test-native-arm: CC = aarch64-linux-gnu-gcc
build/test-native-x86: CC = x86_64-linux-gnu-gcc
build/test-native-arm build/test-native-x86: $(NATIVE) native/generated/crc_tables.h
	@PYTHON=$(PYTHON) .ci/system-packages emulation
	@mkdir -p build
	$(CC) -O2 $(CFLAGS_STRICT) -static -o $@ $(C_SOURCES) native/test_native.c

build/test-native-asan: $(NATIVE) native/generated/crc_tables.h
	@mkdir -p build
	$(CC) -O1 -g $(CFLAGS_STRICT) -fsanitize=address,undefined -fno-sanitize-recover \
		-o $@ $(C_SOURCES) native/test_native.c
