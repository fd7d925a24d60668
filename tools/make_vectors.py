"""Writes vectors/bce-with-logits.json.

    python tools/make_vectors.py                              the cases of a flag and all exact answers, made again
    python tools/make_vectors.py --record pytorch pykeen      and the answers of these, where they are installed
    python tools/make_vectors.py --recording r-torch FILE     and those that r_compat/inst/conformance/record.R wrote

Cases of the families that no flag names are kept as they are, and so are answers that are not recorded anew. composer is
recorded in the environment of make test-composer.
"""

import argparse
import collections
import itertools
import json
import math
import sys
from pathlib import Path

from mpmath import mp, mpf

from bce_bridge.conformance import implementations
from bce_bridge.conformance.cases import DTYPES, QUANTITIES, VECTORS, answer_of, case_of, read_recording
from bce_bridge.conformance.compare import rounded
from bce_bridge.conformance.exact import PRECISION, element, exact

FLAGS = {
    "tail-cancellation": "The loss as (1 - y) x - log sigma(x), the gradient as sigma(x) - y, or log(1 + t) for log1p(t): "
    "at confident correct predictions terms cancel, or a small t is lost beside the 1, and the result is 0 or has few right "
    "digits.",
    "mean-of-means": "The mean of a problem that comes in parts as the mean of the parts' means: wrong where the parts are "
    "uneven, NaN where one is empty.",
    "pos-weight-axis": "A weight or pos_weight of shape (C,) along the first dimension: it belongs to the C classes of the "
    "last.",
    "overflow": "-log(sigma(x)) and log(1 - sigma(x)) taken as they are written, or e^x of a large logit: inf or NaN where "
    "the loss is a finite number.",
    "infinite-logit": "NaN at (inf, y = 1), at (-inf, y = 0) and where a weight is 0: a coefficient of zero silences its "
    "term, and masking by -inf works.",
    "empty": "Something else than a sum of 0 and a mean of NaN for no elements, or an error.",
    "nan-propagation": "A NaN swallowed by max() or where(): a NaN in any operand gives NaN.",
    "double-rounding": "A result rounded to a wider type first and then to its own: off by a hair more than half an ULP. "
    "Seen by judging correct rounding (--ulp 0.5) only.",
    "subnormal": "Subnormal numbers flushed to zero, as operands or as results.",
    "accumulation": "A sum added up in the type of the result: small terms are lost beside large ones, and a mean is "
    "infinite because its sum is.",
}

IMPLEMENTATIONS = ("r-torch", "pytorch", "pykeen", "composer")
FUNCTIONS = {
    "pytorch": "torch.nn.functional.binary_cross_entropy_with_logits",
    "pykeen": "pykeen.losses.BCEWithLogitsLoss",
    "composer": "composer.loss.binary_cross_entropy_with_logits, scale_by_batch_size=False",
}
OPERANDS = ("input", "target", "weight", "pos_weight")

# significant bits, and the exponent of the least normal number
FORMATS = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}
WIDER = {"float16": "float32", "bfloat16": "float32", "float32": "float64"}


def largest(dtype):
    bits, least = FORMATS[dtype]
    return math.ldexp(2.0 - 2.0 ** (1 - bits), 1 - least)


# Logits at which e^-|x| is a normal number, then a subnormal one, and libtorch's formula has lost all digits or most.
TAILS = {
    "float16": ([-4.5, -5.0, -6.0, -7.0], [-10.5, -12.0, -13.5]),
    "bfloat16": ([-4.5, -12.0, -40.0, -80.0], [-88.0, -88.5, -89.0]),
    "float32": ([-9.0, -14.75, -20.0, -80.0], [-88.0, -95.0, -100.0]),
    "float64": ([-20.0, -34.0, -80.0, -700.0], [-709.0, -725.0, -740.0]),
}


def flagged(dtype):
    """(family, note, arguments of entry) of each case. Logits are mispredictions (y = 0 at x > 0, y = 1 at x < 0) where
    nothing else is said: there no formula cancels, so that a case catches its mistake and no other."""
    yield from _tails(*TAILS[dtype])
    yield from _parts_and_axes()
    yield from _overflow(dtype)
    yield from _limits()
    if dtype in ("float16", "float32"):
        for x, y, _ in near_ties(dtype)[:3]:
            yield "double-rounding", "the gradient is next to a tie", dict(x=(x,), y=(y,))
    if dtype in ("float16", "bfloat16"):
        yield "double-rounding", "weighted losses next to a tie", dict(zip("xyw", zip(*near_weighted_ties(dtype))))
    tiny = 2.0 ** FORMATS[dtype][1]
    yield "subnormal", "least normal weight", dict(x=(-0.5, -0.25, 0, 0.25, 0.5), y=(1, 1, 1, 0, 0), w=(tiny,) * 5)
    weights = dict(w=((), (tiny / 16,)), p=((), (128,)))
    yield "subnormal", "subnormal weight, normal results", dict(x=(-1, -0.5), y=(1, 1), **weights)
    yield from _accumulation(dtype)


def _tails(tails, subnormal_tails):
    mirrored = [-x for x in tails]
    yield "tail-cancellation", "y = 0: the loss is sigma(x)", dict(x=tails, y=(0,) * 4)
    yield "tail-cancellation", "y = 1: the gradient is -sigma(-x)", dict(x=mirrored, y=(1,) * 4)
    x, y, w = mirrored + tails, (1,) * 4 + (0,) * 4, (1, 0.5, 3, 1, 1, 2, 1, 1)
    yield "tail-cancellation", "weights", dict(x=x, y=y, w=w, p=((), (3,)))
    also = ("tail-cancellation",)
    yield "subnormal", "y = 0: loss and gradient are subnormal", dict(x=subnormal_tails, y=(0,) * 3, also=also)
    yield "subnormal", "y = 1: the same", dict(x=[-x for x in subnormal_tails], y=(1,) * 3, also=also)


def _parts_and_axes():
    x, y = (-1, 2, 2.5, -1.75, 0.25, -0.5, 1.5), (1, 0, 0, 1, 0, 1, 0)
    yield "mean-of-means", "one and five", dict(x=x[:6], y=y[:6], parts=(1, 5))
    yield "mean-of-means", "an empty part", dict(x=x, y=y, parts=(3, 0, 4))
    yield "mean-of-means", "every element a part but two", dict(x=x, y=y, parts=(1, 1, 1, 2, 1, 1))
    yield "mean-of-means", "rows", dict(x=((3, 2), x[:6]), y=y[:6], w=((3, 1), (1, 2, 4)), parts=(2, 1))
    x, y = (-1, -2, 2.5, -0.5, 2, -1.75, -1.5, -2.5, -0.25), (1, 1, 0, 1, 0, 1, 1, 1, 1)
    yield "pos-weight-axis", "a square batch", dict(x=((3, 3), x), y=y, p=(2, 5, 11))
    weights = dict(w=((3, 1), (1, 2, 4)), p=((1, 3), (7, 0.5, 3)))
    yield "pos-weight-axis", "a square batch, weighted", dict(x=((3, 3), x), y=y, **weights)
    yield "pos-weight-axis", "a cube", dict(x=((2, 2, 2), x[:8]), y=y[:8], p=(1, 6))
    yield "pos-weight-axis", "a square batch, weight", dict(x=((3, 3), x), y=y, w=(2, 5, 11))
    yield "pos-weight-axis", "a cube, weight", dict(x=((2, 2, 2), x[:8]), y=y[:8], w=(1, 6))


def _overflow(dtype):
    huge = largest(dtype) / 8
    x = (200, 1000, 20000, -1000, -200)
    yield "overflow", "mispredictions", dict(x=x, y=(0, 0, 0, 1, 1))
    yield "overflow", "soft labels", dict(x=x, y=(0.25, 0.5, 0.75, 0.25, 0.5))
    yield "overflow", "correct predictions: loss and gradient are 0", dict(x=(2000, 30000, -2000, -30000), y=(1, 1, 0, 0))
    yield "overflow", "an eighth of the largest number", dict(x=(huge, -huge, huge, -huge), y=(0, 1, 1, 0))


def _limits():
    inf, nan = math.inf, math.nan
    yield "infinite-logit", "certain and right", dict(x=(inf, -inf, -1), y=(1, 0, 1))
    yield "infinite-logit", "a batch masked by -inf", dict(x=(-inf, 3, -inf, -2, -inf), y=(0, 0, 0, 1, 0))
    yield "infinite-logit", "weight 0", dict(x=(inf, -inf, -1), y=(0, 1, 1), w=(0, 0, 1))
    yield "infinite-logit", "pos_weight 0", dict(x=(-inf, -inf, 2), y=(1, 1, 0), p=((), (0,)))
    yield "empty", "", dict(x=(), y=())
    yield "empty", "no rows", dict(x=((0, 3), ()), y=(), p=(1, 2, 3))
    yield "empty", "no columns", dict(x=((2, 0), ()), y=(), w=((2, 1), (1, 2)))
    yield "nan-propagation", "logit", dict(x=(-1, nan, 2), y=(1, 1, 0))
    yield "nan-propagation", "target", dict(x=(-1, -2, 2), y=(1, nan, 0))
    yield "nan-propagation", "weight", dict(x=(-1, -2, 2), y=(1, 1, 0), w=(1, nan, 1))
    yield "nan-propagation", "pos_weight, also at y = 0", dict(x=(-1, -2, 2, 1), y=(1, 1, 0, 0), p=(1, nan, nan, 1))
    yield "nan-propagation", "logit under weight 0", dict(x=(-1, nan, nan), y=(1, 1, 0), w=(1, 0, 0))


def _accumulation(dtype):
    """log 2, the loss at x = 0, is below half an ULP of 2^(bits + 1) log 2: one large loss swallows all small ones."""
    large = 2.0 ** (FORMATS[dtype][0] + 1)
    yield "accumulation", "a large loss, then small ones", dict(x=(0,) * 65, y=(0,) * 65, w=(large,) + (1,) * 64)
    w = (large,) * 8 + (1,) * 256
    yield "accumulation", "8 large losses, then small ones", dict(x=(0,) * 264, y=(0,) * 264, w=w)
    yield "accumulation", "equal losses", dict(x=(-0.375,) * 250, y=(1,) * 250)
    if dtype != "float64":
        w = (largest(dtype),) * 4
        yield "accumulation", "the sum overflows, the mean does not", dict(x=(0,) * 4, y=(0, 1, 0, 1), w=w)


def near_ties(dtype):
    """(x, y, w) whose gradient, sigma(x), rounds otherwise when it is rounded to a wider type before: sigma(x) is
    1/2 + x/4 - x^3/48 ..., next to a tie at odd multiples of 2^(1 - bits), and the wider type loses the cubic term."""
    step = 2.0 ** (1 - FORMATS[dtype][0])
    return _misrounded(((k * step, 1) for k in range(1, 64, 2)), dtype)


def near_weighted_ties(dtype):
    """The same of the loss w (x + e^-x ...), where w x is a tie and float32, but not float64, loses the exponential."""
    step = 2.0 ** (1 - FORMATS[dtype][0])
    return _misrounded(((x / 2, 1 + k * step) for x in range(32, 56) for k in range(1, round(1 / step))), dtype)


def _misrounded(logits_and_weights, dtype):
    """Up to eight (x, y, w), with positive and negative logits in turn."""
    found = []
    for logit, w in logits_and_weights:
        x, y = (-logit, 1) if len(found) % 2 else (logit, 0)
        with mp.workprec(PRECISION):
            results = element(x, y, w, 1)[:2]
        if any(rounded(mpf(rounded(value, WIDER[dtype])), dtype) != rounded(value, dtype) for value in results):
            found.append((x, y, w))
        if len(found) == 8:
            break
    return found


def hexadecimal(number):
    """As C's %a writes it."""
    text = float(number).hex()
    if "x" not in text:
        return text
    mantissa, exponent = text.split("p")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"


def array(operand, dtype, shape=None):
    """{shape, data} of a sequence of numbers, in one dimension or the shape given, or of (shape, numbers); None of None."""
    if operand is None:
        return None
    if len(operand) == 2 and isinstance(operand[1], (tuple, list)):
        shape, operand = operand
    numbers = [rounded(mpf(number), dtype) for number in operand]
    return {"shape": [len(numbers)] if shape is None else list(shape), "data": [hexadecimal(number) for number in numbers]}


def entry(id, note, flags, dtype, x, y, w=None, p=None, parts=None):
    x = array(x, dtype)
    case = {"id": id, "note": note, "dtype": dtype, "flags": flags, "input": x, "target": array(y, dtype, x["shape"])}
    case |= {"weight": array(w, dtype), "pos_weight": array(p, dtype)}
    return case | ({"parts": list(parts)} if parts else {})


def flagged_entries():
    numbers = collections.defaultdict(itertools.count)
    entries = []
    for dtype in DTYPES:
        for family, note, arguments in flagged(dtype):
            flags = [family, *arguments.pop("also", ())]
            id = f"{family}-{dtype}-{next(numbers[family, dtype])}"
            entries.append(entry(id, note, flags, dtype, **arguments))
    return sorted(entries, key=lambda case: list(FLAGS).index(case["flags"][0]))


def encode(quantities):
    """A quantity as a list of hex floats, or as one where it is a number."""
    encoded = {name: [hexadecimal(number) for number in quantities[name]] for name in QUANTITIES if name in quantities}
    return {name: numbers[0] if name in ("mean", "sum") else numbers for name, numbers in encoded.items()}


def exact_answers(case):
    values = exact(case_of(case)).values
    return encode({name: [rounded(value, case["dtype"]) for value in numbers] for name, numbers in values.items()})


class PyTorch(implementations.Torch):
    """torch.nn.functional's own function."""

    def loss(self, x, y, w, p, reduction):
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(x, y, w, reduction=reduction, pos_weight=p)


def record(name, cases):
    """(description, answers by id) of an implementation that is installed here."""
    import torch

    implementation = {"pytorch": PyTorch, "pykeen": implementations.PyKEEN, "composer": implementations.Composer}[name]()
    quantities = [name for name in QUANTITIES if name.removeprefix("grad_") in implementation.reductions]
    description = {"implementation": FUNCTIONS[name], "version": implementation.open(), "torch": torch.__version__}
    description["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    loaded = [case_of(case) for case in cases]
    return description | {"quantities": quantities}, {
        case.id: encode(implementation.answer(case)) for case in loaded if implementation.can_answer(case)
    }


def shortened(answers):
    """The answers to a case, with the name of an earlier implementation in place of the same numbers."""
    result = {}
    for name in IMPLEMENTATIONS:
        own = answers.get(name)
        earlier = (other for other, answer in result.items() if isinstance(answer, dict))
        same = (other for other in earlier if own and {**result[other], **own} == result[other])
        result[name] = next(same, own)
    return result


def problem(case):
    """What an answer depends on."""
    return json.dumps([case["id"], case["dtype"], *(case[name] for name in OPERANDS)])


def made(vectors, recorded):
    """The file's content: vectors with all that can be made made again. recorded: name -> (description, answers by id)."""
    kept = [case for case in vectors["cases"] if case["id"].rsplit("-", 2)[0] not in FLAGS]
    before = {problem(case): {name: answer_of(vectors, case, name) for name in IMPLEMENTATIONS} for case in vectors["cases"]}
    cases = []
    for case in kept + flagged_entries():
        answers = before.get(problem(case), {})
        for name, (_, by_id) in recorded.items():
            answers[name] = by_id.get(case["id"])
        inputs = {key: case[key] for key in ("id", "note", "dtype", "flags", *OPERANDS, "parts") if key in case}
        cases.append(inputs | {"exact": exact_answers(case), "answers": shortened(answers)})
    descriptions = vectors["implementations"] | {name: description for name, (description, _) in recorded.items()}
    return {"format": "bce-cases/2", "flags": FLAGS, "implementations": descriptions, "cases": cases}


def text_of(vectors):
    """JSON with a case a line."""
    head = json.dumps({key: value for key, value in vectors.items() if key != "cases"}, indent=1)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in vectors["cases"])
    return f'{head[:-2]},\n "cases": [\n{lines}\n]}}\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", nargs="+", default=[], choices=["pytorch", "pykeen", "composer"])
    parser.add_argument("--recording", nargs=2, action="append", default=[], metavar=("NAME", "FILE"))
    options = parser.parse_args()
    vectors = json.loads(VECTORS.read_text())
    recorded = {name: record(name, made(vectors, {})["cases"]) for name in options.record}
    for name, path in options.recording:
        description, answers = read_recording(path)
        description = {key: value for key, value in description.items() if key not in ("format", "note")}
        recorded[name] = description | {"quantities": QUANTITIES}, {id: encode(answer) for id, answer in answers.items()}
    Path(VECTORS).write_text(text_of(made(vectors, recorded)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
