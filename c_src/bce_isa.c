/* Which instruction set is used: the widest that the machine has, or the one that BCE_BRIDGE_ISA or bce_set_isa names. */

#include <stdatomic.h>
#include <stdlib.h>

#include "bce_internal.h"

static bool always(void)
{
    return true;
}

#ifdef BCE_X86_64
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw");
}
#endif

/* In the order of preference. */
static const struct {
    const char *name;
    bce_run *run;
    bool (*supported)(void);
} paths[] = {
#ifdef BCE_X86_64
    {"avx512", bce_run_avx512, has_avx512},
    {"avx2", bce_run_avx2, has_avx2},
#endif
#ifdef BCE_AARCH64
    {"neon", bce_run_neon, always},
#endif
    {"scalar", bce_run_scalar, always},
};

enum { PATHS = sizeof paths / sizeof *paths };

static atomic_int chosen = -1;

const char *bce_isa_name(int index)
{
    return index >= 0 && index < PATHS ? paths[index].name : NULL;
}

int bce_isa_supported(int index)
{
    return index >= 0 && index < PATHS && paths[index].supported();
}

static bce_status choose(const char *name, const char *origin, char *message)
{
    for (int i = 0; i < PATHS; i++)
        if (name == NULL ? paths[i].supported() : strcmp(name, paths[i].name) == 0) {
            if (!paths[i].supported())
                return bce_fail(message, BCE_ERROR_ISA, "%s is '%s', which this machine does not have", origin, name);
            atomic_store(&chosen, i);
            return BCE_OK;
        }
    char known[128] = "";
    for (int i = 0; i < PATHS; i++) {
        strcat(known, i > 0 ? ", " : "");
        strcat(known, paths[i].name);
    }
    return bce_fail(message, BCE_ERROR_ISA, "%s is '%s', wants one of those in this build: %s", origin, name, known);
}

bce_status bce_set_isa(const char *name, char *message)
{
    return choose(name, "isa", message);
}

bce_status bce_get_isa(const char **name, char *message)
{
    if (atomic_load(&chosen) < 0) {
        const char *wanted = getenv("BCE_BRIDGE_ISA");
        bce_status status = choose(wanted != NULL && *wanted != '\0' ? wanted : NULL, "BCE_BRIDGE_ISA", message);
        if (status != BCE_OK)
            return status;
    }
    *name = paths[atomic_load(&chosen)].name;
    return BCE_OK;
}

bce_status bce_current_run(bce_run **run, char *message)
{
    const char *name;
    bce_status status = bce_get_isa(&name, message);
    if (status == BCE_OK)
        *run = paths[atomic_load(&chosen)].run;
    return status;
}
