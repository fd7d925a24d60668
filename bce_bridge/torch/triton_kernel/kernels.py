"""The float64 kernels: of all elements, or of those that the fast path leaves."""

import triton
import triton.language as tl

from bce_bridge.torch.triton_kernel.fast import DONE, LEFT_OUT, LISTED, UNSETTLED
from bce_bridge.torch.triton_kernel.float64 import (
    TAIL,
    _accurate,
    _exp_minus,
    _exp_minus_abs,
    _from_bits,
    _log1p,
    _minus,
    _negative,
    _sigma_minus,
    _silent_product,
    _times_exp_minus,
    _unsettled,
)
from bce_bridge.torch.triton_kernel.memory import _load, _offsets, _rounded
from bce_bridge.torch.triton_kernel.sums import SIZE, _deposit, _row, _store_rounded_sum, _store_upper_end


@triton.jit
def _losses_and_gradients(
    x,
    y,
    complement,
    w,
    p,
    mask,
    gradient,
    divisor,
    SMOOTH: tl.constexpr,
    MULTIPLY: tl.constexpr,
    TAILS: tl.constexpr,
    SETTLE_LOSS: tl.constexpr,
    SETTLE_GRADIENT: tl.constexpr,
):
    """The losses of a block as they go into sums, and losses and gradients ready to be rounded."""
    negative = complement
    positive = y
    if p is not None:
        positive = _silent_product(p, y)
    if w is not None:
        negative = _silent_product(w, negative)
        positive = _silent_product(w, positive)
    sum = negative + positive
    linear = tl.where(_negative(x), positive, negative)

    t, t_low, t_less_1 = _exp_minus_abs(x)
    losses = tl.fma(sum, _log1p(t, t_less_1), tl.where(linear == 0.0, 0.0, linear * tl.abs(x)))
    gradients = losses
    if gradient is not None:
        WIDE: tl.constexpr = gradient.dtype.element_ty == tl.float64
        gradients = tl.fma(sum, _sigma_minus(t, t_low, WIDE), _minus(linear))
        gradients = tl.where(_negative(x), gradients, _minus(gradients))
        if MULTIPLY:
            gradients = gradients * (1.0 / divisor)
        else:
            gradients = gradients / divisor

    if TAILS:
        a = tl.abs(x)
        tail = (a > TAIL) & (a < float("inf"))
        if tl.max(tail.to(tl.int32), 0) > 0:
            hi, lo, k = _exp_minus(tl.minimum(a, 4000.0))
            beside = tl.where(x > 0.0, negative, positive)
            losses = tl.where(tail, _silent_product(beside, a) + _times_exp_minus(sum, a, hi, lo, k), losses)
            if gradient is not None:
                other = tl.where(x > 0.0, positive, negative)
                g = _times_exp_minus(other, a, hi, lo, k) - beside
                gradients = tl.where(tail, tl.where(x > 0.0, _minus(g), g) / divisor, gradients)
    summands = losses
    if SETTLE_LOSS or SETTLE_GRADIENT:
        unsettled_losses = _unsettled(losses) & SETTLE_LOSS
        unsettled_gradients = _unsettled(gradients) & SETTLE_GRADIENT
        if tl.max((mask & (unsettled_losses | unsettled_gradients)).to(tl.int32), 0) > 0:
            accurate_losses, accurate_gradients = _accurate(x, y, complement, SMOOTH)
            losses = tl.where(unsettled_losses, accurate_losses, losses)
            gradients = tl.where(unsettled_gradients, accurate_gradients, gradients)
    return summands, losses, gradients


@triton.jit
def _number(bits):
    """A float64 argument, which comes as its bits: older interpreters of Triton round a float to float32."""
    return _from_bits(bits.to(tl.int64))


@triton.jit
def _compute(
    input,
    target,
    weight,
    pos_weight,
    loss,
    gradient,
    element,
    mask,
    shape,
    input_strides,
    target_strides,
    weight_strides,
    pos_weight_strides,
    loss_strides,
    gradient_strides,
    keep,
    add,
    divisor,
    SMOOTH: tl.constexpr,
    MULTIPLY: tl.constexpr,
    TAILS: tl.constexpr,
    SETTLE_LOSS: tl.constexpr,
    SETTLE_GRADIENT: tl.constexpr,
):
    """Store the losses and the gradient of these elements, those that are not None; return the losses as they go into sums."""
    x = _load(input, _offsets(element, shape, input_strides), mask, tl.float64)
    y = _load(target, _offsets(element, shape, target_strides), mask, tl.float64)
    w = None
    p = None
    if weight is not None:
        w = _load(weight, _offsets(element, shape, weight_strides), mask, tl.float64)
    if pos_weight is not None:
        p = _load(pos_weight, _offsets(element, shape, pos_weight_strides), mask, tl.float64)
    complement = 1.0 - y
    if SMOOTH:
        complement = tl.fma(complement, _number(keep), _number(add))
        y = tl.fma(y, _number(keep), _number(add))
    summands, losses, gradients = _losses_and_gradients(
        x, y, complement, w, p, mask, gradient, _number(divisor), SMOOTH, MULTIPLY, TAILS, SETTLE_LOSS, SETTLE_GRADIENT
    )
    if loss is not None:
        tl.store(loss + _offsets(element, shape, loss_strides), _rounded(losses, loss.dtype.element_ty), mask)
    if gradient is not None:
        tl.store(gradient + _offsets(element, shape, gradient_strides), _rounded(gradients, gradient.dtype.element_ty), mask)
    return summands


@triton.jit(do_not_specialize=["keep", "add", "divisor"])
def _evaluate(
    input,
    target,
    weight,
    pos_weight,
    loss,
    gradient,
    partial,
    n,
    shape,
    input_strides,
    target_strides,
    weight_strides,
    pos_weight_strides,
    loss_strides,
    gradient_strides,
    keep: tl.int64,
    add: tl.int64,
    divisor: tl.int64,
    SMOOTH: tl.constexpr,
    MULTIPLY: tl.constexpr,
    TAILS: tl.constexpr,
    SETTLE_LOSS: tl.constexpr,
    SETTLE_GRADIENT: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of elements: the losses if loss is given, the gradient if that is, and their sum added to partial if that is."""
    element = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    mask = element < n
    summands = _compute(
        input, target, weight, pos_weight, loss, gradient, element, mask, shape, input_strides, target_strides, weight_strides,
        pos_weight_strides, loss_strides, gradient_strides, keep, add, divisor, SMOOTH, MULTIPLY, TAILS, SETTLE_LOSS,
        SETTLE_GRADIENT,
    )  # fmt: skip
    if partial is not None:
        _deposit(_row(partial), summands, mask)


@triton.jit
def _is_last(counter):
    """Whether all other programs of this launch have been here; what they wrote can be read then, past the cache."""
    tl.debug_barrier()
    return tl.atomic_add(counter, 1, sem="acq_rel") == tl.num_programs(0) - 1


@triton.jit(do_not_specialize=["divisor_of_sum", "shift", "keep", "add", "divisor"])
def _settle(
    input,
    target,
    weight,
    pos_weight,
    loss,
    gradient,
    interval,
    work,
    list,
    sum,
    n,
    shape,
    input_strides,
    target_strides,
    weight_strides,
    pos_weight_strides,
    loss_strides,
    gradient_strides,
    capacity: tl.int64,
    divisor_of_sum: tl.int64,
    shift,
    keep: tl.int64,
    add: tl.int64,
    divisor: tl.int64,
    SMOOTH: tl.constexpr,
    MULTIPLY: tl.constexpr,
    SETTLE_LOSS: tl.constexpr,
    SETTLE_GRADIENT: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The listed elements, or all if the list was too short. If a sum is wanted, add the losses that were left out to both ends
    of its interval, round these, and leave the sum to _settle_sum unless they agree."""
    count = tl.load(work + LISTED)
    all = count > capacity
    count = tl.where(all, n.to(tl.int64), count)
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    while begin < count:
        place = begin + tl.arange(0, BLOCK)
        mask = place < count
        entry = tl.load(list + place, mask & (place < capacity), other=0)
        left_out = entry >= LEFT_OUT
        element = tl.where(all, place, tl.where(left_out, entry - LEFT_OUT, entry)).to(INDEX)
        summands = _compute(
            input, target, weight, pos_weight, loss, gradient, element, mask, shape, input_strides, target_strides,
            weight_strides, pos_weight_strides, loss_strides, gradient_strides, keep, add, divisor, SMOOTH, MULTIPLY, False,
            SETTLE_LOSS, SETTLE_GRADIENT,
        )  # fmt: skip
        if sum is not None:
            if tl.max((mask & left_out).to(tl.int32), 0) > 0:
                _deposit(_row(interval), summands, mask & left_out)
                _deposit(_row(interval) + SIZE, summands, mask & left_out)
        begin += tl.num_programs(0) * BLOCK
    if sum is not None:
        if _is_last(work + DONE):
            apart = _store_upper_end(interval, sum, divisor_of_sum, shift)
            if (apart > 0) | (count > capacity):
                tl.store(work + UNSETTLED, 1)


@triton.jit(do_not_specialize=["divisor_of_sum", "shift", "keep", "add"])
def _settle_sum(
    input,
    target,
    weight,
    pos_weight,
    partial,
    work,
    sum,
    n,
    shape,
    input_strides,
    target_strides,
    weight_strides,
    pos_weight_strides,
    divisor_of_sum: tl.int64,
    shift,
    keep: tl.int64,
    add: tl.int64,
    SMOOTH: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sum of all elements, if _settle left it."""
    if tl.load(work + UNSETTLED) != 0:
        begin = tl.program_id(0).to(INDEX) * BLOCK
        while begin < n:
            element = begin + tl.arange(0, BLOCK)
            mask = element < n
            summands = _compute(
                input, target, weight, pos_weight, None, None, element, mask, shape, input_strides, target_strides,
                weight_strides, pos_weight_strides, input_strides, input_strides, keep, add, keep, SMOOTH, True, False, False,
                False,
            )  # fmt: skip
            _deposit(_row(partial), summands, mask)
            begin += tl.num_programs(0) * BLOCK
        if _is_last(work + DONE + 1):
            _store_rounded_sum(partial, sum, divisor_of_sum, shift)
