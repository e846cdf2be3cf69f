# Two commands: `make serve` and `make test`. Each installs what it needs, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CUDA where its driver is; onnxruntime and onnxruntime-gpu must not be installed together.
comma := ,
EXTRAS := $(if $(shell command -v nvidia-smi),gpu$(comma)export-gpu,cpu$(comma)export)
MODEL := models/HuggingFaceTB--SmolLM2-135M-Instruct/manifest.json

.DEFAULT_GOAL := help
.PHONY: help serve test check model clean

help:
	@echo 'make serve   install, export the default model, serve it on http://127.0.0.1:8000'
	@echo 'make test    install, export the default model, run every check and test'
	@echo 'make check   ruff and mypy alone'
	@echo 'make clean   remove the environment and the caches, keep models/ and data/'

serve: $(VENV)/serve $(MODEL)
	$(BIN)/granian app:app

test: $(VENV)/test $(MODEL)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

model: $(MODEL)

# Whichever target needs the model has installed the exporter before.
$(MODEL): | $(VENV)/serve
	$(BIN)/python -m export

# The files say which set of extras of which pyproject.toml is installed.
$(VENV)/serve: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

$(VENV)/test: pyproject.toml $(VENV)/serve
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS),dev,postgres]'
	touch $@

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -r {} +
