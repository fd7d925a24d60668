"""The fast path's kernel: every element in float32 pairs, and a list of those that the float64 formulae must settle."""

import triton
import triton.language as tl

from bce_bridge.torch.triton_kernel.memory import _load, _offsets
from bce_bridge.torch.triton_kernel.pairs import (
    LIMIT,
    TINY_BITS,
    WEIGHTED_LIMIT,
    _ends,
    _fast_two_sum,
    _functions,
    _functions_in_float32,
    _minus,
    _positive_sum,
    _product,
    _product_of_pairs,
    _sum_of_pairs,
    _two_sum,
)
from bce_bridge.torch.triton_kernel.sums import _deposit_interval

# The fields of work, all 0 at first: how many elements are listed, whether the sum is still to be had by float64 formulae, and
# how many programs are done with each of the two passes that follow. The list has its own memory.
LISTED, UNSETTLED, DONE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
WORK = 4
# Added to the number of an element whose loss is not in the sum.
LEFT_OUT = tl.constexpr(2**62)


@triton.jit
def _is_negative(x):
    return x.to(tl.int32, bitcast=True) < 0


@triton.jit
def _is_plain(weight):
    """Neither negative nor infinite nor NaN, which the larger of two numbers would hide."""
    return (weight >= 0.0) & (weight <= 2.0**64)


@triton.jit
def _coefficients(y, y_low, w, p, SMOOTH: tl.constexpr):
    """w (1 - y) and w p y as pairs, and whether they are usable: not negative, and 0 or so large that no low part was lost.

    w and p are None where there is none.
    """
    usable = (y >= 0.0) & (y <= 1.0)
    c, c_low = _fast_two_sum(1.0, _minus(y))
    if SMOOTH:
        c_low -= y_low
    if p is not None:
        zero = (y == 0.0) | (p == 0.0)
        y, y_low = _product_of_pairs(y, y_low, p, 0.0)
        usable &= _is_plain(p) & (zero | (y >= 2.0**-60))
    if w is not None:
        zero = (y == 0.0) | (w == 0.0)
        y, y_low = _product_of_pairs(y, y_low, w, 0.0)
        usable &= _is_plain(w) & (zero | (y >= 2.0**-60))
        zero = (c == 0.0) | (w == 0.0)
        c, c_low = _product_of_pairs(c, c_low, w, 0.0)
        usable &= zero | (c >= 2.0**-60)
    return c, c_low, y, y_low, usable


@triton.jit
def _terms(x, y, y_low, w, p, table, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr, DEVICE: tl.constexpr):
    """(loss, its low part, gradient times the sign of -x, its low part, S L, S m, linear, usable).

    With a and b the coefficients of softplus(x) and softplus(-x) and S = a + b, the loss is S L + linear |x| and the gradient
    -sign(x) (S m - linear), linear = b if x < 0 else a. All terms are >= 0, and errors relative to them.
    """
    a, a_low, b, b_low, usable = _coefficients(y, y_low, w, p, SMOOTH)
    log1p, log1p_low, sigma, sigma_low = _functions(tl.minimum(tl.abs(x), WEIGHTED_LIMIT if WEIGHTED else LIMIT), table, DEVICE)
    if WEIGHTED:
        s, s_low = _sum_of_pairs(a, a_low, b, b_low)
        usable &= s <= 2.0**32
        log1p, log1p_low = _product_of_pairs(s, s_low, log1p, log1p_low)
        sigma, sigma_low = _product_of_pairs(s, s_low, sigma, sigma_low)
    linear = tl.where(_is_negative(x), b, a)
    linear_low = tl.where(_is_negative(x), b_low, a_low)
    reach = tl.where(linear == 0.0, 0.0, tl.abs(x))
    v, v_low = _product(linear, reach)
    loss, loss_low = _positive_sum(v, log1p)
    loss_low += log1p_low + tl.fma(linear_low, reach, v_low)
    g, g_low = _two_sum(sigma, _minus(linear))
    return loss, loss_low, g, g_low + (sigma_low - linear_low), log1p, sigma, linear, usable & (x == x)


@triton.jit
def _terms_in_float32(x, y, y_low, w, p, table, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr):
    """The same in float32."""
    a, a_low, b, b_low, usable = _coefficients(y, y_low, w, p, SMOOTH)
    log1p, sigma = _functions_in_float32(tl.minimum(tl.abs(x), WEIGHTED_LIMIT if WEIGHTED else LIMIT), table)
    if WEIGHTED or SMOOTH:
        a += a_low
        b += b_low
    if WEIGHTED:
        usable &= a + b <= 2.0**32
        log1p = (a + b) * log1p
        sigma = (a + b) * sigma
    linear = tl.where(_is_negative(x), b, a)
    loss = tl.fma(linear, tl.where(linear == 0.0, 0.0, tl.abs(x)), log1p)
    return loss, sigma - linear, log1p, sigma, linear, usable & (x == x)


@triton.jit
def _list(work, list, bits, first, n, flag, capacity, BLOCK: tl.constexpr):
    """List the elements whose bits are set: bit i for those of the i-th block from the first element on."""
    left = bits
    while tl.max(tl.where(left != 0, 1, 0), 0) > 0:
        lowest = left & (0 - left)
        i = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
        element = first + i * BLOCK + tl.arange(0, BLOCK)
        mask = (left != 0) & (element < n)
        place = tl.atomic_add(work + tl.zeros_like(element), 1, mask, sem="relaxed")
        tl.store(list + place, element.to(tl.int64) + flag, mask & (place < capacity))
        left = left & (left - 1)


@triton.jit
def _evaluate_fast(
    input,
    target,
    weight,
    pos_weight,
    loss,
    gradient,
    partial,
    work,
    list,
    n,
    shape,
    input_strides,
    target_strides,
    weight_strides,
    pos_weight_strides,
    loss_strides,
    gradient_strides,
    table: tl.int64,
    capacity: tl.int64,
    keep,
    keep_low,
    add,
    add_low,
    scale,
    scale_low,
    term_error,
    rounding,
    scaled_term_error,
    scaled_rounding,
    sum_error,
    SMOOTH: tl.constexpr,
    EXACT_SCALE: tl.constexpr,
    PAIRS: tl.constexpr,
    INDEX: tl.constexpr,
    DEVICE: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCKS blocks of elements: losses if loss is given, the gradient times scale if that is, their sum if partial is.

    Targets are y keep + add if SMOOTH. These and scale come as pairs; EXACT_SCALE says that scale is a power of two,
    DEVICE that this is not the interpreter. The errors, as in launch.py, are relative to the functions' terms, to all terms,
    and to a sum.
    """
    WEIGHTED: tl.constexpr = weight is not None or pos_weight is not None
    LAST: tl.constexpr = WEIGHTED_LIMIT if WEIGHTED else LIMIT
    first = tl.program_id(0).to(INDEX) * (BLOCKS * BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    total_low = tl.zeros([BLOCK], tl.float32)
    bits = tl.zeros([BLOCK], tl.int32)
    bit = 1
    for i in range(BLOCKS):
        element = first + i * BLOCK + tl.arange(0, BLOCK)
        mask = element < n
        # Beyond the last element, x = -inf and y = 0 have the loss 0.
        x = _load(input, _offsets(element, shape, input_strides), mask, tl.float32, float("-inf"))
        y = _load(target, _offsets(element, shape, target_strides), mask, tl.float32)
        w = None
        p = None
        if weight is not None:
            w = _load(weight, _offsets(element, shape, weight_strides), mask, tl.float32)
        if pos_weight is not None:
            p = _load(pos_weight, _offsets(element, shape, pos_weight_strides), mask, tl.float32)
        y_low = 0.0
        if SMOOTH:
            y, y_low = _product_of_pairs(y, 0.0, keep, keep_low)
            y, smoothed_low = _positive_sum(y, add)
            y_low += smoothed_low + add_low
        if PAIRS:
            v, v_low, g, g_low, log1p, sigma, linear, usable = _terms(x, y, y_low, w, p, table, WEIGHTED, SMOOTH, DEVICE)
        else:
            v, g, log1p, sigma, linear, usable = _terms_in_float32(x, y, y_low, w, p, table, WEIGHTED, SMOOTH)
            v_low = 0.0
            g_low = 0.0
        settled = usable
        tiny = tl.where(tl.abs(x) < LAST, TINY_BITS, 0).to(tl.float32, bitcast=True)
        if WEIGHTED:
            tiny *= 2.0**32
        if loss is not None:
            error = tl.fma(v, rounding, tl.fma(log1p, term_error, tiny))
            if PAIRS and loss.dtype.element_ty != tl.float32:
                error = tl.fma(v, 2.0**-22, error)
            result, certain = _ends(v, v_low, error, False, loss.dtype.element_ty, DEVICE)
            settled &= certain
            tl.store(loss + _offsets(element, shape, loss_strides), result, mask)
        if gradient is not None:
            error = tl.fma(linear, scaled_rounding, tl.fma(sigma, scaled_term_error, tiny))
            if EXACT_SCALE:
                g *= scale
                g_low *= scale
            else:
                g, g_low = _product_of_pairs(g, g_low, scale, scale_low)
            if PAIRS and gradient.dtype.element_ty != tl.float32:
                error = tl.fma(tl.abs(g), 2.0**-22, error)
            result, certain = _ends(g, g_low, error, _is_negative(x) == 0, gradient.dtype.element_ty, DEVICE)
            settled &= certain
            tl.store(gradient + _offsets(element, shape, gradient_strides), result, mask)
        if partial is not None:
            v = tl.where(usable, v, float("inf"))
            if PAIRS:
                total, error = _positive_sum(total, v)
                total_low += error + v_low
            else:
                total += v
        bits = tl.where(settled, bits, bits | bit)
        bit = bit * 2

    flag = tl.zeros((), tl.int64)
    if partial is not None:
        if PAIRS:
            sum, sum_low = tl.reduce((total, total_low), 0, _sum_of_pairs)
        else:
            sum = tl.sum(total, 0)
            sum_low = sum * 0.0
        if sum < 2.0**100:
            # Beside the relative error, an element may have lost 2^-146, times weights of at most 2^32, or half the least
            # float32 where all losses were 0: in units of 2^-155.
            units = tl.where(sum > 0.0, 544, 32).to(tl.int64) * (BLOCKS * BLOCK)
            _deposit_interval(partial, sum, sum_low, sum * sum_error, units, 29 if WEIGHTED else 28)
        else:  # something unusable, or too large: leave the whole program's share out
            bits = bits * 0 + (1 << BLOCKS) - 1
            flag = flag + LEFT_OUT
    _list(work, list, bits, first, n, flag, capacity, BLOCK)
