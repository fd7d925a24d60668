/* One hash of the core's results over a fixed set of problems, for each instruction set that this machine has.

   Compilers, options, instruction sets and machines must agree on it. NaN are hashed alike; every other bit counts. The
   problems use no function of libm but exact ones, so that only the core can differ.

   dump_bits            prints a line for each instruction set: its name and the hash
   dump_bits --groups   prints the hash of each group of problems too, to find where two builds part
   Exit status 1 if two instruction sets differ. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "elements.h"

#define SEED UINT64_C(0x9e3779b97f4a7c15)
#define PROBLEMS_PER_GROUP 120
#define MOST_ELEMENTS 4200

static void hash_bits(uint64_t *hash, uint64_t bits)
{
    for (int i = 0; i < 8; i++) {
        *hash ^= bits >> (8 * i) & 0xff;
        *hash *= UINT64_C(0x100000001b3);
    }
}

static void hash_number(uint64_t *hash, double number)
{
    hash_bits(hash, number == number ? bits_of(number) : UINT64_C(0x7ff8000000000000));
}

static void hash_partial(uint64_t *hash, const bce_partial *partial)
{
    for (int i = 0; i < BCE_PARTIAL_LIMBS; i++)
        hash_bits(hash, (uint64_t)partial->limbs[i]);
    hash_bits(hash, (uint64_t)partial->count);
    hash_bits(hash, (uint64_t)partial->nan);
    hash_bits(hash, (uint64_t)partial->plus_infinity);
    hash_bits(hash, (uint64_t)partial->minus_infinity);
}

/* NEAR_TIES: logits where 1/2 + x/4, all but sigma(x), lies midway between two float32 numbers. */
typedef enum { HARD_LABELS, UNIT, USUAL, NEAR_TIES, WIDE, ANY_BITS, SPECIAL } kind_of_numbers;

/* Products with powers of 2 and sums of small multiples of one unit only: nothing rounds, so no compiler can make a
   difference. */
static double random_number(uint64_t *state, kind_of_numbers kind)
{
    static const double special[] = {0.0,    -0.0,      1.0,      -1.0,    0.5,      HUGE_VAL, -HUGE_VAL,
                                     746.0,  -745.125,  37.0,     -709.75, 89.0,     -104.0,   0.25,
                                     -1e300, 0x1p-1074, 0x1p-149, 0x1p-24, 0x1p1023, 0x1p127,  -0x1p-1022};
    uint64_t sign = random_bits(state) & UINT64_C(1) << 63, fraction = random_bits(state) >> 12;
    switch (kind) {
    case HARD_LABELS: return (double)(random_bits(state) >> 63);
    case UNIT: return random_unit(state);
    case USUAL: return (random_unit(state) - 0.5) * 32.0;
    case NEAR_TIES: return (double)(2 * random_below(state, 4096) - 4095) * 0x1p-23;
    case WIDE: return number_of(sign | (uint64_t)(1023 - 60 + random_below(state, 70)) << 52 | fraction);
    case ANY_BITS: return number_of(random_bits(state));
    default: break;
    }
    return random_below(state, 16) == 0 ? (double)NAN : special[random_below(state, sizeof special / sizeof *special)];
}

typedef struct {
    unsigned char *memory;
    bce_array array;
    int64_t shape[3], strides[3];
} operand;

/* An operand of the shape, with dimensions of 1 where broadcast has a bit set. */
static void fill(uint64_t *state, operand *o, bce_dtype dtype, int ndim, const int64_t *shape, int broadcast,
                 kind_of_numbers kind)
{
    int64_t count = 1;
    o->array.dtype = dtype;
    o->array.ndim = ndim;
    o->array.shape = o->shape;
    o->array.strides = o->strides;
    o->array.data = o->memory;
    for (int d = ndim - 1; d >= 0; d--) {
        o->shape[d] = broadcast >> d & 1 ? 1 : shape[d];
        o->strides[d] = count * (int64_t)element_size(dtype);
        count *= o->shape[d];
    }
    for (int64_t i = 0; i < count; i++) {
        double number = random_number(state, kind);
        if (dtype > BCE_BFLOAT16)
            number = kind == HARD_LABELS || dtype == BCE_UINT8 ? (double)(random_bits(state) >> 63)
                                                                : (double)random_below(state, 100) - 50.0;
        element_write(dtype, number, o->memory + i * (int64_t)element_size(dtype));
    }
}

static unsigned char *allocate(size_t size)
{
    unsigned char *memory = malloc(size);
    if (memory == NULL) {
        fputs("dump_bits: out of memory\n", stderr);
        exit(2);
    }
    return memory;
}

typedef struct {
    operand operands[4], results[6];
} workspace;

/* Evaluate one random problem with logits of the dtype, all results wanted, and hash them. */
static void hash_problem(uint64_t *state, uint64_t *hash, workspace *space, bce_dtype dtype, int ndim, const int64_t *shape)
{
    static const kind_of_numbers logits_kinds[] = {USUAL, NEAR_TIES, WIDE, ANY_BITS, SPECIAL};
    static const kind_of_numbers targets_kinds[] = {HARD_LABELS, HARD_LABELS, UNIT, USUAL, SPECIAL};
    static const kind_of_numbers weight_kinds[] = {UNIT, USUAL, HARD_LABELS, WIDE, SPECIAL};
    operand *o = space->operands;
    bce_arguments arguments;
    bce_results results;
    bce_partial partial;
    double rounded = 0.0;
    int64_t count = 1;
    for (int d = 0; d < ndim; d++)
        count *= shape[d];
    memset(&arguments, 0, sizeof arguments);
    memset(&partial, 0, sizeof partial);
    int weights = (int)random_below(state, 4);
    for (int k = 0; k < 4; k++) {
        bce_dtype any_dtype = (bce_dtype)random_below(state, DTYPES);
        int broadcast = (int)random_below(state, 8), kind = (int)random_below(state, 5);
        fill(state, &o[k], k == 0 ? dtype : any_dtype, ndim, shape, k < 2 ? 0 : broadcast,
             (k == 0 ? logits_kinds : k == 1 ? targets_kinds : weight_kinds)[kind]);
    }
    arguments.logits = o[0].array;
    arguments.targets = o[1].array;
    arguments.weight = weights & 1 ? &o[2].array : NULL;
    arguments.pos_weight = weights & 2 ? &o[3].array : NULL;
    arguments.label_smoothing = random_below(state, 3) == 0 ? random_unit(state) : 0.0;
    arguments.reduction = (bce_reduction)random_below(state, 3);
    for (int k = 0; k < 6; k++) {
        bool number = k == 0 && arguments.reduction != BCE_NONE;
        fill(state, &space->results[k], (bce_dtype)random_below(state, FLOATING_DTYPES), number ? 0 : ndim, shape, 0, UNIT);
    }
    /* Now and then one result alone, for the paths that compute no more than is wanted. */
    int only = (int)random_below(state, 16);
    bool pair = only >= 12;  /* as in training: for the quick formulae */
    const bce_array *wanted[6];
    for (int k = 0; k < 6; k++)
        wanted[k] = (pair ? k < 2 : only >= 6 || only == k) ? &space->results[k].array : NULL;
    results.loss = wanted[0];
    results.gradient = wanted[1];
    results.curvature = wanted[2];
    results.d_targets = wanted[3];
    results.d_weight = wanted[4];
    results.d_pos_weight = wanted[5];
    results.partial = only >= 11 ? NULL : &partial;
    hash_bits(hash, (uint64_t)bce_evaluate(&arguments, &results, NULL));
    for (int k = 0; k < 6; k++) {
        if (wanted[k] == NULL)
            continue;
        const unsigned char *element = space->results[k].memory;
        for (int64_t i = 0; i < (wanted[k]->ndim == 0 ? 1 : count); i++, element += element_size(wanted[k]->dtype))
            hash_number(hash, element_read(wanted[k]->dtype, element));
    }
    hash_partial(hash, &partial);
    for (int r = BCE_MEAN; r <= BCE_SUM; r++)
        for (int d = 0; d < FLOATING_DTYPES; d++) {
            hash_bits(hash, (uint64_t)bce_partial_round(&partial, (bce_reduction)r, (bce_dtype)d, &rounded));
            hash_number(hash, element_read((bce_dtype)d, &rounded));
        }
}

static void random_shape(uint64_t *state, int *ndim, int64_t shape[3])
{
    static const int64_t awkward[] = {0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 255, 256, 257, 511, 513, 1000, 4097, 4100};
    *ndim = (int)random_below(state, 4);
    if (*ndim == 1)
        shape[0] = awkward[random_below(state, sizeof awkward / sizeof *awkward)];
    for (int d = 0; *ndim > 1 && d < *ndim; d++)
        shape[d] = 1 + random_below(state, *ndim == 2 ? 40 : 11);
}

int main(int argc, char **argv)
{
    bool groups = argc > 1 && strcmp(argv[1], "--groups") == 0, differ = false;
    workspace space;
    for (int k = 0; k < 4; k++)
        space.operands[k].memory = allocate(8 * MOST_ELEMENTS);
    for (int k = 0; k < 6; k++)
        space.results[k].memory = allocate(8 * MOST_ELEMENTS);
    uint64_t first = 0;
    bool any = false;
    for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
        if (!bce_isa_supported(isa) || bce_set_isa(bce_isa_name(isa), NULL) != BCE_OK)
            continue;
        static const char *const names[] = {"float64", "float32", "float16", "bfloat16"};
        uint64_t all = UINT64_C(0xcbf29ce484222325), state = SEED;
        for (int d = 0; d < FLOATING_DTYPES; d++) {
            uint64_t hash = UINT64_C(0xcbf29ce484222325);
            for (int i = 0; i < PROBLEMS_PER_GROUP; i++) {
                int ndim;
                int64_t shape[3] = {1, 1, 1};
                random_shape(&state, &ndim, shape);
                hash_problem(&state, &hash, &space, (bce_dtype)d, ndim, shape);
            }
            if (groups)
                printf("%-8s %-8s %016" PRIx64 "\n", bce_isa_name(isa), names[d], hash);
            hash_bits(&all, hash);
        }
        printf("%-8s %016" PRIx64 "\n", bce_isa_name(isa), all);
        differ |= any && all != first;
        first = any ? first : all;
        any = true;
    }
    for (int k = 0; k < 4; k++)
        free(space.operands[k].memory);
    for (int k = 0; k < 6; k++)
        free(space.results[k].memory);
    return differ;
}
