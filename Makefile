# Every target works from a bare python3, make and git: the environment is made when it is missing.
# Another interpreter: make demo PYTHON=python3.12. A wheel index of your own: PIP_EXTRA_INDEX_URL.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lab notebooks exercises bench install clean

demo: $(STAMP)          ## simulated cohort, ST-CNN and MT-CNN against size alone, a report
	$(BIN)/labkit demo

test: $(STAMP)          ## all that CI checks
	$(BIN)/python -m tests.run_all

lab: $(STAMP)           ## JupyterLab on the lessons
	$(BIN)/jupyter lab notebooks

notebooks: $(STAMP)     ## execute the lessons anew with the `lab` profile, outputs in place
	env -u LABKIT_REAL_DATA LABKIT_PROFILE=lab $(BIN)/jupyter nbconvert --execute --inplace \
	    --ExecutePreprocessor.timeout=3600 --ExecutePreprocessor.record_timing=False \
	    --ClearMetadataPreprocessor.enabled=True --ClearMetadataPreprocessor.clear_cell_metadata=False \
	    "--ClearMetadataPreprocessor.preserve_nb_metadata_mask=[('language_info','name'),('kernelspec',)]" \
	    notebooks/[0-9A]*.ipynb

exercises: $(STAMP)     ## generate the exercises from their solutions
	$(BIN)/python -m labkit.exercises

bench: $(STAMP)         ## what is claimed about speed, measured into results/
	$(BIN)/python -m benchmarks.speed.labels --out results/benchmark_labels.json
	$(BIN)/python -m benchmarks.speed.views --out results/benchmark_views.json
	$(BIN)/python -m benchmarks.speed.simulate --cohort --out results/benchmark_simulate.json
	$(BIN)/python -m benchmarks.speed.training --out results/benchmark_training.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed.layouts --device cpu --out results/benchmark_layouts.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed.roofline --device cpu --out results/roofline_cpu.json
	$(BIN)/python -m benchmarks.speed.scaling --out results/benchmark_scaling.json
	$(BIN)/python -m benchmarks.lungs --out results/lungs.json
	$(BIN)/python -m benchmarks.speed.extraction --out results/benchmark_luna16.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed.judging --out results/benchmark_judging.json

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert (3, 10) <= sys.version_info[:2] <= (3, 13), 'Python 3.10 to 3.13 is needed: make PYTHON=python3.12 ...'"
	@echo "Installing into $(VENV): one to five minutes, most of it PyTorch"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,test]"
	touch $(STAMP)

clean:                  ## remove the environment and what tools leave; runs/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
