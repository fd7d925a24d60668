/* The instruction set in use: the widest that the machine has, or the one that BCE_BRIDGE_ISA or bce_set_isa names. */

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

/* In order of preference: the widest first. */
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

/* Set *path to the index of the named path, or of the widest supported one if name is NULL. */
static bce_status find(const char *name, const char *origin, int *path, char *message)
{
    for (int i = 0; i < PATHS; i++)
        if (name == NULL ? paths[i].supported() : strcmp(name, paths[i].name) == 0) {
            if (!paths[i].supported())
                return bce_fail(message, BCE_ERROR_ISA, "%s must be an instruction set of this machine, got '%s'", origin,
                                name);
            *path = i;
            return BCE_OK;
        }
    char known[128] = "";
    for (int i = 0; i < PATHS; i++) {
        strcat(known, i > 0 ? ", " : "");
        strcat(known, paths[i].name);
    }
    return bce_fail(message, BCE_ERROR_ISA, "%s must be an instruction set of this build (%s), got '%s'", origin, known, name);
}

bce_status bce_set_isa(const char *name, char *message)
{
    int path;
    bce_status status = find(name, "isa", &path, message);
    if (status == BCE_OK)
        atomic_store(&chosen, path);
    return status;
}

/* The path in use. The first call takes it from the environment, unless another thread calls bce_set_isa meanwhile. */
static bce_status current(int *path, char *message)
{
    *path = atomic_load(&chosen);
    if (*path >= 0)
        return BCE_OK;
    const char *wanted = getenv("BCE_BRIDGE_ISA");
    int found, none = -1;
    bce_status status = find(wanted != NULL && *wanted != '\0' ? wanted : NULL, "BCE_BRIDGE_ISA", &found, message);
    if (status == BCE_OK)
        *path = atomic_compare_exchange_strong(&chosen, &none, found) ? found : none;
    return status;
}

bce_status bce_get_isa(const char **name, char *message)
{
    if (name == NULL)
        return bce_fail(message, BCE_ERROR_ARGUMENT, "name must not be NULL");
    int path;
    bce_status status = current(&path, message);
    if (status == BCE_OK)
        *name = paths[path].name;
    return status;
}

bce_status bce_current_run(bce_run **run, char *message)
{
    int path;
    bce_status status = current(&path, message);
    if (status == BCE_OK)
        *run = paths[path].run;
    return status;
}
