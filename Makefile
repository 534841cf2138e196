# Everything runs in a virtual environment that `make` sets up by itself the first time, and again when the pins change.
# PYTHON=/path/to/python3 chooses the interpreter (3.10 or newer).
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
READY := $(VENV)/.ready
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo ui test test-servers test-airflow test-matrix torture fuzz bench bench-smoke bench-loader bench-pages bench-triggers bench-upload bench-limits audit package docs check clean
.NOTPARALLEL:

help: ## show this list
	@echo "airflow-provider-cloudbilling"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## import two months of invoices into .demo/erp_staging.db and send the sales to Sage, through Airflow
	@$(PY) scripts/demo.py

ui: $(READY) ## open Airflow's UI on 127.0.0.1 with the sandbox and the connections ready
	@$(PY) scripts/ui.py

test: $(READY) ## run the tests
	@$(PY) -m pytest --numprocesses auto --dist worksteal

test-servers: $(READY) ## run on the database servers what make test runs on SQLite alone
	@$(PY) -m pytest --numprocesses auto --dist worksteal -m servers

torture: $(READY) ## run what takes long: kills, copies, faults, fuzzing, memory; figures go to benchmarks/results/torture.md
	@CLOUDBILLING_TEST_THOROUGH=1 $(PY) -m pytest --numprocesses auto --dist worksteal -m "slow or thorough"

fuzz: .venv-fuzz/.ready ## draw bytes for the parsers for ten minutes (FUZZ="--seconds 20 json" for a first look); figures go to benchmarks/results/fuzz.md
	@PYTHONPATH=. .venv-fuzz/bin/python tests/fuzz.py $(FUZZ)

.venv-fuzz/.ready: tests/fuzz.txt $(CONSTRAINTS) $(READY)
	@$(PY) -m venv --clear .venv-fuzz
	@.venv-fuzz/bin/python -m pip install -q -c $(CONSTRAINTS) -r tests/fuzz.txt || { \
		echo "atheris has wheels for Python 3.11 to 3.13 on Linux; make PYTHON=/path/to/python3.11 fuzz" >&2; exit 1; }
	@touch $@

test-airflow: $(READY) ## run the tests that boot a whole Airflow, one after the other
	@$(PY) -m pytest -m processes

bench-smoke: $(READY) ## run the benchmarks small: rows, sums and fast paths are right; times do not count
	@$(PY) -m pytest -m slow tests/test_benchmarks.py

test-matrix: $(READY) ## run the tests that every supported Airflow version must pass
	@$(PY) -m pytest -m matrix

bench: ## import 500 pages beside dlt, HttpOperator and a loop by hand; BENCH="--pages 50 --rounds 1" for a first look
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/.ready
	@.venv-bench/bin/python -m pip install -q --no-deps -r benchmarks/requirements.txt
	@.venv-bench/bin/python -m pip install -q -c $(CONSTRAINTS) -r benchmarks/peers/requirements.txt
	@$(MAKE) --no-print-directory .venv-bench-dlt/.ready || echo "dlt does not install; it is left out" >&2
	@.venv-bench/bin/python benchmarks/bench.py $(BENCH)

.venv-bench-dlt/.ready: benchmarks/peers/dlt/requirements.txt
	@.venv-bench/bin/python -m venv --clear .venv-bench-dlt
	@.venv-bench-dlt/bin/python -m pip install -q -r benchmarks/peers/dlt/requirements.txt
	@touch $@

bench-loader: ## load 300,000 rows into each database, beside executemany and Airflow's insert_rows
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/.ready
	@.venv-bench/bin/python -m pip install -q --no-deps -r benchmarks/requirements.txt
	@.venv-bench/bin/python benchmarks/loader.py

bench-triggers: $(READY) ## wait for 5,000 uploads to Sage in one triggerer
	@$(PY) benchmarks/triggers.py

bench-upload: $(READY) ## send 100,000 staged invoices to Sage from each database
	@$(PY) benchmarks/upload.py

bench-pages: $(READY) ## import 500 pages at 100 ms latency, one after the other and eight at once
	@$(PY) benchmarks/pages.py

bench-limits: $(READY) ## import 500 MB in one answer, 2,000 files, 5,000 pages; BENCH="--parts imports" for one part
	@$(PY) benchmarks/limits.py $(BENCH)

audit: $(READY) .venv-audit/.ready ## look for weaknesses in the source, list what is installed, build the wheel twice, ask for advisories
	@.venv-audit/bin/bandit --quiet --recursive --configfile pyproject.toml airflow_cloudbilling example_dags
	@echo "bandit found nothing but the exceptions that pyproject.toml names"
	@mkdir -p dist && .venv-audit/bin/cyclonedx-py environment $(PY) --pyproject pyproject.toml \
		--output-reproducible --output-file dist/sbom.cdx.json && echo "dist/sbom.cdx.json lists what is installed"
	@rm -rf dist/*.whl dist/again && $(PY) -m build --no-isolation --outdir dist >dist/build.log
	@$(PY) -m build --no-isolation --wheel --outdir dist/again >>dist/build.log
	@cmp dist/*.whl dist/again/*.whl && echo "the wheel is the same, from the source archive and from here:" && sha256sum dist/*.whl
	@.venv-audit/bin/pip-audit --strict --requirement $(CONSTRAINTS) --no-deps --disable-pip --progress-spinner off || { \
		echo "The pins are not shown to be free of known weaknesses: either one is named above, or the advisories could" >&2; \
		echo "not be asked for. All other steps of the audit have passed." >&2; exit 1; }

.venv-audit/.ready: scripts/audit.txt $(READY)
	@$(PY) -m venv --clear .venv-audit
	@.venv-audit/bin/python -m pip install -q -r scripts/audit.txt
	@touch $@

package: $(READY) .venv-audit/.ready ## build wheel and source archive into dist/, check them, install the wheel where nothing else is
	@rm -rf dist/*.whl dist/*.tar.gz && $(PY) -m build --no-isolation --outdir dist
	@.venv-audit/bin/twine check --strict dist/*.whl dist/*.tar.gz
	@scripts/wheel.sh $(PY) .venv-package dist/*.whl $(CONSTRAINTS)

docs: $(READY) ## make a site of docs/ in build/docs, with every operator's arguments; needs no network
	@$(PY) -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

check: $(READY) ## lint, formatting, types and who may import whom
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean: ## remove the virtual environments, the demo's data and the caches
	rm -rf .venv .venv-* .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml $(CONSTRAINTS) scripts/venv.sh
	@scripts/venv.sh $(VENV) $(CONSTRAINTS)
	@touch $@
