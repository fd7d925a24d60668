# make crosscheck    compare Python, R, the C core, libtorch and the recorded R torch
# make test          all tests
# make check-r       R CMD check --as-cran of the R package, which must end with Status: OK
# make test-composer    the tests beside Composer's own function, with the torch it pins in .venv-composer (some GB)
# make test-lucid    the tests with Lucid 2 itself, which wants PYTHON=python3.12 or newer, in .venv-lucid (1 GB)
# make docs          the site of the pages and of the reference, into build/docs (wants Python 3.11 or newer)
# make record-composer  record the answers of Composer that make test compares with
# make matrix        the tests with every supported Python, torch, NumPy, cffi, rpy2 that is to be had here: docs/support.md
# make lint          ruff's checks of the Python code and of its format; part of make test
# make version       set the version to VERSION=1.2.3, everywhere that it is written
# make release-check    build a release from a clean clone of HEAD, test what was built, and put it into dist/ (some 15 minutes)
# make exhaustive    check the float32 results for all 2^32 logits (some minutes; needs GNU MPFR)
# make sanitize      the C core's tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
# make fuzz          any headers at all through the C core for FUZZ_SECONDS=60 (needs clang)
# make mutants       change the C core in MUTANTS=100 ways, one at a time, and see whether a test fails; writes docs/mutants.txt
#                    (some ten minutes)
# make verify-bits   compare the core's bits over compilers, options and instruction sets (needs clang)
# make verify-pairs  the CUDA fast path in C, for all 2^32 logits (some minutes); writes docs/pairs.txt
# make verify-neon   the same on AArch64 under qemu, with the core's tests (needs a cross compiler)
# make verify-windows  the same, but for threads, on Windows under Wine; and R's DLL and Python's must link (needs MinGW's GCC)
# make setup         what test does first: .venv with Python packages, R, and the R package inside .venv
# make clean         remove .venv and everything built

PYTHON ?= python3
# The torch for .venv, unless $(PYTHON) has one; TORCH_INDEX names the package index to take it from instead of PyPI.
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
MUTANTS ?= 100
VENV := .venv
COMPOSER := $(VENV)-composer
LUCID := $(VENV)-lucid
R_LIBRARY := $(VENV)/lib/R/library
CORE := $(wildcard c_src/*.c c_src/*.h c_src/*.inc)
PYTHON_SETUP := pyproject.toml setup.py constraints.txt constraints-old-r.txt bce_bridge/_build.py tools/setup-python.sh
R_PACKAGE := $(shell find r_compat -type f -not -path '*/src/bce.*' -not -path '*/src/bce_*' -not -name '*.o' -not -name '*.so')

.PHONY: setup crosscheck test matrix lint test-python test-r check-r docs test-composer test-lucid record-composer version release-check exhaustive mutants clean

setup: $(VENV)/test-python

$(VENV)/bin/python:
	@PYTHON="$(PYTHON)" tools/setup-python.sh $(VENV) venv

# What the system has comes first: which rpy2 fits depends on R's version.
$(VENV)/system: $(CORE) $(R_PACKAGE) tools/setup-system.sh | $(VENV)/bin/python
	@tools/setup-system.sh $(R_LIBRARY) crosscheck >$@.new && mv $@.new $@

$(VENV)/crosscheck-python: $(VENV)/system $(CORE) $(PYTHON_SETUP)
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" tools/setup-python.sh $(VENV) crosscheck
	@touch $@

$(VENV)/test-system: tools/setup-system.sh | $(VENV)/system
	@tools/setup-system.sh $(R_LIBRARY) test >$@.new && mv $@.new $@

$(VENV)/test-python: $(VENV)/crosscheck-python $(VENV)/test-system tools/matching_triton.py
	@tools/setup-python.sh $(VENV) test
	@touch $@

crosscheck: $(VENV)/crosscheck-python
	@$(VENV)/bin/bce-bridge crosscheck

test: lint test-python test-r

lint: setup
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --check --quiet .

test-python: setup
	@without=""; \
	for part in r mpfr chromium; do \
		grep -qx "$$part" $(VENV)/system $(VENV)/test-system || { echo "Not installed, so its tests do not run: $$part"; without="$$without and not $$part"; }; \
	done; \
	$(VENV)/bin/python -c 'import bce_bridge.torch.triton_kernel' 2>/dev/null || { echo "Not installed, or too old, so its tests do not run: triton"; without="$$without and not triton"; }; \
	$(VENV)/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal -m "$${without# and }"

test-r: setup
	@if ! grep -qx testthat $(VENV)/test-system; then \
		echo "Not installed, so the R package's own tests do not run: testthat"; \
	elif grep -qx r $(VENV)/system; then \
		NOT_CRAN=true R_LIBS=$(abspath $(R_LIBRARY)) Rscript -e 'testthat::test_dir("r_compat/tests/testthat", package = "bcebridge", load_package = "installed", stop_on_failure = TRUE)'; \
	fi

# MATRIX names the cells, as in MATRIX='python-3.12 rpy2'; all of them take hours and some GB of downloads for each torch.
matrix: $(VENV)/bin/python
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt nox
	@$(VENV)/bin/nox $(if $(MATRIX),--session $(MATRIX)); status=$$?; $(VENV)/bin/python tools/support.py; exit $$status

check-r:
	@tools/check-r.sh build/check-r

$(VENV)/docs-python: $(VENV)/crosscheck-python
	@tools/setup-python.sh $(VENV) docs
	@touch $@

docs: $(VENV)/docs-python
	@tools/build-docs.sh build/docs $(VENV)/bin/python

# 0.13.5 is the last mosaicml with size_average and reduce; of it only loss.py is used, from a folder of its own.
$(COMPOSER)/installed: $(CORE) pyproject.toml setup.py constraints.txt bce_bridge/_build.py
	@test -d $(COMPOSER) || $(PYTHON) -m venv $(COMPOSER)
	@$(COMPOSER)/bin/pip install --quiet --disable-pip-version-check mosaicml==0.32.1 cffi mpmath pytest
	@$(COMPOSER)/bin/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(COMPOSER)/legacy mosaicml==0.13.5
	@$(COMPOSER)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-composer: $(COMPOSER)/installed
	@$(COMPOSER)/bin/python -m pytest tests/systems/real_composer.py tests/systems/test_composer.py

# Of Lucid 2, 2.10 and newer import with Python 3.14 alone; mlx, which all of it imports, has its library in mlx[cpu] on Linux.
$(LUCID)/installed: $(CORE) pyproject.toml setup.py constraints.txt bce_bridge/_build.py
	@test -d $(LUCID) || $(PYTHON) -m venv $(LUCID)
	@$(LUCID)/bin/pip install --quiet --disable-pip-version-check 'lucid-dl==2.9.0; python_version < "3.14"' \
		'lucid-dl==2.16.0; python_version >= "3.14"' 'mlx[cpu]; sys_platform == "linux"' cffi mpmath pytest
	@$(LUCID)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-lucid: $(LUCID)/installed
	@$(LUCID)/bin/python -m pytest tests/systems/real_lucid.py tests/systems/test_lucid.py

record-composer: $(COMPOSER)/installed
	@$(COMPOSER)/bin/python tools/record_composer.py $(COMPOSER)/legacy

# c_src/bce.h is where the version is read from; tests/docs/test_repository.py holds the others to it.
version:
	@echo "$(VERSION)" | grep -qE '^[0-9]+\.[0-9]+\.[0-9]+$$' || { echo "VERSION must be three numbers such as 1.2.3, got '$(VERSION)'" >&2; exit 1; }
	@sed -i.old -e 's/^#define BCE_VERSION .*/#define BCE_VERSION "$(VERSION)"/' -e 's/^\([Vv]ersion\): .*/\1: $(VERSION)/' \
		c_src/bce.h r_compat/DESCRIPTION CITATION.cff
	@rm c_src/bce.h.old r_compat/DESCRIPTION.old CITATION.cff.old

release-check:
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" tools/release-check.sh

exhaustive:
	@mkdir -p build
	@$(CC) -O2 -pthread c_src/*.c c_src/verify/exhaustive.c -o build/exhaustive -lmpfr -lgmp -lm
	@build/exhaustive

mutants: setup
	@nice $(VENV)/bin/python tools/mutants.py $(MUTANTS)

clean:
	rm -rf $(VENV) $(COMPOSER) $(LUCID) .nox build dist *.egg-info bce_bridge/_core.* r_compat/src/bce.* r_compat/src/bce_* r_compat/src/*.o r_compat/src/*.so

include c_src/verify/verify.mk
