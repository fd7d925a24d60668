# make crosscheck    compare Python, R, the C core, libtorch and the recorded R torch
# make test          all tests
# make setup         what both do first: .venv with Python packages, R, and the R package inside .venv
# make clean         remove .venv and everything built

PYTHON ?= python3
VENV := .venv
R_LIBRARY := $(VENV)/lib/R/library
CORE := $(wildcard c_src/*.c c_src/*.h c_src/*.inc)
R_PACKAGE := $(shell find r_compat -type f -not -path '*/src/bce.*' -not -path '*/src/bce_*' -not -name '*.o' -not -name '*.so')

.PHONY: setup crosscheck test test-python test-r clean

setup: $(VENV)/python-installed

# R comes first: which rpy2 fits depends on R's version.
$(VENV)/r-installed: $(CORE) $(R_PACKAGE) tools/setup-r.sh
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@tools/setup-r.sh $(R_LIBRARY); status=$$?; \
	if [ $$status = 0 ]; then echo yes >$@; elif [ $$status = 3 ]; then echo no >$@; else exit $$status; fi

$(VENV)/python-installed: $(VENV)/r-installed $(CORE) pyproject.toml setup.py constraints.txt constraints-old-r.txt bce_bridge/_build.py
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt setuptools cffi wheel
	@extras=test-python; constraints="--constraint constraints.txt"; \
	if [ "$$(cat $(VENV)/r-installed)" = yes ]; then \
		extras=test; \
		if Rscript -e 'quit(status = getRversion() >= "4.5")'; then constraints="$$constraints --constraint constraints-old-r.txt"; fi; \
	fi; \
	$(VENV)/bin/python -m pip install --quiet --no-build-isolation $$constraints --editable ".[$$extras]"
	@touch $@

crosscheck: setup
	@$(VENV)/bin/bce-bridge crosscheck

test: test-python test-r

test-python: setup
	@if [ "$$(cat $(VENV)/r-installed)" = yes ]; then \
		$(VENV)/bin/python -m pytest; \
	else \
		echo "R is not installed: its tests do not run."; $(VENV)/bin/python -m pytest -m "not r"; \
	fi

test-r: setup
	@if [ "$$(cat $(VENV)/r-installed)" = yes ]; then \
		R_LIBS=$(abspath $(R_LIBRARY)) Rscript -e 'testthat::test_dir("r_compat/tests/testthat", package = "bcebridge", load_package = "installed", stop_on_failure = TRUE)'; \
	fi

clean:
	rm -rf $(VENV) build *.egg-info bce_bridge/_core.* r_compat/src/bce.* r_compat/src/bce_* r_compat/src/*.o r_compat/src/*.so
