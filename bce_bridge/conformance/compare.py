"""Compare answers with the exact ones, and say of every difference what it is.

A number is one of

    exact      the right number, correctly rounded
    rounding   within the implementation's bound: in ULP of the result, or, where the terms of the formula cancel by nature
               (a gradient near its root, targets outside [0, 1]), in roundings of those terms
    a known deviation, by its name in docs/deviations.md: only for implementations that are allowed it
    failure    anything else
"""

from dataclasses import dataclass

from mpmath import mp, mpf

from bce_bridge.conformance.exact import PRECISION

EXACT, ROUNDING, FAILURE = "exact", "rounding", "failure"
CANCELLATION, UNDERFLOW, INFINITE_LOGIT, SMALL_SUMS = "cancellation", "underflow", "infinite-logit", "small-sums"
KNOWN_DEVIATIONS = (CANCELLATION, UNDERFLOW, INFINITE_LOGIT, SMALL_SUMS)

# Of libtorch's loss: 1 - y, its product with x; the exponential (2), log1p (2) and difference of log_sigmoid; p - 1, its
# product with y, + 1, the product, the difference, the weight. Its gradient has one fewer.
LIBTORCH_ROUNDINGS = 13

# significant bits, exponent of the least positive number, and the largest finite number
_FORMATS = {
    "float64": (53, -1074, mpf(2) ** 1024 * (1 - mpf(2) ** -53)),
    "float32": (24, -149, mpf(2) ** 128 * (1 - mpf(2) ** -24)),
    "float16": (11, -24, mpf(65504)),
    "bfloat16": (8, -133, mpf(2) ** 128 * (1 - mpf(2) ** -8)),
}


@dataclass(frozen=True)
class Bound:
    """What an implementation may be off by: so many ULP of the result, by its dtype, and so many roundings of the terms of
    the formula, in the dtype of its arithmetic (None for that of the result); and the known deviations it may show."""

    ulp: dict
    roundings: int
    arithmetic: str | None = None
    deviations: tuple = ()


def ulp(value, dtype):
    """The distance of neighbouring numbers of dtype at a finite real number."""
    bits, least, _ = _FORMATS[dtype]
    exponent = mp.frexp(value)[1] if value else -(10**9)
    return mpf(2) ** max(int(exponent) - bits, least)


def rounded(value, dtype):
    """The number of dtype nearest to a real number, ties to even, as a float; zero comes without its sign."""
    if not mp.isfinite(value):
        return float(value)
    with mp.workprec(PRECISION):
        step = ulp(value, dtype)
        nearest = mp.nint(value / step) * step
        return float(nearest if abs(nearest) <= _FORMATS[dtype][2] else mp.sign(value) * mp.inf)


def cancels(exact, terms):
    """Whether the terms of the formula, of magnitudes that add up to terms, cancel by nature."""
    return bool(terms > 2 * abs(exact))


def error_in_ulp(got, exact, dtype, magnitude=None):
    """|got - exact| in ULP of the exact value, or of the magnitude: 0 for equal infinities and NaN, inf where only one is
    finite or NaN."""
    got = mpf(float(got))
    if mp.isnan(got) or mp.isnan(exact):
        return 0.0 if mp.isnan(got) and mp.isnan(exact) else float("inf")
    largest = _FORMATS[dtype][2]
    if mp.isinf(got) or mp.isinf(exact):
        rounds_to_infinity = abs(exact) >= largest + ulp(largest, dtype) / 2
        return 0.0 if mp.isinf(got) and rounds_to_infinity and mp.sign(got) == mp.sign(exact) else float("inf")
    with mp.workprec(PRECISION):
        return float(abs(got - exact) / ulp(exact if magnitude is None else magnitude, dtype))


def classify(got, exact, terms, libtorch_terms, dtype, bound, infinite_logits, summands=0):
    """(class, error in ULP) of one number, a sum or mean of so many summands."""
    error = error_in_ulp(got, exact, dtype)
    if error <= 0.5:
        return EXACT, error
    if SMALL_SUMS in bound.deviations and mp.isinf(mpf(float(got))) and got * exact > 0:
        if summands * abs(exact) > _FORMATS[dtype][2]:
            return SMALL_SUMS, error
    if mp.isnan(mpf(float(got))) and infinite_logits and INFINITE_LOGIT in bound.deviations:
        return INFINITE_LOGIT, error
    if error == float("inf"):
        return FAILURE, error
    with mp.workprec(PRECISION):
        off = abs(mpf(float(got)) - exact)
        roundoff = mpf(2) ** -_FORMATS[bound.arithmetic or dtype][0]
        if off <= bound.ulp[dtype] * ulp(exact, dtype) + bound.roundings * roundoff * terms:
            return ROUNDING, error
        if CANCELLATION in bound.deviations and off <= LIBTORCH_ROUNDINGS * roundoff * libtorch_terms:
            return CANCELLATION, error
        if SMALL_SUMS in bound.deviations and off <= summands * roundoff * libtorch_terms:
            return SMALL_SUMS, error
        if UNDERFLOW in bound.deviations and got == 0 and abs(exact) < ulp(mpf(0), dtype) * 2 ** (_FORMATS[dtype][0] - 1):
            return UNDERFLOW, error
    return FAILURE, error
