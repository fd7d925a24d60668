/* Threads are spawned for one call and joined in it: a fork between calls is safe, and there is no pool to share.

   Elementwise results do not depend on the thread that computes them, and partial sums are exact: any division of the elements
   gives the same bits. */

#if defined(__linux__)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* sched_getaffinity */
#endif
#include <sched.h>
#endif

#include <stdatomic.h>
#include <stdlib.h>

#include "bce_internal.h"

#if defined(_WIN32)

/* POSIX threads only: on Windows the calling thread computes all shares. */
typedef struct {
    char unused;
} thread;

static bool spawn(thread *t, void *(*function)(void *), void *argument)
{
    (void)t, (void)function, (void)argument;
    return false;
}

static void join(thread t)
{
    (void)t;
}

static long processors(void)
{
    return 1;
}

#else

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

typedef pthread_t thread;

/* Returns false if the system gives no thread.

   The thread blocks signals: their handlers may rely on running in the caller's threads. But a fault (SIGBUS, say, where a
   mapped file was cut short) goes to the thread whose instruction caused it: blocked, it would kill the process and call no
   handler. */
static bool spawn(thread *t, void *(*function)(void *), void *argument)
{
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t asynchronous, before;
    sigfillset(&asynchronous);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&asynchronous, faults[i]);
    pthread_sigmask(SIG_SETMASK, &asynchronous, &before);
    bool spawned = pthread_create(t, NULL, function, argument) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return spawned;
}

static void join(thread t)
{
    pthread_join(t, NULL);
}

/* The processors open to this process, where the system tells. */
static long processors(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

#endif

/* Creating and joining a thread takes 10 to 40 microseconds. This many elements take some 100. */
#define ELEMENTS_PER_THREAD ((int64_t)1 << 17)
/* Shares start at multiples of this: whole blocks, and whole cache lines of every type. */
#define SEGMENT ((int64_t)1 << 12)

static atomic_int thread_limit = 0;

void bce_set_num_threads(int n)
{
    atomic_store(&thread_limit, n < 1 ? 0 : n > BCE_MAX_THREADS ? BCE_MAX_THREADS : n);
}

int bce_get_num_threads(void)
{
    int n = atomic_load(&thread_limit);
    if (n > 0)
        return n;
    const char *wanted = getenv("BCE_BRIDGE_NUM_THREADS");
    char *end = NULL;
    long number = wanted != NULL ? strtol(wanted, &end, 10) : 0;
    if (number < 1 || *end != '\0')
        number = processors();
    int found = number < 1 ? 1 : number > BCE_MAX_THREADS ? BCE_MAX_THREADS : (int)number;
    /* Another thread may have set a limit meanwhile: then take that. */
    return atomic_compare_exchange_strong(&thread_limit, &n, found) ? found : n;
}

/* Poll for interruption every 2^18 elements (about 0.5 ms). */
#define ELEMENTS_PER_LOOK ((int64_t)1 << 18)

/* One thread's share of the elements. */
typedef struct {
    bce_run *run;
    const bce_plan *plan;
    atomic_bool *stop;
    bool asks;  /* whether the calling thread runs it: that thread polls */
    int64_t begin, end;
    bce_sum sum;
    thread thread;
    bool spawned;
} work;

static void *do_work(void *argument)
{
    work *w = argument;
    memset(&w->sum, 0, sizeof w->sum);
    for (int64_t begin = w->begin; begin < w->end && !atomic_load(w->stop); begin += ELEMENTS_PER_LOOK) {
        w->run(w->plan, begin, w->end - begin < ELEMENTS_PER_LOOK ? w->end : begin + ELEMENTS_PER_LOOK, &w->sum);
        bce_partial_normalize(&w->sum.partial);
        if (w->asks && w->plan->interrupted != NULL && w->plan->interrupted(w->plan->interrupted_argument))
            atomic_store(w->stop, true);
    }
    return NULL;
}

bool bce_run_on_threads(bce_run *run, const bce_plan *plan, bce_sum *sum)
{
    int64_t segments = (plan->count + SEGMENT - 1) / SEGMENT;
    int64_t worth = plan->count / ELEMENTS_PER_THREAD;
    int threads = bce_get_num_threads();
    threads = worth < threads ? (int)worth : threads;
    atomic_bool stop = false;
    work alone, *works = threads > 1 ? malloc((size_t)threads * sizeof *works) : NULL;
    if (works == NULL) {
        /* One thread is enough, or malloc failed. */
        works = &alone;
        threads = 1;
    }
    for (int i = 0; i < threads; i++) {
        work *w = &works[i];
        w->run = run;
        w->plan = plan;
        w->stop = &stop;
        w->begin = segments * i / threads * SEGMENT;
        w->end = i + 1 < threads ? segments * (i + 1) / threads * SEGMENT : plan->count;
        w->asks = false;
        w->spawned = i + 1 < threads && spawn(&w->thread, do_work, w);
    }
    /* The calling thread takes the last share, and any share whose thread could not be created. */
    for (int i = threads - 1; i >= 0; i--)
        if (!works[i].spawned) {
            works[i].asks = true;
            do_work(&works[i]);
        }
    for (int i = 0; i < threads; i++) {
        if (works[i].spawned)
            join(works[i].thread);
        if (i == 0) {
            *sum = works[i].sum;
        } else {
            bce_partial_merge(&sum->partial, &works[i].sum.partial);
            sum->quick += works[i].sum.quick;
        }
    }
    if (works != &alone)
        free(works);
    return !atomic_load(&stop);
}
