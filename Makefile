# One word for each habit; each sets up what it needs, in .venv beside this file (VENV=... for another place).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HOST := $(VENV)/.yoyodyne
DOCS := $(VENV)/.docs
# what is never imported need not be compiled: Python compiles the rest at its first import, and keeps it
INSTALL := pip install --quiet --disable-pip-version-check --no-compile
WORKERS ?= 2
SMOKE := $(addprefix tests/test_,backends.py programs.py config.py cli_use.py run.py estimator_use.py launchers.py param_store.py \
	allocation.py completion.py datasets.py files.py hub.py mapped.py prepared.py report.py tuning.py)
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
# what Python compiles is kept as well, whatever the environment says: else every process compiles all of it anew
export PYTHONDONTWRITEBYTECODE :=

OLDEST := $(VENV)/.minimum
OLDEST_TORCH := $(OLDEST)/.torch
PACKAGING := $(VENV)/.packaging
# as in conftest.py: the tutorials' programs are tiny, and compiling them is most of what they take
QUICK_XLA := --xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 \
	--xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1

.PHONY: help setup environments demo docs test thorough package minimum installed parity lint accuracy few-labels bench estimators inflection

help:
	@echo "make demo      train both twins on the peptides and show what unlabelled rows are worth"
	@echo "make test      the tests of every change"
	@echo "make thorough  all tests, with the many cases of those"
	@echo "make docs      run the tutorials and build the documentation as a site, in site/"
	@echo "make package   wheel and sdist in dist/, checked"
	@echo "make minimum   the wheel, and some of the tests, with the lowest versions that are allowed"
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
	$(BIN)/$(INSTALL) -c constraints.txt torch
	$(BIN)/$(INSTALL) -c constraints.txt -e ".[dev]"
	touch $@

# yoyodyne asks for torchvision and torchaudio, imports neither, and theirs do not go with a CPU build of torch
$(HOST): $(READY)
	$(BIN)/$(INSTALL) -c constraints.txt --no-deps yoyodyne
	$(BIN)/$(INSTALL) -c constraints.txt lightning "jsonargparse[signatures]" maxwell omegaconf rich torchmetrics wandb
	touch $@

# what the project itself asks for is there, and is not to be installed anew beside tests that import it
$(DOCS): $(HOST)
	$(BIN)/$(INSTALL) -c constraints.txt "seqssvae[docs]"
	touch $@

# The tutorials are run on the way, in a directory of their own, and their shells end at the first command that fails.
# Warnings are errors: a tutorial that fails, a link that leads nowhere, a name that the reference does not find. (With
# --quiet they would be none.) Then a browser opens every page.
docs: export XLA_FLAGS := $(QUICK_XLA)
docs: $(DOCS)
	cd "$$(mktemp -d)" && env OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" SHELLOPTS=errexit:pipefail NO_MKDOCS_2_WARNING=1 \
		python -W ignore::UserWarning -m mkdocs build --strict -f $(CURDIR)/mkdocs.yml
	$(BIN)/python -m pytest tests/test_site.py

demo: $(READY)
	$(BIN)/seqssvae demo

# each worker has one core: more threads than cores would only wait for each other; conftest.py has long files come first;
# the site is what `make docs` tests
test: $(HOST)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore tests/test_site.py

thorough: $(HOST)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore tests/test_site.py -m "" --hypothesis-profile thorough

# the wheel is built from the sdist, so that both are known to be whole
package: $(READY) $(PACKAGING)
	rm -rf build dist
	$(PACKAGING)/bin/python -m build --outdir dist . > $(VENV)/build.log || { cat $(VENV)/build.log; exit 1; }
	$(PACKAGING)/bin/twine check --strict dist/*

# an environment of their own: two commands must not install into one at the same time
$(PACKAGING): constraints.txt
	$(PYTHON) -m venv --clear $@
	$@/bin/$(INSTALL) -c constraints.txt build twine
	touch $@

$(OLDEST_TORCH): constraints-minimum.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/$(INSTALL) -c constraints-minimum.txt torch
	touch $@

# all that is to be installed before the tests, the tutorials and `make installed` can run side by side
environments: $(DOCS) $(OLDEST_TORCH) package

# The wheel in an environment made from nothing, used from outside of the checkout; then some of the tests, which see the
# checkout. With a cache of its own, as programs compiled by another version are of no use.
minimum: package
	$(MAKE) installed

# the same for a wheel that is in dist/ already; torch, which is large, can be installed long before there is one
installed: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.cache/jax-minimum
installed: $(OLDEST_TORCH)
	$(OLDEST)/bin/$(INSTALL) --force-reinstall --no-deps dist/*.whl
	$(OLDEST)/bin/$(INSTALL) -c constraints-minimum.txt "seqssvae[all,arrow,completion,demo,hub,report,tune]" beartype hypothesis pytest pytest-xdist scikit-learn
	OMP_NUM_THREADS=1 tests/installed.sh $(abspath $(OLDEST)/bin)
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
	$(BIN)/$(INSTALL) -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.estimators $(PARTS)
	$(BIN)/python -m benchmarks.estimator_tables

inflection: $(HOST)
	$(BIN)/$(INSTALL) -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.inflection
	$(BIN)/python -m benchmarks.inflection_tables

bench: $(READY)
	$(BIN)/$(INSTALL) -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.enumeration $(PARTS)
	$(BIN)/python -m benchmarks.tables
