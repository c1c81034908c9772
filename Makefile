# The two commands of a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-full test-frameworks test-load coverage soak simulate bench build audit conformance faults fuzz growth mutation lint types docs site clean

demo: $(VENV)/.demo ## run the demo service: no key, no network
	$(BIN)/taskpilot-obs demo $(ARGS)

test: ## set up everything, then lint, types and every test
	scripts/test.sh

test-full: ## the long ones as well
	TASKPILOT_OBS_FULL=1 scripts/test.sh

test-frameworks: ## real frameworks, each in an environment of its own; writes docs/frameworks-results.md
	scripts/test_frameworks.sh $(ARGS)

test-load: $(VENV)/.dev ## the suite three times in a row beside a load of 12
	scripts/under_load.sh $(ARGS)

coverage: ## which lines the tests run
	scripts/coverage.sh

bench: $(VENV)/.dev ## what a call costs, beside its floor and beside doing it by hand
	$(BIN)/python -m benchmarks

growth: $(VENV)/.dev ## cost, memory, scrapes, rules and questions over three decades of what they depend on; writes docs/growth.md
	$(BIN)/python benchmarks/bench_growth.py --write $(ARGS)

soak: $(VENV)/.dev ## a million runs with a blocked exporter; writes docs/soak.md
	$(BIN)/python scripts/soak.py $(ARGS)

simulate: $(VENV)/.dev ## services in a simulated world, SEEDS=10000 of them or HOURS=1000, or SEED=… again; writes docs/simulator.md
	PYTHONHASHSEED=0 $(BIN)/python scripts/simulate.py $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(HOURS),--hours $(HOURS)) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(FIRST),--first $(FIRST)) $(if $(LOG),--log $(LOG))

build: $(VENV)/.dev ## wheel and source distribution, built twice and compared; checksums; an SBOM
	scripts/build.sh

audit: $(VENV)/.dev ## the same, and known vulnerabilities of every package
	scripts/build.sh audit

conformance: $(VENV)/.dev ## what others read of us, by their own definitions; writes docs/conformance.md
	scripts/conformance.sh $(ARGS)

faults: $(VENV)/.dev ## every n-th operation of every kind fails; writes docs/faults.md
	scripts/faults.sh $(ARGS)

fuzz: $(VENV)/.dev ## changed inputs for every parser, MINUTES=600 of them; keeps those that fail; five or more: docs/fuzzing.md
	$(BIN)/python scripts/fuzz.py $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

mutation: $(VENV)/.dev ## would the tests notice a change of the code? ARGS=pricing, SAMPLE=all, CONTROL=1; writes docs/mutation.md
	$(BIN)/pip install -q --disable-pip-version-check 'mutmut>=3.8,<4'
	SAMPLE=$(SAMPLE) FRESH=$(FRESH) MINUTES=$(MINUTES) SEED=$(SEED) UNSEEN=$(UNSEEN) CONTROL=$(CONTROL) \
		nice -n 15 $(BIN)/python -m scripts.mutation $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/prose.py

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/pyright

docs: $(VENV)/.dev ## regenerate what is generated
	$(BIN)/taskpilot-obs metrics --markdown > docs/metrics.md
	$(BIN)/python scripts/write_configuration.py
	$(BIN)/python scripts/write_promises.py
	$(BIN)/python -m scripts.dashboards build
	$(BIN)/python scripts/write_rules.py

site: $(VENV)/.dev ## the documentation as a searchable site in build/site, readable without a network
	$(BIN)/mkdocs build --strict

$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml
	scripts/setup.sh

clean:
	rm -rf $(VENV) dist build .coverage* .mypy_cache .ruff_cache .pytest_cache
