"""The torch front end beside torch's own loss: signatures, errors, autograd, memory layouts."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import bce_bridge
from bce_bridge import core

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def both(x, y, **options):
    """(loss, gradient) by ours and by torch's."""
    results = []
    for function in (bce_bridge.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits):
        leaf = x.detach().clone().requires_grad_()
        loss = function(leaf, y, **options)
        loss.backward(torch.ones_like(loss))
        results.append((loss.detach(), leaf.grad))
    return results


def test_signatures_extend_torchs():
    for ours, theirs in (
        (bce_bridge.BCEWithLogitsLoss.__init__, torch.nn.BCEWithLogitsLoss.__init__),
        (bce_bridge.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
    ):
        mine, original = (list(inspect.signature(f).parameters.values()) for f in (ours, theirs))
        assert [(p.name, p.default) for p in mine[: len(original)]] == [(p.name, p.default) for p in original]
        assert all(p.kind is p.KEYWORD_ONLY for p in mine[len(original) :])


# Catches: a wrong alignment of weights, a wrong reduction, a gradient not scaled by 1 / n, a lost dtype or stride.
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (4, 3), (2, 3, 4, 5)])
def test_agrees_with_torch(shape, dtype, reduction):
    torch.manual_seed(0)
    x, y = torch.randn(shape, dtype=dtype), torch.rand(shape, dtype=dtype)
    weights = [None, torch.rand(shape, dtype=dtype), torch.rand(shape[-1:], dtype=dtype)]
    for weight in weights:
        for pos_weight in weights:
            ours, theirs = both(x, y, weight=weight, pos_weight=pos_weight, reduction=reduction)
            for a, b in zip(ours, theirs):
                assert a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
                # Ours is rounded once; libtorch rounds some ten times in dtype, for terms of magnitude 5 at most.
                assert (a - b).abs().max() <= 16 * torch.finfo(dtype).eps * max(1, x.numel() if reduction == "sum" else 1)


def test_is_the_core():
    x, y, p = torch.randn(50, 3), torch.rand(50, 3), torch.tensor([1.0, 2.0, 5.0])
    leaf = x.clone().requires_grad_()
    loss = bce_bridge.BCEWithLogitsLoss(pos_weight=p)(leaf, y)
    loss.backward()
    expected = core.loss_and_grad(x.numpy(), y.numpy(), pos_weight=p.numpy())
    assert loss.item() == expected[0]
    assert np.array_equal(leaf.grad.numpy(), expected[1])


def test_bfloat16_rounds_once():
    every = torch.arange(-32768, 32768, dtype=torch.int16).view(torch.bfloat16)
    y = torch.zeros_like(every)
    got = bce_bridge.binary_cross_entropy_with_logits(every, y, reduction="none")
    wide = core.loss(every.double().numpy(), y.double().numpy(), reduction="none")
    # Through float32 rounded to odd, NumPy's and torch's conversions round float64 to bfloat16 only once.
    single = wide.astype(np.float32)
    inexact = (single != wide) & np.isfinite(single)
    away = np.where(np.abs(single) > np.abs(wide), np.nextafter(single, np.float32(0)), single)
    odd = np.where(inexact, (away.view(np.uint32) | 1).view(np.float32), single)
    expected = torch.from_numpy(odd).to(torch.bfloat16)
    assert torch.equal(got.nan_to_num(nan=7.0), expected.nan_to_num(nan=7.0))


def test_aten_backend_is_torchs_own_bits():
    torch.manual_seed(1)
    x, y = torch.randn(500) * 30, torch.rand(500)
    for reduction in ("none", "mean", "sum"):
        for options in ({}, {"weight": torch.rand(500)}, {"pos_weight": torch.rand(500) * 5}):
            leaf, other = (x.clone().requires_grad_() for _ in range(2))
            ours = bce_bridge.binary_cross_entropy_with_logits(leaf, y, reduction=reduction, backend="aten", **options)
            theirs = F.binary_cross_entropy_with_logits(other, y, reduction=reduction, **options)
            assert torch.equal(ours, theirs)
            ours.sum().backward()
            theirs.sum().backward()
            assert torch.equal(leaf.grad, other.grad)


def test_other_devices_go_to_aten():
    x = torch.empty(4, 3, device="meta")
    assert bce_bridge.binary_cross_entropy_with_logits(x, x, reduction="none").device.type == "meta"
    with pytest.raises(RuntimeError, match="backend 'core' wants CPU tensors"):
        bce_bridge.binary_cross_entropy_with_logits(x, x, backend="core")


def test_incoming_gradient_scales():
    x, y = torch.randn(6, requires_grad=True), torch.rand(6)
    loss = bce_bridge.binary_cross_entropy_with_logits(x, y, reduction="none")
    factors = torch.arange(6.0)
    loss.backward(factors)
    expected = core.loss_and_grad(x.detach().numpy(), y.numpy(), reduction="none")[1] * factors.numpy()
    assert np.array_equal(x.grad.numpy(), expected)


def test_no_gradient_is_computed_or_kept_without_need():
    x, y = torch.randn(4), torch.rand(4)
    assert bce_bridge.binary_cross_entropy_with_logits(x, y).grad_fn is None
    x.requires_grad_()
    with torch.no_grad():
        assert bce_bridge.binary_cross_entropy_with_logits(x, y).grad_fn is None


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_integer_targets_and_weights(dtype):
    x, y = torch.randn(8), torch.tensor([0, 1] * 4, dtype=dtype)
    got = bce_bridge.binary_cross_entropy_with_logits(x, y, y, pos_weight=y)
    assert got == bce_bridge.binary_cross_entropy_with_logits(x, y.float(), y.float(), pos_weight=y.float())
    aten = bce_bridge.binary_cross_entropy_with_logits(x, y, backend="aten")
    assert aten == F.binary_cross_entropy_with_logits(x, y.float())


def test_strided_and_negated_views():
    base = torch.randn(8, 6)
    y = torch.rand(6, 4)
    view = base[::2].T
    expected = bce_bridge.binary_cross_entropy_with_logits(view.contiguous(), y, reduction="none")
    assert torch.equal(bce_bridge.binary_cross_entropy_with_logits(view, y, reduction="none"), expected)
    expanded = torch.randn(3, 1).expand(3, 5)
    assert torch.equal(
        bce_bridge.binary_cross_entropy_with_logits(expanded, expanded.sigmoid(), reduction="none"),
        bce_bridge.binary_cross_entropy_with_logits(expanded.clone(), expanded.sigmoid(), reduction="none"),
    )
    negated = torch.randn(5, dtype=torch.complex64).conj().imag
    assert negated.is_neg()
    assert torch.equal(
        bce_bridge.binary_cross_entropy_with_logits(negated, torch.ones(5), reduction="none"),
        bce_bridge.binary_cross_entropy_with_logits(negated.resolve_neg(), torch.ones(5), reduction="none"),
    )


def test_module_is_torchs_in_every_other_way():
    p = torch.tensor([1.0, 2.0])
    module = bce_bridge.BCEWithLogitsLoss(pos_weight=p, label_smoothing=0.1)
    assert isinstance(module, torch.nn.BCEWithLogitsLoss)
    assert repr(module) == "BCEWithLogitsLoss()"
    assert list(module.state_dict()) == ["pos_weight"]
    x, y = torch.randn(3, 2), torch.rand(3, 2)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(copied(x, y), module(x, y))
    assert module.half().pos_weight.dtype == torch.float16
    with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
        assert bce_bridge.BCEWithLogitsLoss(reduce=False).reduction == "none"
    with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
        bce_bridge.binary_cross_entropy_with_logits(x, y, size_average=False)


def test_label_smoothing_in_both_backends():
    x, y = torch.randn(20, dtype=torch.float64), torch.rand(20, dtype=torch.float64)
    smoothed = y * 0.8 + 0.1
    for backend in ("core", "aten"):
        got = bce_bridge.binary_cross_entropy_with_logits(x, y, label_smoothing=0.2, backend=backend)
        torch.testing.assert_close(got, F.binary_cross_entropy_with_logits(x, smoothed), rtol=1e-14, atol=0)


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    "arguments, options, error, text",
    [
        ((X, X), {"reduction": "foo"}, ValueError, "foo is not a valid value for reduction"),
        ((X[0], X[:, :1]), {}, ValueError, r"Target size \(torch.Size\(\[4, 1\]\)\) must be the same as input size"),
        ((X, X), {"weight": torch.ones(4)}, RuntimeError, r"weight of shape \(4,\) does not broadcast"),
        ((X[:1], X[:1]), {"pos_weight": X}, RuntimeError, r"pos_weight of shape \(4, 3\) would enlarge"),
        ((X, X), {"weight": 2.0}, TypeError, "weight must be a torch.Tensor, not float"),
        ((X.numpy(), X), {}, TypeError, "input must be a torch.Tensor, not ndarray"),
        ((X.long(), X), {}, RuntimeError, "input has dtype torch.int64"),
        ((X + 1j, X), {}, RuntimeError, "input has dtype torch.complex64"),
        ((X, X + 1j), {}, RuntimeError, "target is a torch.strided tensor of dtype torch.complex64"),
        ((X.to_sparse(), X), {}, RuntimeError, "input is a torch.sparse_coo tensor"),
        ((X, X), {"backend": "gpu"}, ValueError, "backend is 'gpu'"),
        ((X, X), {"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5"),
        ((X, X.clone().requires_grad_()), {}, RuntimeError, "target requires grad"),
    ],
)
def test_refusals_name_the_argument(arguments, options, error, text):
    with pytest.raises(error, match=text):
        bce_bridge.binary_cross_entropy_with_logits(*arguments, **options)
