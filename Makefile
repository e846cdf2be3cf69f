# Two commands: `make serve` and `make test`. Each installs what it needs, once, in the versions of
# constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CUDA where its driver is; onnxruntime and onnxruntime-gpu must not be installed together.
comma := ,
EXTRAS := $(if $(shell command -v nvidia-smi),gpu$(comma)export-gpu,cpu$(comma)export)
# Byte code is made when a module is first imported: making all of it took two thirds of the time.
INSTALL := $(BIN)/pip install --no-compile --constraint constraints.txt --editable
MODEL := models/HuggingFaceTB--SmolLM2-135M-Instruct/manifest.json

.DEFAULT_GOAL := help
.PHONY: help serve test check docs model measured lock browser vendor clean

help:
	@echo 'make serve   install, export the default model, serve it on http://127.0.0.1:8000'
	@echo 'make test    install, export the default model, run every check and test'
	@echo 'make check   ruff and mypy alone'
	@echo 'make browser install Chromium for the tests of the pages, where that can be done'
	@echo 'make vendor  fetch the libraries of the pages anew, in the versions of their lock'
	@echo 'make docs    make the manual in site/: open site/index.html'
	@echo 'make lock    write constraints.txt anew, with the newest versions'
	@echo 'make clean   remove the environment and the caches, keep models/ and data/'

# A first start waits for less: the model is measured on a part of the text, and says so.
serve: QUICK := --quick
serve: $(VENV)/serve $(MODEL)
	$(BIN)/llmhost serve

test: $(VENV)/test measured browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/test
	$(BIN)/sphinx-build -W --keep-going -q -c docs -d $(VENV)/doctrees . site

# Tests that need it are skipped where it can't be had.
CHROMIUM := /usr/bin/chromium
browser:
	@if [ -x $(CHROMIUM) ]; then \
		echo 'browser: $(CHROMIUM) is there'; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo 'browser: installing Debian'"'"'s package chromium'; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null) \
		|| echo 'browser: that failed: the tests of the pages will be skipped'; \
	else \
		echo 'browser: no $(CHROMIUM), and only root can install it: the tests of the pages will be skipped'; \
	fi

vendor: $(VENV)/test
	$(BIN)/python -m tests.browser.vendor

model: measured

# Whichever target needs the model has installed the exporter before.
$(MODEL): | $(VENV)/serve
	$(BIN)/python -m export $(QUICK)

# On the whole text, whoever made the model.
measured: $(MODEL)
	@grep -q '"text_tokens": 2048' $(MODEL) || $(BIN)/python -m export

# The files say which extras were installed, and from which pyproject.toml and constraints.txt.
$(VENV)/serve: pyproject.toml constraints.txt | $(BIN)/pip
	@echo 'Installing what serving and exporting need: some 500 MB, most of it PyTorch.'
	$(INSTALL) '.[$(EXTRAS)]'
	touch $@

$(VENV)/test: $(VENV)/serve
	$(INSTALL) '.[$(EXTRAS),dev,docs,otel,postgres]'
	touch $@

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --upgrade pip

# In an environment of its own, so that nothing is kept that is no longer needed. Made with the oldest
# supported Python (PYTHON=python3.11), the versions install on newer ones too. What is behind a + is
# a build of the same version: which one is installed is for the package index to say.
LOCK := $(VENV)/lock
lock:
	$(PYTHON) -m venv --clear $(LOCK)
	$(LOCK)/bin/pip install --quiet --upgrade pip
	$(LOCK)/bin/pip install --quiet --editable '.[cpu,export,dev,docs,otel,postgres,bench]'
	$(LOCK)/bin/pip freeze --all --exclude-editable --exclude pip > $(LOCK)/frozen.txt
	(grep '^#' constraints.txt; sed 's/+.*//' $(LOCK)/frozen.txt) > $(LOCK)/constraints.txt
	mv $(LOCK)/constraints.txt constraints.txt
	rm -r $(LOCK)
	@echo 'constraints.txt is new: now run make test'

clean:
	rm -rf $(VENV) site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -r {} +
