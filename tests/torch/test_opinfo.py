"""torch's own samples for this loss (OpInfo, ModuleInfo), through both implementations and against exact values."""

import io
import math
import warnings

import mpmath
import pytest
import torch

import bce_bridge

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they miss packages that only other tests of torch's need
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

NAME = "binary_cross_entropy_with_logits"
(OPERATOR,) = (info for info in op_db if info.name == f"nn.functional.{NAME}")
(MODULE,) = (info for info in module_db if info.name == "nn.BCEWithLogitsLoss")


def exact_terms(x, y, w, p):
    """The two terms each of the loss, of its derivative in x, and of that in y."""
    with mpmath.workdps(40):
        x, y, w, p = map(mpmath.mpf, (x, y, w, p))
        up, down = mpmath.log1p(mpmath.exp(x)), mpmath.log1p(mpmath.exp(-x))
        sigma, tau = 1 / (1 + mpmath.exp(-x)), 1 / (1 + mpmath.exp(x))
        return (w * (1 - y) * up, w * p * y * down), (w * (1 - y) * sigma, -w * p * y * tau), (w * p * down, -w * up)


def check(got, terms, like):
    """got is the exact sum of the terms but for its own rounding and some of float64's, whose size is the terms'."""
    with mpmath.workdps(40):
        exact, size = mpmath.fsum(terms), mpmath.fsum(map(abs, terms))
        limits = torch.finfo(like)
        exponent = math.frexp(float(exact))[1] - 1 if exact else -1074
        ulp = max(limits.eps * 2.0**exponent, limits.smallest_normal * limits.eps)
        assert abs(mpmath.mpf(got) - exact) <= 0.5001 * ulp + 8 * 2**-53 * size


def compare(ours, theirs, x, y, w, p, reduction):
    """The results, (loss, gradient in x, gradient in y) of an incoming gradient of ones, of both, and with the exact values."""
    n = x.numel() if reduction == "mean" else 1
    w, p = (torch.ones_like(x) if t is None else t.expand_as(x) for t in (w, p))
    numbers = list(zip(*(t.double().flatten().tolist() for t in (x, y, w, p))))
    terms = [[[term / n for term in pair] for pair in exact_terms(*four)] for four in numbers]
    if reduction == "none":
        losses = [pair for pair, _, _ in terms]
    else:
        losses = [[term for pair, _, _ in terms for term in pair]]
    for k, (a, b) in enumerate(zip(ours, theirs)):
        assert (a.dtype, a.shape, a.stride(), a.device) == (b.dtype, b.shape, b.stride(), b.device)
        for got, exact in zip(a.double().flatten().tolist(), losses if k == 0 else [row[k] for row in terms], strict=True):
            check(got, exact, a.dtype)
    # libtorch rounds each of some ten steps to the dtype; none of its numbers is larger than size.
    x, y, w, p = (t.double() for t in (x, y, w, p))
    size = w.abs() * (1 + y.abs()) * (2 + p.abs()) * (1 + x.abs())
    for a, b, scale in zip(ours, theirs, (size if reduction == "none" else size.sum() / n, size / n, size / n)):
        assert ((a.double() - b.double()).abs() <= 16 * torch.finfo(a.dtype).eps * scale).all()


def run(function, x, y):
    x, y = (t.detach().clone().requires_grad_() for t in (x, y))
    loss = function(x, y)
    return loss.detach(), *torch.autograd.grad(loss, (x, y), torch.ones_like(loss))


# Catches: any difference in dtype, shape or strides of the loss and both gradients; a wrong alignment of weights, reduction
# or scale; results that are not rounded once.
@pytest.mark.parametrize("dtype", sorted(OPERATOR.dtypes, key=str))
def test_samples_of_the_operator(dtype):
    torch.manual_seed(0)
    samples = list(OPERATOR.sample_inputs("cpu", dtype, requires_grad=True))
    assert len(samples) >= 26
    for sample in samples:
        results = [
            run(lambda x, y: function(x, y, **sample.kwargs), sample.input, *sample.args)
            for function in (bce_bridge.binary_cross_entropy_with_logits, OPERATOR.op)
        ]
        weights = sample.kwargs.get("weight"), sample.kwargs.get("pos_weight")
        compare(*results, sample.input.detach(), sample.args[0].detach(), *weights, sample.kwargs.get("reduction", "mean"))


# Catches: a constructor or forward that takes other arguments than torch's, or does something else with them.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_of_the_module(dtype):
    torch.manual_seed(0)
    samples = list(MODULE.module_inputs_func(MODULE, "cpu", dtype, True, training=True))
    assert len(samples) >= 6
    for sample in samples:
        args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
        modules = [cls(*args, **kwargs) for cls in (bce_bridge.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss)]
        assert [str(m) for m in modules] == ["BCEWithLogitsLoss()"] * 2
        x, y = (t.detach() for t in sample.forward_input.args)
        ours = modules[0]
        compare(*(run(m, x, y) for m in modules), x, y, ours.weight, ours.pos_weight, ours.reduction)
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(x, y), ours(x, y))
