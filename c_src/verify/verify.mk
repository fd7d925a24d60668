# Checks of the C core that need no Python. Included by the Makefile, which lists them.

VERIFY := build/verify
VERIFY_CORE := $(wildcard c_src/*.c)
FUZZ_SECONDS ?= 60
QEMU := qemu-aarch64
CROSS := aarch64-linux-gnu-gcc
MINGW := x86_64-w64-mingw32-gcc-posix

# Tests of what happens without memory or threads replace malloc and pthread_create, which GNU's linker does.
ifeq ($(shell uname -s),Linux)
SHORTAGE := -DTEST_WRAPPED -Wl,--wrap=malloc,--wrap=pthread_create
endif

TEST_CORE := $(SHORTAGE) -Wall -Wextra $(wildcard c_src/verify/test_*.c) $(VERIFY_CORE) -lm -pthread
ADDRESS := -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
THREAD := -g -O1 -fsanitize=thread

# $(call links,COMPILER OPTIONS): whether they compile and link, sanitizer runtimes included.
links = echo 'int main(void) { return 0; }' | $(1) -x c - -o $(VERIFY)/empty 2>/dev/null

.PHONY: sanitize fuzz verify-bits verify-pairs verify-neon verify-windows

# With $(CC), and with clang too where it is installed.
sanitize:
	@mkdir -p $(VERIFY)
	@$(CXX) -Wall -Wextra -pedantic -fsyntax-only c_src/verify/test_header.cpp
	@compilers=$(CC); \
	if $(call links,clang -fsanitize=address) && $(call links,clang -fsanitize=thread); then compilers="$(CC) clang"; fi; \
	for compiler in $$compilers; do \
		for options in "$(ADDRESS)" "$(THREAD)"; do \
			$(call links,$$compiler $$options) || { \
				echo "make sanitize needs $$compiler with the runtimes of its sanitizers (Debian, Ubuntu: apt-get install gcc libc6-dev)" >&2; exit 1; }; \
			echo "$$compiler $$options"; \
			$$compiler $$options $(TEST_CORE) -o $(VERIFY)/test_core && $(VERIFY)/test_core || exit 1; \
		done; \
	done

# New inputs are kept in build/verify/corpus, from which the next run goes on.
fuzz:
	@mkdir -p $(VERIFY)/corpus
	@echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' | \
	clang -fsanitize=fuzzer,address -x c - -o $(VERIFY)/empty 2>/dev/null || { \
		echo "make fuzz needs clang with libFuzzer (Debian, Ubuntu: apt-get install clang libclang-rt-dev)" >&2; exit 1; }
	@clang $(ADDRESS) -fsanitize=fuzzer -Wall -Wextra c_src/verify/fuzz_core.c $(VERIFY_CORE) -lm -pthread -o $(VERIFY)/fuzz_core
	@$(VERIFY)/fuzz_core -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -timeout=20 -artifact_prefix=$(VERIFY)/ -verbosity=0 \
		-print_final_stats=1 $(VERIFY)/corpus

# Options that would change the bits if the sources let them.
verify-bits:
	@mkdir -p $(VERIFY)
	@$(call links,clang) || { echo "make verify-bits needs clang (Debian, Ubuntu: apt-get install clang)" >&2; exit 1; }
	@c_src/verify/same_bits.sh $(VERIFY) "$(CC) -O2" "$(CC) -O0 -std=c11 -pedantic" "$(CC) -O3 -march=native -ffp-contract=fast" \
		"clang -O2" "clang -O0" "clang -O3 -march=native -ffp-contract=fast"

verify-pairs:
	@mkdir -p $(VERIFY)
	@$(CC) -O3 -march=native -ffp-contract=off -pthread c_src/*.c c_src/verify/pairs.c -o $(VERIFY)/pairs -lm
	@$(VERIFY)/pairs >docs/pairs.txt || { cat docs/pairs.txt >&2; exit 1; }
	@cat docs/pairs.txt

verify-neon:
	@mkdir -p $(VERIFY)
	@$(call links,$(CROSS) -static) && command -v $(QEMU) >/dev/null || { \
		echo "make verify-neon needs $(CROSS) and $(QEMU)" \
			"(Debian, Ubuntu: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)" >&2; exit 1; }
	@$(CROSS) -O2 -static $(TEST_CORE) -o $(VERIFY)/test_core_aarch64
	@$(QEMU) $(VERIFY)/test_core_aarch64
	@$(CROSS) -O2 -static -DBCE_SIMD_NEON c_src/verify/quick_error.c -lm -o $(VERIFY)/quick_error_aarch64
	@$(QEMU) $(VERIFY)/quick_error_aarch64 100003
	@c_src/verify/same_bits.sh $(VERIFY) "$(CC) -O2" "$(CROSS) -O2 -static" "$(CROSS) -O3 -ffp-contract=fast -static"

# Beside the core's own tests, R's DLL and Python's must compile and link.
verify-windows: export WINEDEBUG = -all
verify-windows:
	@mkdir -p $(VERIFY)
	@$(call links,$(MINGW) -static) && command -v wine >/dev/null || { \
		echo "make verify-windows needs $(MINGW) and wine (Debian, Ubuntu: apt-get install g++-mingw-w64-x86-64-posix wine64 wine)" >&2; exit 1; }
	@$(MINGW) -O2 -static -Wall -Wextra $(wildcard c_src/verify/test_*.c) $(VERIFY_CORE) -lm -pthread -o $(VERIFY)/test_core.exe
	@wine $(VERIFY)/test_core.exe
	@c_src/verify/same_bits.sh $(VERIFY) "$(CC) -O2" "$(MINGW) -O2 -static" "$(MINGW) -O0 -static" \
		"$(MINGW) -O3 -march=haswell -ffp-contract=fast -static"
	@c_src/verify/r_dll.sh $(VERIFY) "$(MINGW) -O2 -Wall"
	@c_src/verify/python_dll.sh $(abspath $(VERIFY)) $(MINGW) $(abspath $(VENV)/bin/python)
