/* Tests of the core through its public header alone, for the sanitizers and for machines without Python.

   Oracles: the formulae of bce.h in long double (64 bits or more), sums in 128-bit integers, and the core itself where two
   calls must agree. Prints a line for each group and the number of checks passed and failed; exit status 1 if any failed.

   Built with -DTEST_WRAPPED -Wl,--wrap=malloc,--wrap=pthread_create it tests too that neither memory nor threads need be
   there. */

#include "test_core.h"

static long passed, failed, group_failed;

void check(bool good, const char *what, const char *file, int line)
{
    passed += good;
    failed += !good;
    group_failed += !good;
    if (!good && group_failed <= 3)
        printf("  %s:%d: %s\n", file, line, what);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } groups[] = {
#ifndef _WIN32
        {"environment", test_environment},
#endif
#ifndef __MINGW32__
        {"fma", test_fma},
#endif
        {"values", test_values},
        {"reference", test_reference},
        {"options", test_options},
        {"limits", test_limits},
        {"dtypes", test_dtypes},
        {"sums", test_sums},
        {"any losses", test_any_losses},
        {"roundings", test_roundings},
        {"ties", test_ties},
        {"partial sums", test_partial_sums},
        {"broadcasting", test_broadcasting},
        {"layouts", test_layouts},
        {"in place", test_in_place},
        {"empty", test_empty},
        {"smoothing, dimensions", test_smoothing_and_dimensions},
        {"refusals", test_refusals},
        {"instruction sets", test_instruction_sets},
        {"quick formulae", test_quick},
        {"threads", test_threads},
        {"parts, interruption", test_parts_and_interruption},
        {"concurrent calls", test_concurrent_calls},
#ifndef _WIN32
        {"fork", test_fork},
#endif
#ifdef TEST_WRAPPED
        {"shortage", test_shortage},
        {"signals", test_signals},
#endif
    };
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        long before = passed;
        group_failed = 0;
        groups[g].run();
        printf("%-22s %8ld passed, %ld failed\n", groups[g].name, passed - before, group_failed);
    }
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed > 0;
}
