# The verbs: demo, test, lint, bench, fuzz, sbom, audit, clean. Each makes the virtual environment first when it is not there.
#   make test PYTHON=/usr/bin/python3.12     another interpreter (3.11 or 3.12)
#   make test VENV=/somewhere/else           another place for the environment
#   make test JOBS=4                         tests in four processes

VENV ?= .venv
MINUTES ?= 5
JOBS ?= 2
PYTHON ?= $(shell for python in python3.11 python3.12 python3 python; do \
    $$python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
    && { echo $$python; break; }; done)

# A folder for programs is called Scripts on Windows.
BIN = $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED = $(VENV)/installed

.PHONY: help demo test lint bench fuzz sbom audit clean
help:
	@echo "make demo    install, transcribe the sample clips, teach the model new voices, print its report's path"
	@echo "make test    install and run the tests"
	@echo "make lint    linter, formatter and type checker"
	@echo "make bench   speed on this machine, beside other recognisers: runs/bench/report.md (about ten minutes)"
	@echo "make fuzz    damage files of every kind for MINUTES=5 and look for crashes, hangs and tracebacks"
	@echo "make sbom    what a fresh installation consists of, with the newest and the oldest packages: dist/sbom-*.json"
	@echo "make audit   known vulnerabilities of these packages; needs pypi.org and api.osv.dev"
	@echo "make clean   remove what the verbs made, the environment too (runs other than the demo's stay)"

$(INSTALLED): pyproject.toml
	@$(if $(PYTHON),,echo "wavasr needs Python 3.11 or 3.12 and none was found; install one, or give PYTHON=/path/to/it" >&2; exit 2)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	    { echo "$(PYTHON) is not Python 3.11 or 3.12; give PYTHON=/path/to/one that is" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(INSTALLED)

demo: $(INSTALLED)
	@PATH="$(abspath $(BIN)):$$PATH" bash benchmarks/demo.sh

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

fuzz: $(INSTALLED)
	$(BIN)/python -m benchmarks.fuzz --minutes $(MINUTES)

sbom:
	.ci/wheels dist

audit: sbom
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	for list in dist/packages-*.txt; do for service in pypi osv; do \
	    .venv-audit/bin/pip-audit --strict --disable-pip --no-deps -s $$service -r $$list || exit 1; done; done

clean:
	rm -rf .venv .venv-audit build dist .mypy_cache .pytest_cache .ruff_cache runs/demo runs/demo-data
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
