"""What evaluate.py calls: the kernels' launches for tensors of any layout, and the fast path's table."""

import torch
import triton
import triton.language as tl

from bce_bridge import _abi
from bce_bridge.torch.triton_kernel import pairs
from bce_bridge.torch.triton_kernel.fast import WORK, _evaluate_fast
from bce_bridge.torch.triton_kernel.kernels import _evaluate, _settle, _settle_sum
from bce_bridge.torch.triton_kernel.memory import checked, common_layout
from bce_bridge.torch.triton_kernel.prepare import bits, pair, tables
from bce_bridge.torch.triton_kernel.sums import COUNT, FIELDS, MINUS_INFINITY, ROWS, SIZE, _round_partial

BLOCK, NUM_WARPS = 512, 4
FAST_BLOCKS = 16  # of a program of the fast path
SETTLING_PROGRAMS = 512
# Elements from which on the fast path is taken: it has a launch more than the float64 kernel. The second is for the cards
# whose float64 has half the rate of float32 (A100, H100 and H200, B200), by compute capability.
FAST_FROM, FAST_FROM_WITH_FLOAT64 = 1 << 18, 1 << 22
FLOAT64_CARDS = ((8, 0), (9, 0), (10, 0))
# The list has room for one element in so many, in pairs and in float32, and some: beyond that all are computed again.
LISTED, LISTED_IN_FLOAT32, LISTED_AT_LEAST = 64, 32, 4096

_INTERPRETED = not isinstance(_evaluate, triton.runtime.JITFunction)
_NARROW = (torch.float32, torch.float16, torch.bfloat16)

# Relative errors: of L and m (c_src/verify/pairs.c prints the largest), of what is done with them, and of a block's sum.
_PAIR_ERRORS = 2.0**-36.5, 2.0**-44, 2.0**-36
_FLOAT32_ERRORS = 2.0**-22, 2.0**-22, 2.0**-18.5


def _fast_from(device):
    if device.type == "cuda" and torch.cuda.get_device_capability(device) in FLOAT64_CARDS:
        return FAST_FROM_WITH_FLOAT64
    return FAST_FROM


def _is_fast(operands, results, dtype):
    """Whether the fast path serves: neither an operand nor a result is float64. Integers that float32 cannot hold it leaves."""
    if operands[0].numel() < _fast_from(operands[0].device) or dtype == torch.float64:
        return False
    given = [tensor for tensor in (*operands, *results) if tensor is not None]
    return all(tensor.dtype != torch.float64 for tensor in given)


def _float64_options(operands, label_smoothing, losses, gradient, divisor, wide_sum):
    weights = [weight.dtype for weight in operands[2:] if weight is not None]
    wide = gradient is not None and gradient.dtype == torch.float64
    narrow = [result is not None and result.dtype == torch.float32 and not weights for result in (losses, gradient)]
    return dict(
        SMOOTH=label_smoothing != 0.0,
        # Multiplying by 1/divisor rounds twice. That is invisible after narrowing and exact for powers of two.
        MULTIPLY=not wide or divisor & (divisor - 1) == 0,
        # A float64 weight may lift e^-|x| into any result's range, and an infinite one makes 0 of it NaN.
        TAILS=bool(weights)
        and (
            wide
            or wide_sum
            or any(dtype.is_floating_point for dtype in weights)
            or (losses is not None and losses.dtype == torch.float64)
        ),
        SETTLE_LOSS=narrow[0],
        SETTLE_GRADIENT=narrow[1] and divisor == 1,
    )


class Launch:
    """The kernels' common arguments for these operands and results; any but input and target may be None."""

    def __init__(self, operands, label_smoothing, losses, gradient, divisor=1):
        self.operands, self.label_smoothing, self.losses, self.gradient = operands, label_smoothing, losses, gradient
        self.divisor = divisor
        self.input = operands[0]
        self.n = self.input.numel()
        tensors = *operands, losses, gradient
        strides = [self.input.stride() if tensor is None else tensor.stride() for tensor in tensors]
        self.shape, self.strides = common_layout(self.input.shape, *strides)
        self.smoothing = dict(keep=bits(1.0 - label_smoothing), add=bits(0.5 * label_smoothing))
        self.index = tl.int32 if self.n < 2**31 - FAST_BLOCKS * BLOCK else tl.int64

    def float64(self, partial, wide_sum=False):
        """All in float64; add to the partial sum, if it is not None."""
        _evaluate[(triton.cdiv(self.n, BLOCK),)](
            *self.operands,
            self.losses,
            self.gradient,
            partial,
            self.n,
            self.shape,
            *self.strides,
            **self.smoothing,
            divisor=bits(float(self.divisor)),
            **_float64_options(self.operands, self.label_smoothing, self.losses, self.gradient, self.divisor, wide_sum),
            INDEX=self.index,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,
        )

    def fast(self, sum, divisor_of_sum):
        """All by the fast path, and the sum over divisor_of_sum if it is not None."""
        results = [result for result in (self.losses, self.gradient, sum) if result is not None]
        in_pairs = any(result.dtype == torch.float32 for result in results)
        zeros = torch.zeros((3 * SIZE.value if sum is not None else 0) + WORK, dtype=torch.int64, device=self.input.device)
        work, partial = zeros[:WORK], zeros[WORK:] if sum is not None else None
        capacity = self.n // (LISTED if in_pairs else LISTED_IN_FLOAT32) + LISTED_AT_LEAST
        list = torch.empty(capacity, dtype=torch.int64, device=self.input.device)
        self._evaluate_fast(partial, work, list, capacity, in_pairs)
        self._settle(partial, work, list, capacity, sum, divisor_of_sum)

    def _evaluate_fast(self, partial, work, list, capacity, in_pairs):
        e = self.label_smoothing
        function_error, rounding, sum_error = _PAIR_ERRORS if in_pairs else _FLOAT32_ERRORS
        if e:
            # A smoothed target has an absolute error of 2^-47, and it and its complement are at least e / 2.
            rounding += 2.0**-46 / e
            sum_error += 2.0**-46 / e
        term_error = function_error + rounding
        scale = 1.0 / self.divisor
        (keep, keep_low), (add, add_low), (high, low) = pair(1.0 - e), pair(0.5 * e), pair(scale)
        table = tables(self.input.device)[0 if in_pairs else 1]
        entry = 16 if in_pairs else 8
        _evaluate_fast[(triton.cdiv(self.n, FAST_BLOCKS * BLOCK),)](
            *self.operands,
            self.losses,
            self.gradient,
            partial,
            work,
            list,
            self.n,
            self.shape,
            *self.strides,
            table.data_ptr() - pairs.MAGIC_BITS * entry,
            capacity,
            keep,
            keep_low,
            add,
            add_low,
            high,
            low,
            term_error,
            rounding,
            term_error * scale,
            rounding * scale,
            sum_error,
            SMOOTH=e != 0.0,
            EXACT_SCALE=low == 0.0,
            PAIRS=in_pairs,
            INDEX=self.index,
            DEVICE=not _INTERPRETED,
            BLOCKS=FAST_BLOCKS,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,
        )

    def _settle(self, partial, work, list, capacity, sum, divisor):
        shift = 47 - divisor.bit_length()
        options = _float64_options(self.operands, self.label_smoothing, self.losses, self.gradient, self.divisor, False)
        del options["TAILS"]
        grid = (min(triton.cdiv(self.n, BLOCK), SETTLING_PROGRAMS),)
        _settle[grid](
            *self.operands,
            self.losses,
            self.gradient,
            partial,
            work,
            list,
            sum,
            self.n,
            self.shape,
            *self.strides,
            capacity,
            divisor << shift,
            shift,
            **self.smoothing,
            divisor=bits(float(self.divisor)),
            **options,
            INDEX=self.index,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,
        )
        if sum is not None:
            _settle_sum[grid](
                *self.operands,
                partial[2 * SIZE.value :],
                work,
                sum,
                self.n,
                self.shape,
                *self.strides[:4],
                divisor << shift,
                shift,
                **self.smoothing,
                SMOOTH=options["SMOOTH"],
                INDEX=self.index,
                BLOCK=BLOCK,
                num_warps=NUM_WARPS,
                enable_fp_fusion=False,
            )


def _rows(input):
    """An empty partial sum."""
    return torch.zeros((ROWS.value, FIELDS.value), dtype=torch.int64, device=input.device)


def loss_and_gradient(input, target, weight, pos_weight, reduction, label_smoothing, with_gradient):
    """The loss and its gradient, in one pass over the operands and without waiting for the device.

    Parameters
    ----------
    input : Tensor
        Logits: floating, on a CUDA device, of any shape and strides, as are all.
    target : Tensor
        Of the same shape on the same device; integer and boolean ones too.
    weight, pos_weight : Tensor or None
        Broadcast to the input's shape.
    reduction : str
        "none", "mean" or "sum".
    label_smoothing : float
        e in [0, 1]: targets y become y (1 - e) + e / 2.
    with_gradient : bool
        Whether to compute the gradient; under "mean" it is that of the mean.

    Returns
    -------
    loss : Tensor
        Like the target (of the input's dtype if the target is integer or boolean), but 0-d unless reduction is "none". A sum
        is exact and rounded once: no result depends on the order of the elements.
    gradient : Tensor or None
        With respect to the input, and like it.

    Raises
    ------
    ValueError
        For another reduction or a label_smoothing outside [0, 1].
    RuntimeError
        For dtypes, devices and shapes that do not fit and for more than 2^36 elements.
    """
    _abi.reduction_code(reduction)
    operands = checked(input, target, weight, pos_weight, label_smoothing)
    n = input.numel()
    dtype = target.dtype if target.dtype.is_floating_point else input.dtype
    gradient = torch.empty_like(input) if with_gradient else None
    divisor = n if reduction == "mean" else 1
    if reduction == "none":
        losses, loss = torch.empty_like(target, dtype=dtype), None
    else:
        losses, loss = None, torch.empty((), dtype=dtype, device=input.device)
        if n == 0:
            return loss.fill_(float("nan") if reduction == "mean" else 0.0), gradient
    if n == 0:
        return losses, gradient
    launch = Launch(operands, label_smoothing, losses, gradient, divisor)
    with torch.cuda.device_of(input):
        if _is_fast(operands, (losses, gradient), dtype):
            launch.fast(loss, divisor)
        elif loss is None:
            launch.float64(None)
        else:
            partial, shift = _rows(input), 47 - divisor.bit_length()
            launch.float64(partial, dtype == torch.float64)
            _round_partial[(1,)](partial, loss, divisor << shift, shift, num_warps=8, enable_fp_fusion=False)
    return losses if loss is None else loss, gradient


def gradient(input, target, weight, pos_weight, reduction, label_smoothing, count):
    """The gradient alone, under "mean" divided by count, or by the number of elements if that is 0.

    Other arguments and errors are those of loss_and_gradient.
    """
    operands = checked(input, target, weight, pos_weight, label_smoothing)
    result, n = torch.empty_like(input), input.numel()
    if n:
        launch = Launch(operands, label_smoothing, None, result, (count or n) if reduction == "mean" else 1)
        with torch.cuda.device_of(input):
            if _is_fast(operands, (result,), None):
                launch.fast(None, 1)
            else:
                launch.float64(None)
    return result


def partial_sums(input, target, weight, pos_weight, label_smoothing):
    """Lists of the fields of bce_partial, whose sums together are that of the losses: exact, and waited for.

    Arguments and errors are those of loss_and_gradient.
    """
    operands = checked(input, target, weight, pos_weight, label_smoothing)
    partial = _rows(input)
    if input.numel():
        with torch.cuda.device_of(input):
            Launch(operands, label_smoothing, None, None).float64(partial, wide_sum=True)
    partial[0, COUNT.value] = input.numel()
    return partial[:, : MINUS_INFINITY.value + 1].tolist()
