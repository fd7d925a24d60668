/* Tests that results depend on no instruction set, thread, process or shortage. */

#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#ifdef _WIN32
#define THREADS_OF_THE_CORE 0  /* it has one thread there, and processes are not forked */
#else
#define THREADS_OF_THE_CORE 1
#include <signal.h>
#include <sys/wait.h>
#endif

#include "test_core.h"

static void restore_defaults(void)
{
    bce_set_isa(NULL, NULL);
    bce_set_num_threads(0);
}

void test_instruction_sets(void)
{
    char message[BCE_MESSAGE_SIZE];
    const char *name = NULL;
    int supported = 0;
    CHECK(bce_isa_name(-1) == NULL && bce_isa_name(1000) == NULL);
    CHECK(!bce_isa_supported(-1) && !bce_isa_supported(1000));
    CHECK(bce_set_isa("sse9", message) == BCE_ERROR_ISA && strstr(message, "scalar") != NULL);
    CHECK(bce_set_isa("", NULL) == BCE_ERROR_ISA);
    CHECK(bce_get_isa(NULL, message) == BCE_ERROR_ARGUMENT);
    uint64_t state = 8;
    for (int64_t n = 0; n <= 4100; n += n < 70 ? 1 : n < 600 ? 37 : 500) {
        problem expected, got;
        problem_init(&expected, n);
        problem_init(&got, n);
        for (int d = 0; d < 2; d++) {
            bool first = true;
            problem_fill(&expected, (bce_dtype)d, n % 2 == 0, &state);
            for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
                bce_status status = bce_set_isa(bce_isa_name(isa), NULL);
                CHECK(status == (bce_isa_supported(isa) ? BCE_OK : BCE_ERROR_ISA));
                if (status != BCE_OK)
                    continue;
                supported++;
                CHECK(bce_get_isa(&name, NULL) == BCE_OK && strcmp(name, bce_isa_name(isa)) == 0);
                problem *p = first ? &expected : &got;
                for (int k = 0; k < RESULTS; k++)
                    p->wanted[k] = contiguous(p->results[k], (bce_dtype)d, &p->n);
                bce_arguments arguments =
                    arguments_of(expected.arrays[0], expected.arrays[1], &expected.arrays[2], &expected.arrays[3], BCE_NONE);
                bce_results results = all_results(p);
                CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
                for (int k = 0; k < RESULTS && !first; k++)
                    CHECK(memcmp(got.results[k], expected.results[k], (size_t)n * element_size((bce_dtype)d)) == 0);
                first = false;
            }
        }
        problem_free(&expected);
        problem_free(&got);
    }
    CHECK(supported > 0);
    restore_defaults();
}

/* Hard labels, now and then a soft one or a logit beyond the formulae among them, with and without the quick formulae (a
   partial sum rules them out): the same bits, on each instruction set. */
void test_quick(void)
{
    enum { N = 2 * 256 + 77 };
    static double x[N], y[N], p[1] = {2.5};
    static unsigned char out[4][N][8];
    const int64_t n = N;
    uint64_t state = 21;
    for (int turn = 0; turn < 200; turn++) {
        for (int i = 0; i < N; i++) {
            x[i] = (random_unit(&state) - 0.5) * (turn % 4 == 0 ? 200.0 : turn % 4 == 1 ? 1e-3 : 20.0);
            y[i] = random_unit(&state) < 0.5 ? 0.0 : 1.0;
        }
        if (turn % 5 == 0)
            x[random_bits(&state) % N] = turn % 2 ? NAN : -HUGE_VAL;
        if (turn % 7 == 0)
            y[random_bits(&state) % N] = random_unit(&state);
        if (turn % 3 == 0)
            x[random_bits(&state) % N] = (turn % 2 ? 1.0 : -1.0) * ldexp(1.0 + random_unit(&state), 6 + turn % 9);
        bce_dtype dtype = (bce_dtype)(BCE_FLOAT32 + turn % 3);
        bce_array weight = number(p);
        bce_arguments arguments = arguments_of(contiguous(x, BCE_FLOAT64, &n), contiguous(y, BCE_FLOAT64, &n), NULL,
                                               turn % 2 ? &weight : NULL, (bce_reduction)(turn / 6 % 3));
        for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
            if (bce_set_isa(bce_isa_name(isa), NULL) != BCE_OK)
                continue;
            for (int way = 0; way < 2; way++) {
                bool scalar = arguments.reduction != BCE_NONE;
                bce_array loss = contiguous(out[2 * way], dtype, &n), gradient = contiguous(out[2 * way + 1], dtype, &n);
                bce_partial partial;
                memset(&partial, 0, sizeof partial);
                loss.ndim = scalar ? 0 : 1;
                bce_results results = no_results;
                results.loss = &loss;
                results.gradient = &gradient;
                results.partial = way == 0 ? &partial : NULL;
                CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
            }
            bool same = true;
            for (int k = 0; k < 2; k++)
                for (int i = 0; i < (k == 0 && arguments.reduction != BCE_NONE ? 1 : N); i++) {
                    const size_t size = element_size(dtype);
                    const unsigned char *a = &out[k][0][0] + (size_t)i * size, *b = &out[k + 2][0][0] + (size_t)i * size;
                    double number_a = element_read(dtype, a);
                    same &= memcmp(a, b, size) == 0 || number_a != number_a;
                }
            CHECK(same);
        }
    }
    restore_defaults();
}

/* float32 logits and 0/1 targets, with the gradient and the partial sum of one call to compare others with. */
typedef struct {
    int64_t n;
    float *x, *gradient;
    unsigned char *y;
    bce_partial partial;
} large;

static bce_status evaluate_large(const large *l, float *gradient, bce_partial *partial)
{
    bce_array out = contiguous(gradient, BCE_FLOAT32, &l->n);
    bce_arguments arguments =
        arguments_of(contiguous(l->x, BCE_FLOAT32, &l->n), contiguous(l->y, BCE_UINT8, &l->n), NULL, NULL, BCE_MEAN);
    bce_results results = no_results;
    memset(partial, 0, sizeof *partial);
    results.gradient = &out;
    results.partial = partial;
    return bce_evaluate(&arguments, &results, NULL);
}

static bool as_before(const large *l, const float *gradient, const bce_partial *partial)
{
    return memcmp(gradient, l->gradient, (size_t)l->n * sizeof(float)) == 0 &&
           memcmp(partial, &l->partial, sizeof *partial) == 0;
}

static void large_init(large *l, int64_t n, uint64_t seed)
{
    l->n = n;
    l->x = allocate((size_t)n * sizeof *l->x);
    l->y = allocate((size_t)n);
    l->gradient = allocate((size_t)n * sizeof *l->gradient);
    for (int64_t i = 0; i < n; i++) {
        l->x[i] = (float)((random_unit(&seed) - 0.5) * 40.0);
        l->y[i] = (unsigned char)(random_bits(&seed) >> 63);
    }
    bce_set_num_threads(1);
    CHECK(evaluate_large(l, l->gradient, &l->partial) == BCE_OK);
    restore_defaults();
}

static void large_free(large *l)
{
    free(l->x);
    free(l->y);
    free(l->gradient);
}

void test_threads(void)
{
    large l;
    bce_partial partial;
    large_init(&l, ((int64_t)1 << 20) + 77, 9);
    float *gradient = allocate((size_t)l.n * sizeof *gradient);
    l.n = ((int64_t)1 << 19) + 77;
    bce_set_num_threads(1);
    CHECK(evaluate_large(&l, l.gradient, &l.partial) == BCE_OK);
    for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
        if (bce_set_isa(bce_isa_name(isa), NULL) != BCE_OK)
            continue;
        for (int threads = 1; threads <= 7; threads++) {
            bce_set_num_threads(threads);
            CHECK(bce_get_num_threads() == threads);
            memset(gradient, 0, (size_t)l.n * sizeof *gradient);
            CHECK(evaluate_large(&l, gradient, &partial) == BCE_OK);
            CHECK(as_before(&l, gradient, &partial));
        }
    }
    restore_defaults();
    /* More threads at work than 2^19 elements are worth. */
    l.n = ((int64_t)1 << 20) + 77;
    bce_set_num_threads(1);
    CHECK(evaluate_large(&l, l.gradient, &l.partial) == BCE_OK);
    for (int threads = 5; threads <= 8; threads++) {
        bce_set_num_threads(threads);
        CHECK(evaluate_large(&l, gradient, &partial) == BCE_OK && as_before(&l, gradient, &partial));
    }
    bce_set_num_threads(INT32_MAX);
    CHECK(bce_get_num_threads() == BCE_MAX_THREADS);
    bce_set_num_threads(INT32_MIN);
    CHECK(bce_get_num_threads() >= 1 && bce_get_num_threads() <= BCE_MAX_THREADS);
    free(gradient);
    large_free(&l);
    restore_defaults();
}

enum { CALLERS = 4, ROUNDS = 12 };

static int third_time(void *times)
{
    return ++*(int *)times == 3;
}

/* Parts of a mean have the gradient and the sum of the whole. A call that is interrupted ends, and the next one is right. */
void test_parts_and_interruption(void)
{
    large l;
    char message[BCE_MESSAGE_SIZE];
    bce_partial partial, part;
    large_init(&l, ((int64_t)1 << 21) + 77, 14);
    float *gradient = allocate((size_t)l.n * sizeof *gradient), third, sum;
    bce_array shown = {&third, BCE_FLOAT32, 0, NULL, NULL};
    memset(&partial, 0, sizeof partial);
    const int64_t ends[] = {0, 1000, 1000, 700001, l.n};
    for (int k = 0; k < 4; k++) {
        int64_t n = ends[k + 1] - ends[k];
        bce_array out = contiguous(gradient + ends[k], BCE_FLOAT32, &n);
        bce_arguments arguments = arguments_of(contiguous(l.x + ends[k], BCE_FLOAT32, &n),
                                               contiguous(l.y + ends[k], BCE_UINT8, &n), NULL, NULL, BCE_MEAN);
        bce_results results = no_results;
        arguments.count = l.n;
        memset(&part, 0, sizeof part);
        results.gradient = &out;
        results.partial = &part;
        results.loss = &shown;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        bce_partial_merge(&partial, &part);
        part.count = l.n;
        CHECK(bce_partial_round(&part, BCE_MEAN, BCE_FLOAT32, &sum) == BCE_OK && memcmp(&sum, &third, sizeof sum) == 0);
        /* By the quick formulae, too. */
        results.partial = NULL;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && memcmp(&sum, &third, sizeof sum) == 0);
    }
    CHECK(as_before(&l, gradient, &partial));

    bce_array out = contiguous(gradient, BCE_FLOAT32, &l.n);
    bce_arguments arguments =
        arguments_of(contiguous(l.x, BCE_FLOAT32, &l.n), contiguous(l.y, BCE_UINT8, &l.n), NULL, NULL, BCE_MEAN);
    bce_results results = no_results;
    results.gradient = &out;
    arguments.count = -1;
    CHECK(bce_evaluate(&arguments, &results, message) == BCE_ERROR_ARGUMENT &&
          strcmp(message, "count must be 0 or more, got -1") == 0);
    arguments.count = 0;
    for (int turn = 0; turn < 3; turn++) {
        const int threads[] = {1, 2, 8};
        int times = 0;
        bce_set_num_threads(threads[turn]);
        arguments.interrupted = third_time;
        arguments.interrupted_argument = &times;
        bool in_eight = turn == 2 && THREADS_OF_THE_CORE;  /* such a share is not long enough for a third look */
        CHECK(bce_evaluate(&arguments, &results, message) == (in_eight ? BCE_OK : BCE_INTERRUPTED));
        CHECK(times == (in_eight ? 2 : 3));
        arguments.interrupted = NULL;
        CHECK(bce_evaluate(&arguments, &results, message) == BCE_OK && memcmp(gradient, l.gradient, (size_t)l.n * 4) == 0);
    }
    free(gradient);
    large_free(&l);
    restore_defaults();
}

static large shared_small, shared_large;
static atomic_int callers_left, callers_wrong;

static void *call_repeatedly(void *unused)
{
    float *gradient = allocate((size_t)shared_large.n * sizeof *gradient);
    bce_partial partial;
    const char *name;
    for (int i = 0; i < ROUNDS; i++) {
        const large *l = i % 4 == 0 ? &shared_large : &shared_small;
        bool good = evaluate_large(l, gradient, &partial) == BCE_OK && as_before(l, gradient, &partial);
        good &= bce_get_isa(&name, NULL) == BCE_OK && bce_get_num_threads() >= 1;
        atomic_fetch_add(&callers_wrong, !good);
    }
    free(gradient);
    atomic_fetch_sub(&callers_left, 1);
    return unused;
}

/* Calls from many threads, while another changes the instruction set and the number of threads. */
void test_concurrent_calls(void)
{
    pthread_t callers[CALLERS];
    large_init(&shared_small, 3001, 10);
    large_init(&shared_large, ((int64_t)1 << 18) + 5, 11);
    atomic_store(&callers_wrong, 0);
    atomic_store(&callers_left, CALLERS);
    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&callers[i], NULL, call_repeatedly, NULL) != 0) {
            fputs("test_core: no thread to be had\n", stderr);
            exit(2);
        }
    for (int i = 0; atomic_load(&callers_left) > 0; i++) {
        const char *name = bce_isa_name(i % 5);
        if (name == NULL || bce_isa_supported(i % 5))
            bce_set_isa(name, NULL);
        bce_set_num_threads(i % 5);
        struct timespec pause = {0, 200000};
        nanosleep(&pause, NULL);
    }
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    CHECK(atomic_load(&callers_wrong) == 0);
    large_free(&shared_small);
    large_free(&shared_large);
    restore_defaults();
}

#if THREADS_OF_THE_CORE
/* The exit status of a child that runs the function; -1 if it came to another end. */
static int in_child(int (*function)(void *), void *argument)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(function(argument));
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int with_unknown_isa(void *unused)
{
    (void)unused;
    const char *name = NULL;
    char message[BCE_MESSAGE_SIZE];
    double x = 1.0;
    bce_arguments arguments = arguments_of(number(&x), number(&x), NULL, NULL, BCE_NONE);
    setenv("BCE_BRIDGE_ISA", "abacus", 1);
    bool good = bce_get_isa(&name, message) == BCE_ERROR_ISA && strstr(message, "got 'abacus'") != NULL &&
                strstr(message, "BCE_BRIDGE_ISA must be an instruction set of this build (") == message;
    good &= name == NULL && bce_evaluate(&arguments, &no_results, message) == BCE_ERROR_ISA;
    /* An explicit choice goes before the environment's. */
    good &= bce_set_isa("scalar", NULL) == BCE_OK && bce_evaluate(&arguments, &no_results, NULL) == BCE_OK;
    return !good;
}

static int with_scalar_isa(void *unused)
{
    (void)unused;
    const char *name = NULL;
    setenv("BCE_BRIDGE_ISA", "scalar", 1);
    setenv("BCE_BRIDGE_NUM_THREADS", "3", 1);
    return !(bce_get_isa(&name, NULL) == BCE_OK && strcmp(name, "scalar") == 0 && bce_get_num_threads() == 3);
}

/* Before any other test: the environment is looked at once. */
void test_environment(void)
{
    CHECK(in_child(with_unknown_isa, NULL) == 0);
    CHECK(in_child(with_scalar_isa, NULL) == 0);
}

static int threaded_call(void *argument)
{
    const large *l = argument;
    float *gradient = allocate((size_t)l->n * sizeof *gradient);
    bce_partial partial;
    bool good = evaluate_large(l, gradient, &partial) == BCE_OK && as_before(l, gradient, &partial);
    free(gradient);
    return !good;
}

void test_fork(void)
{
    large l;
    large_init(&l, (int64_t)1 << 18, 12);
    bce_set_num_threads(2);
    CHECK(threaded_call(&l) == 0);
    CHECK(in_child(threaded_call, &l) == 0);
    CHECK(threaded_call(&l) == 0);
    large_free(&l);
    restore_defaults();
}
#endif

#ifdef TEST_WRAPPED

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static atomic_bool no_memory;
static atomic_size_t bytes_asked_for;
static atomic_int threads_to_be_had = INT32_MAX;
/* While set: the signals that the last thread started with blocked, and how many were started. */
static atomic_bool watching_signals;
static sigset_t blocked_in_threads;
static int threads_started;

void *__wrap_malloc(size_t size)
{
    atomic_fetch_add(&bytes_asked_for, size);
    return atomic_load(&no_memory) ? NULL : __real_malloc(size);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    if (atomic_load(&watching_signals)) {
        pthread_sigmask(SIG_BLOCK, NULL, &blocked_in_threads);
        threads_started++;
    }
    return atomic_fetch_sub(&threads_to_be_had, 1) > 0 ? __real_pthread_create(thread, attributes, run, argument) : 11;
}

/* Without memory, and with no or too few threads, the result is the same. A call asks for the memory of its threads'
   partial sums and of little else, whatever the number of elements. */
void test_shortage(void)
{
    large l;
    bce_partial partial;
    large_init(&l, ((int64_t)1 << 19) + 1, 13);
    float *gradient = allocate((size_t)l.n * sizeof *gradient);
    bce_set_num_threads(4);
    for (int turn = 0; turn < 4; turn++) {
        memset(gradient, 0, (size_t)l.n * sizeof *gradient);
        atomic_store(&no_memory, turn == 3);
        atomic_store(&threads_to_be_had, turn);
        atomic_store(&bytes_asked_for, 0);
        bce_status status = evaluate_large(&l, gradient, &partial);
        atomic_store(&no_memory, false);
        atomic_store(&threads_to_be_had, INT32_MAX);
        CHECK(status == BCE_OK && as_before(&l, gradient, &partial));
        CHECK(atomic_load(&bytes_asked_for) <= 4 * 2 * sizeof partial);
    }
    free(gradient);
    large_free(&l);
    restore_defaults();
}

/* A thread of the core runs no handler of the caller's but for its own faults, which it cannot leave to another thread; and the
   caller's mask is after a call what it was before. */
void test_signals(void)
{
    const int others[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGALRM, SIGUSR1, SIGPIPE};
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    large l;
    bce_partial partial;
    sigset_t mine, before, after;
    large_init(&l, (int64_t)1 << 18, 15);
    sigemptyset(&mine);
    sigaddset(&mine, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &mine, &before);
    bce_set_num_threads(2);
    threads_started = 0;
    atomic_store(&watching_signals, true);
    float *gradient = allocate((size_t)l.n * sizeof *gradient);
    CHECK(evaluate_large(&l, gradient, &partial) == BCE_OK && as_before(&l, gradient, &partial));
    atomic_store(&watching_signals, false);
    CHECK(threads_started == 1);
    pthread_sigmask(SIG_SETMASK, &before, &after);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        CHECK(sigismember(&blocked_in_threads, others[i]) == 1);
        CHECK(sigismember(&after, others[i]) == 0);
    }
    CHECK(sigismember(&after, SIGUSR2) == 1);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        CHECK(sigismember(&blocked_in_threads, faults[i]) == 0);
    free(gradient);
    large_free(&l);
    restore_defaults();
}

#endif
