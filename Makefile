# The two commands: `make run` (set-up, then the quickstart and a report on a bundled file) and `make test` (everything, notebooks in quick sizes).
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: setup run notebooks test test-unit test-full test-jax lab bench lint lock clean
.DEFAULT_GOAL := run

# Byte-code is left out at install and written at the first import: without it every notebook would compile TensorFlow's sources anew.
unexport PYTHONDONTWRITEBYTECODE

setup: $(READY)

# Built again whenever the pins or the package's own settings change.
$(READY): requirements.lock pyproject.toml
	@echo "Building $(VENV) from requirements.lock (some minutes, 2 GB) ..."
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup
	$(PY) -m slm_helpers run 00
	$(PY) -m slm_helpers report --data data/corpora/news_topics.jsonl --out reports/news_topics
	@echo "Open reports/index.html (the quickstart) and reports/news_topics/report.html (a model trained on a file, and what it is worth)."
	@echo "Your own file: $(VENV)/bin/slm report --data mine.csv --out reports/mine. \`make notebooks\` runs all notebooks, \`make lab\` opens them."

# All notebooks at full size: the figures that they and README state.
notebooks: setup
	$(PY) -m slm_helpers run

# Unit tests, and every notebook and solution in its quick size: all cells run, what holds for little data is checked.
test: setup
	$(PY) -m pytest -n 2 tests

test-unit: setup
	$(PY) -m pytest -n 2 -m "not notebook" tests

# Notebooks and solutions as they stand, every claim checked: an hour or more.
test-full: setup
	SLM_QUICK=0 $(PY) -m pytest -n 2 -m notebook tests

test-jax: setup
	$(PY) -m pip install --quiet --disable-pip-version-check "jax==0.10.2"
	KERAS_BACKEND=jax $(PY) -m pytest -m "not notebook" tests

lab: setup
	$(PY) -m jupyterlab notebooks

# Speed, cost and quality as measured here: some 20 minutes on two free cores. Options, e.g. make bench TEXT=my.txt SECONDS=600:
# TEXT and SECONDS of time_to_quality (no text: the bundled stories), MODEL of generation_speed (none: random weights), and
# TORCH_PYTHON, an interpreter that has PyTorch (none: this one, if its extra `bench` is installed).
TEXT ?=
SECONDS ?= 100
MODEL ?= $(wildcard data/pretrained/slm-base-en)
TORCH_PYTHON ?=
SEED ?= 42
ROUNDS ?= 5

bench: setup
	$(PY) -m tests.benchmarks.training_speed --save --seed $(SEED) --rounds $(ROUNDS) $(if $(TORCH_PYTHON),--torch-python "$(TORCH_PYTHON)")
	$(PY) -m tests.benchmarks.layer_speed --save --seed $(SEED)
	$(PY) -m tests.benchmarks.generation_speed --save --seed $(SEED) --rounds $(ROUNDS) $(if $(MODEL),--model "$(MODEL)",--random)
	$(PY) -m tests.benchmarks.prediction_speed --save --seed $(SEED)
	$(PY) -m tests.benchmarks.time_to_quality --save --seed $(SEED) --seconds $(SECONDS) $(if $(TEXT),--text "$(TEXT)")
	$(PY) -m tests.benchmarks.scaling --save --seed $(SEED)
	$(PY) -m tests.benchmarks.results

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# Needs uv (pip install uv). Names, versions and hashes only.
LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet

# The second is what it takes to use a trained model, in the versions of the first.
lock:
	$(LOCK) --extra train --extra dev --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --output-file requirements-runtime.lock

clean:
	rm -rf reports build .pytest_cache .ruff_cache
