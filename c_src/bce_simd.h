/* The vector of an instruction set, and the few operations on it that C's operators + - * / do not give.

   Included once per instruction set, with BCE_SIMD_AVX512, BCE_SIMD_AVX2 or BCE_SIMD_NEON defined, or none of them for a
   vector of one element. AVX-512 comes first and has the comments. Every operation here is exact or rounded once, so all
   instruction sets give the same bits; a comparison with NaN is false. */

#if defined(__GNUC__)
#define BCE_INLINE static inline __attribute__((always_inline))
#define BCE_UNROLL_2 _Pragma("GCC unroll 2")
#else
#define BCE_INLINE static inline
#define BCE_UNROLL_2
#endif

#if defined(BCE_SIMD_AVX512)

typedef __m512d bce_vec;
#define BCE_WIDTH 8

BCE_INLINE bce_vec bce_load(const double *p) { return _mm512_loadu_pd(p); }
BCE_INLINE void bce_store(double *p, bce_vec x) { _mm512_storeu_pd(p, x); }
BCE_INLINE bce_vec bce_all(double x) { return _mm512_set1_pd(x); }
BCE_INLINE bce_vec bce_fma(bce_vec a, bce_vec b, bce_vec c) { return _mm512_fmadd_pd(a, b, c); }
BCE_INLINE bce_vec bce_abs(bce_vec x) { return _mm512_abs_pd(x); }

/* a > b ? yes : no */
BCE_INLINE bce_vec bce_if_greater(bce_vec a, bce_vec b, bce_vec yes, bce_vec no)
{
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, b, _CMP_GT_OQ), no, yes);
}

/* sign bit of x ? yes : no */
BCE_INLINE bce_vec bce_if_negative(bce_vec x, bce_vec yes, bce_vec no)
{
    return _mm512_mask_blend_pd(_mm512_movepi64_mask(_mm512_castpd_si512(x)), no, yes);
}

/* a with its sign changed where the sign bit of x is set */
BCE_INLINE bce_vec bce_multiply_by_sign(bce_vec a, bce_vec x)
{
    /* 0x78: a ^ (x & sign) */
    return _mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_castpd_si512(a), _mm512_castpd_si512(x),
                                                         _mm512_set1_epi64(INT64_MIN), 0x78));
}

/* a < b ? a : b and a > b ? a : b */
BCE_INLINE bce_vec bce_min(bce_vec a, bce_vec b) { return _mm512_min_pd(a, b); }
BCE_INLINE bce_vec bce_max(bce_vec a, bce_vec b) { return _mm512_max_pd(a, b); }

/* a == 0 ? 0 : a b */
BCE_INLINE bce_vec bce_product_unless_zero(bce_vec a, bce_vec b)
{
    return _mm512_maskz_mul_pd(_mm512_cmp_pd_mask(a, _mm512_setzero_pd(), _CMP_NEQ_UQ), a, b);
}

/* product, but 0 where it is NaN and neither factor a, b is */
BCE_INLINE bce_vec bce_zero_if_indefinite(bce_vec product, bce_vec a, bce_vec b)
{
    __mmask8 nan = _mm512_cmp_pd_mask(product, product, _CMP_UNORD_Q);
    return _mm512_mask_blend_pd(_mm512_mask_cmp_pd_mask(nan, a, b, _CMP_ORD_Q), product, _mm512_setzero_pd());
}

/* The bits of x, shifted left by 52, as a number. */
BCE_INLINE bce_vec bce_shift_to_exponent(bce_vec x)
{
    return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(x), 52));
}

/* 2^(n / 16) for the integer in the low bits of x; table as bce_exp2_sixteenths. */
BCE_INLINE bce_vec bce_exp2_of_sixteenths(bce_vec x, const uint64_t table[16])
{
    __m512i n = _mm512_castpd_si512(x);
    __m512i low_bits = _mm512_permutex2var_epi64(_mm512_loadu_si512(table), n, _mm512_loadu_si512(table + 8));
    return _mm512_castsi512_pd(_mm512_add_epi64(low_bits, _mm512_slli_epi64(n, 48)));
}

/* Whether a and b differ in any lane when rounded to float32; a NaN lane does not. */
BCE_INLINE bool bce_any_rounds_otherwise(bce_vec a, bce_vec b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(_mm512_cvtpd_ps(a), _mm512_cvtpd_ps(b), _CMP_NEQ_OQ)) != 0;
}

/* Whether a <= b in every lane: false where either is NaN. */
BCE_INLINE bool bce_all_at_most(bce_vec a, bce_vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ) == 0xff; }

BCE_INLINE bce_vec bce_or(bce_vec a, bce_vec b)
{
    return _mm512_castsi512_pd(_mm512_or_si512(_mm512_castpd_si512(a), _mm512_castpd_si512(b)));
}

/* 2 BCE_WIDTH float32 numbers, with C's operators where they have them. */
typedef __m512 bce_floats;

BCE_INLINE bce_floats bce_floats_load(const void *p) { return _mm512_loadu_ps(p); }
BCE_INLINE void bce_floats_store(void *p, bce_floats x) { _mm512_storeu_ps(p, x); }
BCE_INLINE bce_floats bce_floats_all(float x) { return _mm512_set1_ps(x); }
BCE_INLINE bce_floats bce_floats_abs(bce_floats x) { return _mm512_abs_ps(x); }

/* a > b ? a : b */
BCE_INLINE bce_floats bce_floats_max(bce_floats a, bce_floats b) { return _mm512_max_ps(a, b); }

BCE_INLINE bce_floats bce_floats_or(bce_floats a, bce_floats b) { return _mm512_or_ps(a, b); }
BCE_INLINE bce_floats bce_floats_xor(bce_floats a, bce_floats b) { return _mm512_xor_ps(a, b); }

/* a with its sign changed where the sign bit of x is set */
BCE_INLINE bce_floats bce_floats_multiply_by_sign(bce_floats a, bce_floats x)
{
    return _mm512_xor_ps(a, _mm512_and_ps(x, _mm512_set1_ps(-0.0f)));
}

/* Whether a <= b in every lane: false where either is NaN. */
BCE_INLINE bool bce_floats_all_at_most(bce_floats a, bce_floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ) == 0xffff; }

BCE_INLINE bce_vec bce_floats_low(bce_floats x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
BCE_INLINE bce_vec bce_floats_high(bce_floats x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }

BCE_INLINE bce_floats bce_floats_of(bce_vec low, bce_vec high)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}

/* Whether anything was found, accumulated over many vectors. */
typedef __mmask8 bce_flags;

BCE_INLINE bce_flags bce_nothing_found(void) { return 0; }

/* Found: a lane with ((bits of x + offset) & mask) == 0. */
BCE_INLINE bce_flags bce_find_bits(bce_flags found, bce_vec x, int64_t offset, int64_t mask)
{
    __m512i sum = _mm512_add_epi64(_mm512_castpd_si512(x), _mm512_set1_epi64(offset));
    return found | _mm512_testn_epi64_mask(sum, _mm512_set1_epi64(mask));
}

BCE_INLINE bool bce_found(bce_flags found) { return found != 0; }

#elif defined(BCE_SIMD_AVX2)

typedef __m256d bce_vec;
#define BCE_WIDTH 4

BCE_INLINE bce_vec bce_load(const double *p) { return _mm256_loadu_pd(p); }
BCE_INLINE void bce_store(double *p, bce_vec x) { _mm256_storeu_pd(p, x); }
BCE_INLINE bce_vec bce_all(double x) { return _mm256_set1_pd(x); }
BCE_INLINE bce_vec bce_fma(bce_vec a, bce_vec b, bce_vec c) { return _mm256_fmadd_pd(a, b, c); }
BCE_INLINE bce_vec bce_abs(bce_vec x) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), x); }

BCE_INLINE bce_vec bce_if_greater(bce_vec a, bce_vec b, bce_vec yes, bce_vec no)
{
    return _mm256_blendv_pd(no, yes, _mm256_cmp_pd(a, b, _CMP_GT_OQ));
}

BCE_INLINE bce_vec bce_if_negative(bce_vec x, bce_vec yes, bce_vec no) { return _mm256_blendv_pd(no, yes, x); }

BCE_INLINE bce_vec bce_multiply_by_sign(bce_vec a, bce_vec x)
{
    return _mm256_xor_pd(a, _mm256_and_pd(x, _mm256_set1_pd(-0.0)));
}

BCE_INLINE bce_vec bce_min(bce_vec a, bce_vec b) { return _mm256_min_pd(a, b); }
BCE_INLINE bce_vec bce_max(bce_vec a, bce_vec b) { return _mm256_max_pd(a, b); }

BCE_INLINE bce_vec bce_product_unless_zero(bce_vec a, bce_vec b)
{
    return _mm256_and_pd(_mm256_cmp_pd(a, _mm256_setzero_pd(), _CMP_NEQ_UQ), a * b);
}

BCE_INLINE bce_vec bce_zero_if_indefinite(bce_vec product, bce_vec a, bce_vec b)
{
    __m256d nan = _mm256_cmp_pd(product, product, _CMP_UNORD_Q);
    return _mm256_andnot_pd(_mm256_and_pd(nan, _mm256_cmp_pd(a, b, _CMP_ORD_Q)), product);
}

BCE_INLINE bce_vec bce_shift_to_exponent(bce_vec x)
{
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(x), 52));
}

BCE_INLINE bool bce_any_rounds_otherwise(bce_vec a, bce_vec b)
{
    return _mm_movemask_ps(_mm_cmp_ps(_mm256_cvtpd_ps(a), _mm256_cvtpd_ps(b), _CMP_NEQ_OQ)) != 0;
}

BCE_INLINE bool bce_all_at_most(bce_vec a, bce_vec b) { return _mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_LE_OQ)) == 15; }

BCE_INLINE bce_vec bce_or(bce_vec a, bce_vec b) { return _mm256_or_pd(a, b); }

typedef __m256 bce_floats;

BCE_INLINE bce_floats bce_floats_load(const void *p) { return _mm256_loadu_ps(p); }
BCE_INLINE void bce_floats_store(void *p, bce_floats x) { _mm256_storeu_ps(p, x); }
BCE_INLINE bce_floats bce_floats_all(float x) { return _mm256_set1_ps(x); }
BCE_INLINE bce_floats bce_floats_abs(bce_floats x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
BCE_INLINE bce_floats bce_floats_max(bce_floats a, bce_floats b) { return _mm256_max_ps(a, b); }
BCE_INLINE bce_floats bce_floats_or(bce_floats a, bce_floats b) { return _mm256_or_ps(a, b); }
BCE_INLINE bce_floats bce_floats_xor(bce_floats a, bce_floats b) { return _mm256_xor_ps(a, b); }

BCE_INLINE bce_floats bce_floats_multiply_by_sign(bce_floats a, bce_floats x)
{
    return _mm256_xor_ps(a, _mm256_and_ps(x, _mm256_set1_ps(-0.0f)));
}

BCE_INLINE bool bce_floats_all_at_most(bce_floats a, bce_floats b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)) == 0xff;
}

BCE_INLINE bce_vec bce_floats_low(bce_floats x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
BCE_INLINE bce_vec bce_floats_high(bce_floats x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }

BCE_INLINE bce_floats bce_floats_of(bce_vec low, bce_vec high)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high), 1);
}

typedef __m256i bce_flags;

BCE_INLINE bce_flags bce_nothing_found(void) { return _mm256_setzero_si256(); }

BCE_INLINE bce_flags bce_find_bits(bce_flags found, bce_vec x, int64_t offset, int64_t mask)
{
    __m256i sum = _mm256_add_epi64(_mm256_castpd_si256(x), _mm256_set1_epi64x(offset));
    __m256i masked = _mm256_and_si256(sum, _mm256_set1_epi64x(mask));
    return _mm256_or_si256(found, _mm256_cmpeq_epi64(masked, _mm256_setzero_si256()));
}

BCE_INLINE bool bce_found(bce_flags found) { return !_mm256_testz_si256(found, found); }

#elif defined(BCE_SIMD_NEON)

typedef float64x2_t bce_vec;
#define BCE_WIDTH 2

BCE_INLINE bce_vec bce_load(const double *p) { return vld1q_f64(p); }
BCE_INLINE void bce_store(double *p, bce_vec x) { vst1q_f64(p, x); }
BCE_INLINE bce_vec bce_all(double x) { return vdupq_n_f64(x); }
BCE_INLINE bce_vec bce_fma(bce_vec a, bce_vec b, bce_vec c) { return vfmaq_f64(c, a, b); }
BCE_INLINE bce_vec bce_abs(bce_vec x) { return vabsq_f64(x); }

BCE_INLINE bce_vec bce_if_greater(bce_vec a, bce_vec b, bce_vec yes, bce_vec no)
{
    return vbslq_f64(vcgtq_f64(a, b), yes, no);
}

BCE_INLINE bce_vec bce_if_negative(bce_vec x, bce_vec yes, bce_vec no)
{
    return vbslq_f64(vcltzq_s64(vreinterpretq_s64_f64(x)), yes, no);
}

BCE_INLINE bce_vec bce_multiply_by_sign(bce_vec a, bce_vec x) { return bce_if_negative(x, -a, a); }

/* vminq_f64 and vmaxq_f64 treat NaN differently. */
BCE_INLINE bce_vec bce_min(bce_vec a, bce_vec b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
BCE_INLINE bce_vec bce_max(bce_vec a, bce_vec b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }

BCE_INLINE bce_vec bce_product_unless_zero(bce_vec a, bce_vec b)
{
    return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(a * b), vceqzq_f64(a)));
}

BCE_INLINE bce_vec bce_zero_if_indefinite(bce_vec product, bce_vec a, bce_vec b)
{
    uint64x2_t ordered = vandq_u64(vceqq_f64(a, a), vceqq_f64(b, b));
    uint64x2_t keep = vorrq_u64(vceqq_f64(product, product), vreinterpretq_u64_u32(vmvnq_u32(vreinterpretq_u32_u64(ordered))));
    return vreinterpretq_f64_u64(vandq_u64(keep, vreinterpretq_u64_f64(product)));
}

BCE_INLINE bce_vec bce_shift_to_exponent(bce_vec x)
{
    return vreinterpretq_f64_s64(vshlq_n_s64(vreinterpretq_s64_f64(x), 52));
}

BCE_INLINE bool bce_any_rounds_otherwise(bce_vec a, bce_vec b)
{
    float32x2_t c = vcvt_f32_f64(a), d = vcvt_f32_f64(b);
    return vget_lane_u64(vreinterpret_u64_u32(vorr_u32(vclt_f32(c, d), vcgt_f32(c, d))), 0) != 0;
}

BCE_INLINE bool bce_all_at_most(bce_vec a, bce_vec b) { return vminvq_u32(vreinterpretq_u32_u64(vcleq_f64(a, b))) != 0; }

BCE_INLINE bce_vec bce_or(bce_vec a, bce_vec b)
{
    return vreinterpretq_f64_u64(vorrq_u64(vreinterpretq_u64_f64(a), vreinterpretq_u64_f64(b)));
}

typedef float32x4_t bce_floats;

BCE_INLINE bce_floats bce_floats_load(const void *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
BCE_INLINE void bce_floats_store(void *p, bce_floats x) { vst1q_u8(p, vreinterpretq_u8_f32(x)); }
BCE_INLINE bce_floats bce_floats_all(float x) { return vdupq_n_f32(x); }
BCE_INLINE bce_floats bce_floats_abs(bce_floats x) { return vabsq_f32(x); }
BCE_INLINE bce_floats bce_floats_max(bce_floats a, bce_floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

BCE_INLINE bce_floats bce_floats_or(bce_floats a, bce_floats b)
{
    return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
}

BCE_INLINE bce_floats bce_floats_xor(bce_floats a, bce_floats b)
{
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
}

BCE_INLINE bce_floats bce_floats_multiply_by_sign(bce_floats a, bce_floats x)
{
    return vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(x)), -a, a);
}

BCE_INLINE bool bce_floats_all_at_most(bce_floats a, bce_floats b) { return vminvq_u32(vcleq_f32(a, b)) != 0; }
BCE_INLINE bce_vec bce_floats_low(bce_floats x) { return vcvt_f64_f32(vget_low_f32(x)); }
BCE_INLINE bce_vec bce_floats_high(bce_floats x) { return vcvt_high_f64_f32(x); }
BCE_INLINE bce_floats bce_floats_of(bce_vec low, bce_vec high) { return vcvt_high_f32_f64(vcvt_f32_f64(low), high); }

typedef uint64x2_t bce_flags;

BCE_INLINE bce_flags bce_nothing_found(void) { return vdupq_n_u64(0); }

BCE_INLINE bce_flags bce_find_bits(bce_flags found, bce_vec x, int64_t offset, int64_t mask)
{
    int64x2_t sum = vaddq_s64(vreinterpretq_s64_f64(x), vdupq_n_s64(offset));
    return vorrq_u64(found, vceqzq_s64(vandq_s64(sum, vdupq_n_s64(mask))));
}

BCE_INLINE bool bce_found(bce_flags found) { return vmaxvq_u32(vreinterpretq_u32_u64(found)) != 0; }

#else

typedef double bce_vec;
#define BCE_WIDTH 1

BCE_INLINE bce_vec bce_load(const double *p) { return *p; }
BCE_INLINE void bce_store(double *p, bce_vec x) { *p = x; }
BCE_INLINE bce_vec bce_all(double x) { return x; }
BCE_INLINE bce_vec bce_fma(bce_vec a, bce_vec b, bce_vec c) { return fma(a, b, c); }
BCE_INLINE bce_vec bce_abs(bce_vec x) { return fabs(x); }
BCE_INLINE bce_vec bce_if_greater(bce_vec a, bce_vec b, bce_vec yes, bce_vec no) { return a > b ? yes : no; }

BCE_INLINE bce_vec bce_if_negative(bce_vec x, bce_vec yes, bce_vec no) { return signbit(x) ? yes : no; }
BCE_INLINE bce_vec bce_multiply_by_sign(bce_vec a, bce_vec x) { return signbit(x) ? -a : a; }
BCE_INLINE bce_vec bce_min(bce_vec a, bce_vec b) { return a < b ? a : b; }
BCE_INLINE bce_vec bce_max(bce_vec a, bce_vec b) { return a > b ? a : b; }
BCE_INLINE bce_vec bce_product_unless_zero(bce_vec a, bce_vec b) { return a == 0.0 ? 0.0 : a * b; }

BCE_INLINE bce_vec bce_zero_if_indefinite(bce_vec product, bce_vec a, bce_vec b)
{
    return product != product && a == a && b == b ? 0.0 : product;
}

BCE_INLINE bce_vec bce_shift_to_exponent(bce_vec x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits <<= 52;
    memcpy(&x, &bits, sizeof x);
    return x;
}

BCE_INLINE bool bce_any_rounds_otherwise(bce_vec a, bce_vec b)
{
    float c = (float)a, d = (float)b;
    return c < d || c > d;
}

BCE_INLINE bool bce_all_at_most(bce_vec a, bce_vec b) { return a <= b; }

BCE_INLINE bce_vec bce_or(bce_vec a, bce_vec b)
{
    uint64_t bits, other;
    memcpy(&bits, &a, sizeof bits);
    memcpy(&other, &b, sizeof other);
    bits |= other;
    memcpy(&a, &bits, sizeof a);
    return a;
}

typedef float bce_floats __attribute__((vector_size(8)));

BCE_INLINE bce_floats bce_floats_all(float x)
{
    bce_floats all = {x, x};
    return all;
}

BCE_INLINE bce_floats bce_floats_load(const void *p)
{
    bce_floats x;
    memcpy(&x, p, sizeof x);
    return x;
}

BCE_INLINE void bce_floats_store(void *p, bce_floats x) { memcpy(p, &x, sizeof x); }

BCE_INLINE bce_floats bce_floats_abs(bce_floats x)
{
    bce_floats result = {fabsf(x[0]), fabsf(x[1])};
    return result;
}

BCE_INLINE bce_floats bce_floats_max(bce_floats a, bce_floats b)
{
    bce_floats result = {a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1]};
    return result;
}

BCE_INLINE bce_floats bce_floats_or(bce_floats a, bce_floats b)
{
    typedef int32_t bits __attribute__((vector_size(8)));
    return (bce_floats)((bits)a | (bits)b);
}

BCE_INLINE bce_floats bce_floats_xor(bce_floats a, bce_floats b)
{
    typedef int32_t bits __attribute__((vector_size(8)));
    return (bce_floats)((bits)a ^ (bits)b);
}

BCE_INLINE bce_floats bce_floats_multiply_by_sign(bce_floats a, bce_floats x)
{
    bce_floats result = {signbit(x[0]) ? -a[0] : a[0], signbit(x[1]) ? -a[1] : a[1]};
    return result;
}

BCE_INLINE bool bce_floats_all_at_most(bce_floats a, bce_floats b) { return a[0] <= b[0] && a[1] <= b[1]; }
BCE_INLINE bce_vec bce_floats_low(bce_floats x) { return x[0]; }
BCE_INLINE bce_vec bce_floats_high(bce_floats x) { return x[1]; }

BCE_INLINE bce_floats bce_floats_of(bce_vec low, bce_vec high)
{
    bce_floats result = {(float)low, (float)high};
    return result;
}

typedef bool bce_flags;

BCE_INLINE bce_flags bce_nothing_found(void) { return false; }

BCE_INLINE bce_flags bce_find_bits(bce_flags found, bce_vec x, int64_t offset, int64_t mask)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return found | (((bits + (uint64_t)offset) & (uint64_t)mask) == 0);
}

BCE_INLINE bool bce_found(bce_flags found) { return found; }

#endif
