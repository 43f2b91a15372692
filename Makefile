# One word for each habit; each sets up what it needs, in .venv beside this file (VENV=... for another place).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HOST := $(VENV)/.yoyodyne
WORKERS ?= 2
SMOKE := $(addprefix tests/test_,backends.py programs.py config.py cli_use.py run.py)
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
# what Python compiles is kept as well, whatever the environment says: else every process compiles all of it anew
export PYTHONDONTWRITEBYTECODE :=

OLDEST := $(VENV)/.minimum

.PHONY: help setup demo docs test thorough minimum parity lint accuracy few-labels bench estimators inflection

help:
	@echo "make demo      train both twins on the peptides and show what unlabelled rows are worth"
	@echo "make test      the tests of every change"
	@echo "make thorough  all tests, with the many cases of those"
	@echo "make docs      the documentation as a site, in site/"
	@echo "make minimum   some of the tests with the lowest versions that are allowed"
	@echo "make parity    the proof alone that the twins agree, and what was compared (DEVICE=cuda: there)"
	@echo "make lint      ruff and mypy"
	@echo "make bench     what enumeration costs beside the forum's recipe (hours; PARTS='memory fraction' for some of it)"
	@echo "make estimators  what else can be done with a missing label, and its price (an hour; PARTS='price labels')"
	@echo "make inflection  the plug-in for yoyodyne with untagged rows and without, and beside the host's models (an hour)"
	@echo "make few-labels  the default beside n-grams with EM and others, over many sets (hours; FOLDER=DIR for further sets)"
	@echo "make accuracy  the README's table of accuracies: seeds 0 to 9, both twins"

setup: $(READY)

# torch first and alone: under the constraints it is a CPU build, and nothing later asks for another
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

# yoyodyne asks for torchvision and torchaudio, imports neither, and theirs do not go with a CPU build of torch
$(HOST): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps yoyodyne
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt lightning "jsonargparse[signatures]" maxwell omegaconf rich torchmetrics wandb
	touch $@

# warnings are errors: a link that leads nowhere, a name that the reference does not find
docs: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

demo: $(READY)
	$(BIN)/seqssvae demo

# each worker has one core: more threads than cores would only wait for each other; conftest.py has long files come first
test: $(HOST)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

thorough: $(HOST)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "" --hypothesis-profile thorough

# with a cache of its own, as programs compiled by another version are of no use
minimum: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.cache/jax-minimum
minimum:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-minimum.txt torch
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-minimum.txt ".[all]" beartype hypothesis pytest pytest-xdist scikit-learn
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(SMOKE)

# the proof is part of the tests, where shapes are checked too; alone, it can be had on another device
parity: export SEQSSVAE_DEVICE = $(DEVICE)
parity: export JAXTYPING_DISABLE = 1
parity: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest parity_tests -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m ""

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

few-labels: $(READY)
	$(BIN)/python -m benchmarks.few_labels $(if $(FOLDER),--folder $(FOLDER)) $(ARGUMENTS)

accuracy: $(READY)
	$(BIN)/python -m benchmarks.accuracy

estimators: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.estimators $(PARTS)
	$(BIN)/python -m benchmarks.estimator_tables

inflection: $(HOST)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.inflection
	$(BIN)/python -m benchmarks.inflection_tables

bench: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.enumeration $(PARTS)
	$(BIN)/python -m benchmarks.tables
