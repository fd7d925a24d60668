/* Tests of shapes and memory: broadcasting, layouts, and what is refused. */

#include "test_core.h"

static void c_strides(int ndim, const int64_t *shape, int64_t size, int64_t *strides)
{
    for (int d = ndim - 1; d >= 0; d--) {
        strides[d] = size;
        size *= shape[d];
    }
}

/* Weights of every broadcast shape give what they give expanded. */
void test_broadcasting(void)
{
    enum { MOST = 7 * 300 };
    static const struct {
        int ndim;
        int64_t shape[3];
    } shapes[] = {{0, {0}}, {1, {5}}, {2, {3, 4}}, {2, {3, 1}}, {3, {2, 3, 4}}, {2, {7, 300}}, {2, {300, 7}}, {3, {6, 5, 1}}};
    uint64_t state = 4;
    static double x[MOST], y[MOST], w[MOST], full[MOST], got[2][MOST], expected[2][MOST];
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int pos = 0; pos < 2; pos++)
            for (int drop = 0; drop <= shapes[s].ndim; drop++)
                for (int keep = 0; keep < 1 << (shapes[s].ndim - drop); keep++) {
                    const int ndim = shapes[s].ndim;
                    const int64_t *shape = shapes[s].shape;
                    int64_t strides[3], w_shape[3], w_strides[3], count = 1;
                    for (int d = 0; d < ndim; d++)
                        count *= shape[d];
                    for (int d = drop; d < ndim; d++)
                        w_shape[d - drop] = keep >> (d - drop) & 1 ? shape[d] : 1;
                    c_strides(ndim, shape, 8, strides);
                    c_strides(ndim - drop, w_shape, 8, w_strides);
                    for (int64_t i = 0; i < count; i++) {
                        x[i] = random_logit(&state, BCE_FLOAT64);
                        y[i] = random_unit(&state);
                        w[i] = random_unit(&state) * 4.0;
                    }
                    for (int64_t i = 0; i < count; i++) {
                        int64_t rest = i, offset = 0;
                        for (int d = ndim - 1; d >= 0; d--) {
                            int64_t index = rest % shape[d];
                            rest /= shape[d];
                            if (d >= drop && w_shape[d - drop] > 1)
                                offset += index * w_strides[d - drop];
                        }
                        full[i] = w[offset / 8];
                    }
                    bce_array x_array = {x, BCE_FLOAT64, ndim, shape, strides};
                    bce_array y_array = {y, BCE_FLOAT64, ndim, shape, strides};
                    bce_array w_array = {w, BCE_FLOAT64, ndim - drop, w_shape, w_strides};
                    bce_array full_array = {full, BCE_FLOAT64, ndim, shape, strides};
                    bce_array out[4] = {{got[0], BCE_FLOAT64, ndim, shape, strides},
                                        {got[1], BCE_FLOAT64, ndim, shape, strides},
                                        {expected[0], BCE_FLOAT64, ndim, shape, strides},
                                        {expected[1], BCE_FLOAT64, ndim, shape, strides}};
                    for (int expand = 0; expand < 2; expand++) {
                        const bce_array *weight = expand ? &full_array : &w_array;
                        bce_arguments arguments =
                            arguments_of(x_array, y_array, pos ? NULL : weight, pos ? weight : NULL, BCE_NONE);
                        bce_results results = no_results;
                        results.loss = &out[2 * expand];
                        results.gradient = &out[2 * expand + 1];
                        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
                    }
                    for (int k = 0; k < 2; k++)
                        CHECK(memcmp(got[k], expected[k], (size_t)count * 8) == 0);
                }
}

/* Where an array lies does not matter: negative, spread, transposed and odd strides, data and results alike. */
void test_layouts(void)
{
    enum { A = 6, B = 10, C = 7, N = A * B * C };
    const int64_t shape[3] = {A, B, C};
    const struct {
        int64_t strides[3], first;
    } layouts[] = {
        {{8 * B * C, 8 * C, 8}, 0},
        {{8, 8 * A, 8 * A * B}, 0},
        {{-8 * B * C, -8 * C, -8}, 8 * (N - 1)},
        {{8 * B * C, -8 * C, 8}, 8 * C * (B - 1)},
        {{24 * B * C + 1, 24 * C, 17}, 3},
        {{-13 * N, 13, -13 * B}, 13 * N * (A - 1) + 13 * B * (C - 1) + 1},
        {{8 * C, 8 * A * C, 8}, 0},
    };
    enum { LAYOUTS = sizeof layouts / sizeof *layouts, ROOM = 13 * N * A + 24 * N };
    uint64_t state = 5;
    static unsigned char memory[2][ROOM], out_memory[ROOM];
    double values[2][N], sums[LAYOUTS * LAYOUTS];
    static double expected[N];
    for (int i = 0; i < N; i++) {
        values[0][i] = random_logit(&state, BCE_FLOAT64);
        values[1][i] = random_unit(&state);
    }
    for (int l = 0; l < LAYOUTS * LAYOUTS; l++) {
        const int in = l / LAYOUTS, out = l % LAYOUTS;
        memset(out_memory, 0xa5, sizeof out_memory);
        bce_array arrays[2];
        for (int k = 0; k < 2; k++) {
            const int at = (in + k) % LAYOUTS;
            for (int i = 0; i < N; i++)
                memcpy(memory[k] + layouts[at].first + i / (B * C) * layouts[at].strides[0] +
                           i / C % B * layouts[at].strides[1] + i % C * layouts[at].strides[2],
                       &values[k][i], 8);
            bce_array array = {memory[k] + layouts[at].first, BCE_FLOAT64, 3, shape, layouts[at].strides};
            arrays[k] = array;
        }
        bce_array result = {out_memory + layouts[out].first, BCE_FLOAT64, 3, shape, layouts[out].strides};
        bce_array sum = number(&sums[l]);
        bce_arguments arguments = arguments_of(arrays[0], arrays[1], NULL, NULL, BCE_NONE);
        bce_results results = no_results;
        results.loss = &result;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        bool same = true;
        size_t untouched = 0;
        for (int i = 0; i < N; i++) {
            double got;
            unsigned char *element = out_memory + layouts[out].first + i / (B * C) * layouts[out].strides[0] +
                                     i / C % B * layouts[out].strides[1] + i % C * layouts[out].strides[2];
            memcpy(&got, element, 8);
            if (l == 0)
                expected[i] = got;
            same &= bits_of(got) == bits_of(expected[i]);
            memset(element, 0xa5, 8);
        }
        for (size_t i = 0; i < sizeof out_memory; i++)
            untouched += out_memory[i] == 0xa5;
        CHECK(same);
        CHECK(untouched == sizeof out_memory);
        results.loss = &sum;
        arguments.reduction = BCE_SUM;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && sums[l] == sums[0]);
    }
}

/* Results may be written over the operands that they are computed from. */
void test_in_place(void)
{
    uint64_t state = 6;
    problem problem;
    problem_init(&problem, 1003);
    for (int d = 0; d < FLOATING_DTYPES; d++) {
        problem_fill(&problem, (bce_dtype)d, false, &state);
        bce_arguments arguments =
            arguments_of(problem.arrays[0], problem.arrays[1], &problem.arrays[2], &problem.arrays[3], BCE_NONE);
        bce_results results = all_results(&problem);
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        results = no_results;
        results.gradient = &problem.arrays[0];
        results.loss = &problem.arrays[1];
        results.d_weight = &problem.arrays[2];
        results.curvature = &problem.arrays[3];
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        const int of[4] = {GRADIENT, LOSS, D_WEIGHT, CURVATURE};
        for (int k = 0; k < 4; k++)
            CHECK(memcmp(problem.operands[k], problem.results[of[k]], (size_t)problem.n * element_size((bce_dtype)d)) == 0);
    }
    problem_free(&problem);
}

void test_empty(void)
{
    static const int64_t shapes[][4] = {
        {0, 1, 1, 1}, {3, 0, 2, 1}, {INT64_MAX, INT64_MAX, 0, 4}, {0, INT64_MAX, INT64_MAX, INT64_MAX}};
    static const int64_t strides[] = {INT64_MIN, INT64_MAX, INT64_MAX, -1};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        double loss = 7.0;
        bce_array empty = {NULL, BCE_FLOAT32, 4, shapes[s], strides}, result = number(&loss);
        bce_partial partial = {{0}, 0, 0, 0, 0}, zero = partial;
        bce_arguments arguments = arguments_of(empty, empty, &empty, &empty, BCE_MEAN);
        bce_results results = {&result, &empty, &empty, &empty, &empty, &empty, &partial};
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && isnan(loss));
        arguments.reduction = BCE_SUM;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && loss == 0.0);
        arguments.reduction = BCE_NONE;
        results.loss = &empty;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        CHECK(memcmp(&partial, &zero, sizeof partial) == 0);
    }
}

/* Targets smoothed beforehand give the same; dimensions of 1 and as many dimensions as there may be do no harm. */
void test_smoothing_and_dimensions(void)
{
    enum { N = 64 };
    const int64_t n = N;
    int64_t shape[BCE_MAX_DIMENSIONS], strides[BCE_MAX_DIMENSIONS];
    double x[N], y[N], smoothed[N], got[N], expected[N];
    uint64_t state = 7;
    const double e = 0.25;
    for (int i = 0; i < N; i++) {
        x[i] = random_logit(&state, BCE_FLOAT64);
        y[i] = i % 2;
        smoothed[i] = y[i] * (1.0 - e) + e / 2.0;
    }
    for (int d = 0; d < BCE_MAX_DIMENSIONS; d++) {
        shape[d] = d % 11 == 3 ? 2 : 1;
        strides[d] = INT64_MAX;
    }
    int64_t stride = 8;
    for (int d = BCE_MAX_DIMENSIONS - 1; d >= 0; d--)
        if (shape[d] == 2) {
            strides[d] = stride;
            stride *= 2;
        }
    bce_arguments arguments =
        arguments_of(contiguous(x, BCE_FLOAT64, &n), contiguous(smoothed, BCE_FLOAT64, &n), NULL, NULL, BCE_NONE);
    bce_array out = contiguous(expected, BCE_FLOAT64, &n);
    bce_results results = no_results;
    results.loss = &out;
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    CHECK(stride == 8 * N);
    bce_array deep_x = {x, BCE_FLOAT64, BCE_MAX_DIMENSIONS, shape, strides}, deep_y = deep_x, deep_out = deep_x;
    deep_y.data = y;
    deep_out.data = got;
    arguments = arguments_of(deep_x, deep_y, NULL, NULL, BCE_NONE);
    arguments.label_smoothing = e;
    results.loss = &deep_out;
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    CHECK(memcmp(got, expected, sizeof got) == 0);
}

typedef struct {
    bce_arguments arguments;
    bce_results results;
    bce_array w, p, loss, gradient;
} call;

/* Refused with the status and a message that begins with the text, and nothing written. */
static void check_refused(const call *c, bce_status status, const char *text, int line)
{
    char message[BCE_MESSAGE_SIZE];
    memset(message, 'x', sizeof message);
    double before[4], after[4];
    memcpy(before, c->loss.data, sizeof before);
    check(bce_evaluate(&c->arguments, &c->results, message) == status, "the status", __FILE__, line);
    check(memchr(message, '\0', sizeof message) != NULL && strncmp(message, text, strlen(text)) == 0, message, __FILE__, line);
    check(bce_evaluate(&c->arguments, &c->results, NULL) == status, "the status without a message", __FILE__, line);
    memcpy(after, c->loss.data, sizeof after);
    check(memcmp(before, after, sizeof before) == 0, "nothing is written", __FILE__, line);
}

#define REFUSED(change, status, text)                     \
    do {                                                  \
        call c = good;                                    \
        c.results.loss = &c.loss;                         \
        c.results.gradient = &c.gradient;                 \
        c.arguments.weight = &c.w;                        \
        c.arguments.pos_weight = &c.p;                    \
        change;                                           \
        check_refused(&c, status, text, __LINE__);        \
    } while (0)

void test_refusals(void)
{
    double x[4] = {1.0, 2.0, 3.0, 4.0}, y[4] = {0.0}, w[4] = {1.0}, out[4] = {7.0, 7.0, 7.0, 7.0}, gradient[4];
    const int64_t shape[2] = {2, 2}, strides[2] = {16, 8}, other[2] = {2, 1}, four[1] = {4}, zero[1] = {0};
    const int64_t negative[2] = {-1, -1}, huge[2] = {(int64_t)1 << 40, (int64_t)1 << 40}, cube[3] = {2, 2, 2};
    const int64_t cube_strides[3] = {0, 16, 8}, most[2] = {INT64_MAX, 1}, fits[2] = {INT64_MAX / 8, 1};
    const int64_t wraps[2] = {(int64_t)1 << 33, (int64_t)1 << 31};
    int64_t long_shape[65];
    for (int d = 0; d < 65; d++)
        long_shape[d] = 1;
    bce_array a = {x, BCE_FLOAT64, 2, shape, strides};
    call good = {arguments_of(a, a, NULL, NULL, BCE_NONE), no_results, a, a, a, a};
    good.arguments.targets.data = y;
    good.w.data = w;
    good.p.data = w;
    good.loss.data = out;
    good.gradient.data = gradient;
    char message[BCE_MESSAGE_SIZE];
    CHECK(bce_evaluate(NULL, &good.results, message) == BCE_ERROR_ARGUMENT && strncmp(message, "arguments", 9) == 0);
    CHECK(bce_evaluate(&good.arguments, NULL, message) == BCE_ERROR_ARGUMENT && strncmp(message, "results", 7) == 0);
    CHECK(bce_evaluate(NULL, NULL, NULL) == BCE_ERROR_ARGUMENT);

    REFUSED(c.arguments.logits.data = NULL, BCE_ERROR_ARGUMENT, "logits");
    REFUSED(c.arguments.logits.shape = NULL, BCE_ERROR_ARGUMENT, "logits");
    REFUSED(c.arguments.logits.strides = NULL, BCE_ERROR_ARGUMENT, "logits");
    REFUSED(c.arguments.logits.dtype = (bce_dtype)77, BCE_ERROR_DTYPE, "logits");
    REFUSED(c.arguments.logits.dtype = (bce_dtype)-1, BCE_ERROR_DTYPE, "logits");
    REFUSED(c.arguments.logits.dtype = BCE_INT32, BCE_ERROR_DTYPE,
            "logits must have dtype float64, float32, float16 or bfloat16, got int32");
    REFUSED(c.arguments.logits.ndim = -1, BCE_ERROR_SHAPE, "logits must have 0 to 64 dimensions, got -1");
    REFUSED((c.arguments.logits.ndim = 65, c.arguments.logits.shape = long_shape), BCE_ERROR_SHAPE,
            "logits must have 0 to 64 dimensions, got 65");
    REFUSED(c.arguments.logits.shape = negative, BCE_ERROR_SHAPE, "logits");
    REFUSED(c.arguments.logits.shape = huge, BCE_ERROR_SHAPE,
            "logits must have a shape that fits in memory, got shape (1099511627776, 1099511627776)");
    REFUSED(c.arguments.logits.shape = most, BCE_ERROR_SHAPE,
            "logits must have a shape that fits in memory, got shape (9223372036854775807, 1)");
    REFUSED(c.arguments.logits.shape = fits, BCE_ERROR_SHAPE,
            "targets must have the logits' shape (1152921504606846975, 1), got shape (2, 2)");
    REFUSED(c.arguments.logits.shape = wraps, BCE_ERROR_SHAPE,
            "logits must have a shape that fits in memory, got shape (8589934592, 2147483648)");
    REFUSED(c.arguments.targets.data = NULL, BCE_ERROR_ARGUMENT, "targets");
    REFUSED(c.arguments.targets.dtype = (bce_dtype)10, BCE_ERROR_DTYPE, "targets");
    REFUSED(c.arguments.targets.shape = other, BCE_ERROR_SHAPE,
            "targets must have the logits' shape (2, 2), got shape (2, 1)");
    REFUSED((c.arguments.targets.ndim = 1, c.arguments.targets.shape = four), BCE_ERROR_SHAPE,
            "targets must have the logits' shape (2, 2), got shape (4,)");
    REFUSED((c.w.ndim = 1, c.w.shape = four), BCE_ERROR_SHAPE,
            "weight must broadcast to the logits' shape (2, 2), got shape (4,)");
    REFUSED((c.w.ndim = 1, c.w.shape = zero), BCE_ERROR_SHAPE,
            "weight must broadcast to the logits' shape (2, 2), got shape (0,)");
    REFUSED((c.p.ndim = 3, c.p.shape = cube, c.p.strides = cube_strides), BCE_ERROR_SHAPE,
            "pos_weight must broadcast to the logits' shape (2, 2), got shape (2, 2, 2)");
    REFUSED(c.p.data = NULL, BCE_ERROR_ARGUMENT, "pos_weight");
    REFUSED(c.p.ndim = INT32_MIN, BCE_ERROR_SHAPE, "pos_weight");
    REFUSED(c.arguments.reduction = (bce_reduction)3, BCE_ERROR_ARGUMENT,
            "reduction must be BCE_NONE, BCE_MEAN or BCE_SUM, got 3");
    REFUSED(c.arguments.reduction = (bce_reduction)-1, BCE_ERROR_ARGUMENT,
            "reduction must be BCE_NONE, BCE_MEAN or BCE_SUM, got -1");
    REFUSED(c.arguments.label_smoothing = -0.001, BCE_ERROR_ARGUMENT, "label_smoothing");
    REFUSED(c.arguments.label_smoothing = 1.001, BCE_ERROR_ARGUMENT, "label_smoothing");
    REFUSED(c.arguments.label_smoothing = (double)NAN, BCE_ERROR_ARGUMENT, "label_smoothing");
    REFUSED(c.loss.dtype = BCE_INT64, BCE_ERROR_DTYPE,
            "loss must have dtype float64, float32, float16 or bfloat16, got int64");
    REFUSED(c.loss.shape = other, BCE_ERROR_SHAPE, "loss must have the logits' shape (2, 2), got shape (2, 1)");
    REFUSED(c.arguments.reduction = BCE_MEAN, BCE_ERROR_SHAPE, "loss must be 0-d under this reduction, got shape (2, 2)");
    REFUSED(c.gradient.data = NULL, BCE_ERROR_ARGUMENT, "gradient");
    REFUSED(c.gradient.ndim = 1, BCE_ERROR_SHAPE, "gradient must have the logits' shape (2, 2), got shape (2,)");

    /* A message of a shape that is too long to print. */
    int64_t wide[BCE_MAX_DIMENSIONS];
    for (int d = 0; d < BCE_MAX_DIMENSIONS; d++)
        wide[d] = d == 0 ? 0 : INT64_MAX;
    REFUSED((c.arguments.targets.ndim = 64, c.arguments.targets.shape = wide, c.arguments.targets.strides = wide),
            BCE_ERROR_SHAPE, "targets must have the logits' shape (2, 2), got shape (0, 9223372036854775807, ");
}
