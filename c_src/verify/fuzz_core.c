/* libFuzzer target: any headers, in memory that their strides stay within, through every entry point.

   The API trusts data and strides, so each array gets a block of memory of exactly the bytes that it reaches: whatever a
   sanitizer reports is the core's fault. Everything else may be anything: dimensions, sizes, types, enumerators, null
   pointers, partial sums, overlapping arrays.

   Beyond the sanitizers it checks that a refusal writes nothing but a message, that all instruction sets give the same bits,
   and that partial sums are canonical and independent of order. */

#include <stdio.h>
#include <stdlib.h>

#include "elements.h"

#define MOST_ELEMENTS 1100
#define MOST_DIMENSIONS 66

#define REQUIRE(condition)                                                 \
    do {                                                                   \
        if (!(condition)) {                                                \
            fprintf(stderr, "line %d: not %s\n", __LINE__, #condition);    \
            abort();                                                       \
        }                                                                  \
    } while (0)

typedef struct {
    const uint8_t *data;
    size_t left;
} input;

/* 0 when the input is at its end: the usual choice wherever one is made. */
static unsigned next_byte(input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->data++;
}

static uint64_t next_bits(input *in)
{
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | next_byte(in);
    return bits;
}

static bool one_in(input *in, unsigned n)
{
    return next_byte(in) % n == n - 1;
}

static int64_t next_size(input *in)
{
    static const int64_t unusual[] = {0, -1, INT64_MIN, INT64_MAX, (int64_t)1 << 32, (int64_t)1 << 62, 513, 1031};
    unsigned byte = next_byte(in);
    return byte < 160 ? 1 + byte % 9 : byte < 248 ? byte - 150 : unusual[byte - 248];
}

typedef struct {
    bce_array array;
    int64_t shape[MOST_DIMENSIONS], strides[MOST_DIMENSIONS];
    unsigned char *memory, *copy;
    size_t size;
    bool borrowed;   /* memory of another block */
    bool scrambled;  /* elements may overlap in part, so that even the payload of a NaN shows */
} block;

static void fail_allocation(void)
{
    fputs("fuzz_core: out of memory\n", stderr);
    exit(2);
}

/* The elements of a shape; 0 too if it has so many, or any negative number, that no core may accept it. */
static int64_t count_of(int ndim, const int64_t *shape)
{
    int64_t count = 1;
    for (int d = 0; d < ndim; d++)
        if (shape[d] <= 0)
            return 0;
    for (int d = 0; d < ndim; d++) {
        if (shape[d] > INT64_MAX / 8 / count)
            return 0;
        count *= shape[d];
    }
    return count;
}

static void next_shape(input *in, int *ndim, int64_t *shape)
{
    unsigned byte = next_byte(in);
    *ndim = byte < 230 ? (int)(byte % 6) : byte < 250 ? 64 : byte < 253 ? 65 : -1;
    for (int d = 0; d < *ndim; d++)
        shape[d] = *ndim < 64 || one_in(in, 16) ? next_size(in) : 1;
    /* A legal call takes as long as it has elements. */
    while (count_of(*ndim, shape) > MOST_ELEMENTS) {
        int largest = 0;
        for (int d = 1; d < *ndim; d++)
            largest = shape[d] > shape[largest] ? d : largest;
        shape[largest] = shape[largest] / 2;
    }
}

/* Strides of any kind, and memory that they stay within. */
static void next_block(input *in, block *b, bool floating, int ndim, const int64_t *shape, const block *lender)
{
    unsigned dtype = next_byte(in), layout = next_byte(in);
    int64_t low = 0, high = 0;
    memset(b, 0, sizeof *b);
    if (floating && dtype < 240)
        dtype %= FLOATING_DTYPES;
    b->array.dtype = (bce_dtype)(dtype < 250 ? (int)(dtype % DTYPES) : dtype == 250 ? -1 : (int)dtype);
    b->scrambled = layout % 4 == 2;
    b->array.ndim = ndim;
    b->array.shape = b->shape;
    b->array.strides = b->strides;
    int64_t size = b->array.dtype <= BCE_BOOL ? (int64_t)element_size(b->array.dtype) : 8, stride = size;
    /* Weights broadcast to an empty shape may have any number of elements, none of which is to be read. */
    bool laid_out = count_of(ndim, shape) > 0 && count_of(ndim, shape) <= MOST_ELEMENTS;
    for (int d = ndim - 1; d >= 0; d--) {
        b->shape[d] = shape[d];
        if (layout % 4 == 0) {
            b->strides[d] = stride;
            stride *= laid_out ? shape[d] : 1;
        } else if (layout % 4 == 1) {
            b->strides[d] = size * ((int)(next_byte(in) % 33) - 16);
        } else if (layout % 4 == 2) {
            b->strides[d] = (int)next_byte(in) - 128;
        } else {
            b->strides[d] = laid_out && shape[d] > 1 ? 0 : (int64_t)next_bits(in);
        }
        if (laid_out) {
            int64_t reach = (shape[d] - 1) * (shape[d] > 1 ? b->strides[d] : 0);
            low += reach < 0 ? reach : 0;
            high += reach > 0 ? reach : 0;
        }
    }
    b->size = (size_t)(laid_out ? high - low + size : 0);
    if (lender != NULL && lender->size >= b->size && one_in(in, 8)) {
        b->memory = lender->memory;
        b->borrowed = true;
    } else if ((b->memory = malloc(b->size)) == NULL && b->size > 0) {
        fail_allocation();
    }
    for (size_t i = 0; i < b->size && !b->borrowed; i++)
        b->memory[i] = (unsigned char)(i * 37 >> 2);
    if (laid_out && !b->borrowed && b->array.dtype <= BCE_BOOL)
        for (int64_t at = 0; at + size <= (int64_t)b->size && in->left > 0 && at < 256; at += size) {
            /* Small numbers, and now and then any bits at all. */
            unsigned byte = next_byte(in);
            uint64_t bits = byte >= 224 ? next_bits(in) : 0;
            memcpy(b->memory + at, &bits, (size_t)size);
            if (byte < 224)
                element_write(b->array.dtype, b->array.dtype == BCE_UINT8 ? byte % 2 : (byte - 112.0) / 8.0, b->memory + at);
        }
    b->array.data = laid_out ? b->memory - low : b->memory;
    if ((b->copy = malloc(b->size)) == NULL && b->size > 0)
        fail_allocation();
    if (b->size > 0)
        memcpy(b->copy, b->memory, b->size);
    switch (next_byte(in)) {
    case 255: b->array.data = NULL; break;
    case 254: b->array.shape = NULL; break;
    case 253: b->array.strides = NULL; break;
    case 252: b->array.ndim = (int)next_bits(in) | INT32_MIN; break;
    default: break;
    }
}

static void free_block(block *b)
{
    if (!b->borrowed)
        free(b->memory);
    free(b->copy);
}

static void restore(block *blocks, int n)
{
    for (int k = 0; k < n; k++)
        if (!blocks[k].borrowed && blocks[k].size > 0)
            memcpy(blocks[k].memory, blocks[k].copy, blocks[k].size);
}

static const unsigned char *element_at(const block *b, int64_t i)
{
    const unsigned char *element = b->array.data;
    for (int d = b->array.ndim - 1; d >= 0; d--) {
        element += i % b->shape[d] * (b->shape[d] > 1 ? b->strides[d] : 0);
        i /= b->shape[d];
    }
    return element;
}

/* FNV-1a over the elements, with one hash for all NaN. */
static uint64_t hash_of(const block *b)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int64_t i = 0; i < count_of(b->array.ndim, b->shape); i++) {
        double x = element_read(b->array.dtype, element_at(b, i));
        hash = (hash ^ (x == x ? bits_of(x) : UINT64_C(0x7ff8000000000000))) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static void next_partial(input *in, bce_partial *partial)
{
    unsigned kind = next_byte(in) % 4;
    memset(partial, 0, sizeof *partial);
    for (int i = 0; i < BCE_PARTIAL_LIMBS && kind > 0; i++) {
        uint64_t bits = next_bits(in);
        partial->limbs[i] = (int64_t)(kind == 1 ? bits >> 32 : bits);
    }
    if (kind > 1) {
        partial->count = (int64_t)next_bits(in);
        partial->nan = (int64_t)next_bits(in);
        partial->plus_infinity = (int64_t)next_bits(in);
        partial->minus_infinity = (int64_t)next_bits(in);
    }
}

static void require_canonical(const bce_partial *partial)
{
    for (int i = 0; i + 1 < BCE_PARTIAL_LIMBS; i++)
        REQUIRE(partial->limbs[i] >= 0 && partial->limbs[i] >> 32 == 0);
}

static void require_message(const char *message, bce_status status)
{
    REQUIRE(status >= BCE_OK && status <= BCE_ERROR_ISA);
    if (status != BCE_OK)
        REQUIRE(message[0] != '\0' && memchr(message, '\0', BCE_MESSAGE_SIZE) != NULL);
}

static void fuzz_evaluate(input *in)
{
    enum { OPERANDS = 4, RESULTS = 6, BLOCKS = OPERANDS + RESULTS };
    static block blocks[BLOCKS];
    int ndim, other;
    int64_t shape[MOST_DIMENSIONS], changed[MOST_DIMENSIONS];
    char message[BCE_MESSAGE_SIZE];
    bce_arguments arguments;
    bce_results results;
    bce_partial partial, before;
    bool overlap = false;
    memset(&arguments, 0, sizeof arguments);
    memset(&results, 0, sizeof results);

    unsigned reduction = next_byte(in), smoothing = next_byte(in), wanted = next_byte(in), present = next_byte(in);
    uint64_t smoothing_bits = smoothing >= 240 ? next_bits(in) : 0;
    arguments.reduction = (bce_reduction)(reduction < 248 ? (int)(reduction % 3) : (int)reduction - 252);
    arguments.label_smoothing = smoothing >= 240 ? number_of(smoothing_bits) : smoothing < 160 ? 0.0 : (smoothing - 160) / 80.0;
    next_shape(in, &ndim, shape);
    for (int k = 0; k < BLOCKS; k++) {
        memcpy(changed, shape, sizeof changed);
        int used = ndim, dropped = 0;
        if ((k == 2 || k == 3) && ndim > 0) {
            /* Weights that broadcast. */
            unsigned ones = next_byte(in);
            dropped = ndim <= 6 ? (int)(next_byte(in) % (unsigned)(ndim + 1)) : 0;
            used = ndim - dropped;
            for (int d = 0; d < used; d++)
                changed[d] = ones >> d % 8 & 1 ? 1 : shape[d + dropped];
        }
        if (k == OPERANDS && (arguments.reduction == BCE_MEAN || arguments.reduction == BCE_SUM))
            used = 0;
        if (one_in(in, 64)) {
            next_shape(in, &other, changed);
            used = other;
        }
        const block *lender = k >= OPERANDS ? &blocks[next_byte(in) % (unsigned)k] : NULL;
        next_block(in, &blocks[k], k == 0 || k >= OPERANDS, used, changed, lender);
        overlap |= blocks[k].borrowed || (k >= OPERANDS && blocks[k].scrambled);
    }
    arguments.logits = blocks[0].array;
    arguments.targets = blocks[1].array;
    arguments.weight = present & 1 ? &blocks[2].array : NULL;
    arguments.pos_weight = present & 2 ? &blocks[3].array : NULL;
    results.loss = wanted & 1 ? &blocks[4].array : NULL;
    results.gradient = wanted & 2 ? &blocks[5].array : NULL;
    results.curvature = wanted & 4 ? &blocks[6].array : NULL;
    results.d_targets = wanted & 8 ? &blocks[7].array : NULL;
    results.d_weight = wanted & 16 ? &blocks[8].array : NULL;
    results.d_pos_weight = wanted & 32 ? &blocks[9].array : NULL;
    results.partial = wanted & 64 ? &partial : NULL;
    next_partial(in, &before);

    uint64_t first[RESULTS] = {0};
    bce_partial first_partial;
    bool any = false;
    memset(&first_partial, 0, sizeof first_partial);
    for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
        if (bce_set_isa(bce_isa_name(isa), NULL) != BCE_OK)
            continue;
        restore(blocks, BLOCKS);
        partial = before;
        message[0] = '\0';
        bce_status status = bce_evaluate(&arguments, &results, present & 4 ? NULL : message);
        if (!(present & 4))
            require_message(message, status);
        if (status != BCE_OK) {
            REQUIRE(memcmp(&partial, &before, sizeof partial) == 0);
            for (int k = 0; k < BLOCKS; k++)
                if (blocks[k].size > 0 && !blocks[k].borrowed)
                    REQUIRE(memcmp(blocks[k].memory, blocks[k].copy, blocks[k].size) == 0);
            break;
        }
        if (wanted & 64)
            require_canonical(&partial);
        if (overlap)
            continue;
        for (int k = 0; k < RESULTS; k++) {
            uint64_t hash = wanted >> k & 1 ? hash_of(&blocks[OPERANDS + k]) : 0;
            REQUIRE(!any || hash == first[k]);
            first[k] = hash;
        }
        REQUIRE(!any || memcmp(&partial, &first_partial, sizeof partial) == 0);
        first_partial = partial;
        any = true;
    }
    unsigned null = next_byte(in) % 4;
    if (null > 0)
        REQUIRE(bce_evaluate(null & 1 ? NULL : &arguments, null & 2 ? NULL : &results, message) == BCE_ERROR_ARGUMENT);
    for (int k = BLOCKS - 1; k >= 0; k--)
        free_block(&blocks[k]);
}

static void fuzz_partial(input *in)
{
    enum { MOST = 64 };
    double *numbers, *reversed;
    bce_partial start, partial, other, backwards;
    unsigned char result[8];
    size_t n = next_byte(in) % MOST;
    if ((numbers = malloc(8 * n + 1)) == NULL || (reversed = malloc(8 * n + 1)) == NULL)
        fail_allocation();
    for (size_t i = 0; i < n; i++)
        numbers[i] = reversed[n - 1 - i] = number_of(next_bits(in));
    next_partial(in, &start);
    next_partial(in, &other);

    partial = backwards = start;
    bce_partial_add(&partial, numbers, n);
    require_canonical(&partial);
    bce_partial_merge(&partial, &other);
    require_canonical(&partial);
    bce_partial_merge(&backwards, &other);
    bce_partial_add(&backwards, reversed, n);
    REQUIRE(memcmp(&partial, &backwards, sizeof partial) == 0);

    unsigned reduction = next_byte(in), dtype = next_byte(in);
    for (int turn = 0; turn < 3; turn++) {
        const bce_partial *of = turn == 0 ? &partial : turn == 1 ? &start : NULL;
        bce_status status = bce_partial_round(of, (bce_reduction)((int)(reduction % 5) - 1),
                                              (bce_dtype)((int)(dtype % 13) - 1), reduction == 255 ? NULL : result);
        REQUIRE(status == BCE_OK || status == BCE_ERROR_ARGUMENT || status == BCE_ERROR_DTYPE);
        REQUIRE(of != NULL || status == BCE_ERROR_ARGUMENT);
    }
    /* A partial sum rounds as the same in canonical form does. */
    unsigned char canonical[8];
    bce_dtype to = (bce_dtype)(dtype % 4);
    bce_partial same = start;
    bce_partial_add(&same, NULL, 0);
    bce_status status = bce_partial_round(&start, BCE_SUM, to, result);
    REQUIRE(bce_partial_round(&same, BCE_SUM, to, canonical) == status);
    REQUIRE(status != BCE_OK || memcmp(result, canonical, element_size(to)) == 0);
    bce_partial_merge(&partial, &partial);
    free(numbers);
    free(reversed);
}

static void fuzz_settings(input *in)
{
    char name[24], message[BCE_MESSAGE_SIZE];
    const char *current = NULL;
    size_t length = next_byte(in) % sizeof name;
    for (size_t i = 0; i < length; i++)
        name[i] = (char)next_byte(in);
    name[length] = '\0';
    message[0] = '\0';
    require_message(message, bce_set_isa(name, message));
    require_message(message, bce_set_isa(one_in(in, 2) ? NULL : bce_isa_name(0), message));
    REQUIRE(bce_get_isa(&current, NULL) == BCE_OK && current != NULL);
    REQUIRE(bce_get_isa(NULL, message) == BCE_ERROR_ARGUMENT);
    int index = (int)next_bits(in);
    REQUIRE((bce_isa_name(index) != NULL) >= (bce_isa_supported(index) != 0));
    bce_set_num_threads((int)next_bits(in));
    REQUIRE(bce_get_num_threads() >= 1 && bce_get_num_threads() <= BCE_MAX_THREADS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    unsigned which = next_byte(&in);
    if (which < 180)
        fuzz_evaluate(&in);
    else if (which < 240)
        fuzz_partial(&in);
    else
        fuzz_settings(&in);
    return 0;
}
