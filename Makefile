# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` work on a fresh machine with Python 3.10 to 3.13 and a C++ compiler.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
SOURCES := pyproject.toml CMakeLists.txt $(wildcard protos/edgerun/*/*.proto) \
	$(wildcard edgerun/kernels/native/*.hpp edgerun/kernels/native/*.cpp)
# The CPU build where an index offers one; extra packages pull several GB of CUDA without this pin.
TORCH ?= torch==2.13.0
BUILD_TOOLS := "scikit-build-core>=0.10" "nanobind>=2.4" "grpcio-tools>=1.66,<1.82" "protobuf>=5.29,<7" "cmake>=3.25" ninja

.PHONY: demo test check lint types imports protos bench sbom wheel clean

demo: $(VENV)/runtime
	$(BIN)/edgerun demo $(ARGS)

test: $(VENV)/development
	$(BIN)/python -m pytest $(ARGS)

check: lint types imports protos test

lint: $(VENV)/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/development
	$(BIN)/mypy

imports: $(VENV)/development
	$(BIN)/lint-imports

protos:
	@if command -v npx >/dev/null; then cd protos && npx --yes @bufbuild/buf lint; \
	else echo "protos: not linted, npx is not installed (apt-get install npm)"; fi

bench: $(VENV)/development
	$(BIN)/python -m benchmarks.kernels $(ARGS)
	$(BIN)/python -m benchmarks.demo $(ARGS)

# CycloneDX, of what is installed for running edgerun.
# In an environment of its own, without what tests and training need.
sbom: $(VENV)/development
	$(PYTHON) -m venv --clear build/sbom
	build/sbom/bin/python -m pip install --disable-pip-version-check --quiet ".[openvino]"
	build/sbom/bin/python -m pip uninstall --quiet --yes pip setuptools
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json \
		build/sbom/bin/python

wheel: $(VENV)/development
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Editable, built in place: Python changes need no rebuild, native and proto changes are rebuilt by make.
$(VENV)/runtime: $(VENV)/bin/python $(SOURCES)
	$(PIP) $(BUILD_TOOLS)
	$(PIP) --no-build-isolation --editable ".[openvino]"
	touch $@

$(VENV)/development: $(VENV)/runtime
	$(PIP) $(TORCH)
	$(PIP) --no-build-isolation --editable ".[dev,exporters,openvino]"
	touch $@

clean:
	git clean -fdXq -e "!$(VENV)"
	rm -rf $(VENV)
