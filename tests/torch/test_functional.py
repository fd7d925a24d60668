"""The torch front end beside torch's own loss: signatures, errors, autograd, memory layouts."""

import copy
import inspect
import math
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from processes import run_python
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


def test_the_core_wants_cpu_tensors():
    x = torch.empty(4, 3, device="meta")
    with pytest.raises(RuntimeError, match="tensors must be on the CPU for backend 'core', got "):
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
    expected = bce_bridge.binary_cross_entropy_with_logits(x, y)
    assert expected.grad_fn is None
    x.requires_grad_()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            loss = bce_bridge.binary_cross_entropy_with_logits(x, y)
            assert loss == expected and loss.grad_fn is None


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


# Catches: a call that is made again for operands that differ from its own in dtype, strides or shape alone.
@pytest.mark.parametrize("changed", [0, 1, 2, 3])
def test_calls_that_differ_in_one_operand_alone(changed):
    torch.manual_seed(5)
    operands = [torch.rand(4, 4) for _ in range(4)]
    others = [operands[changed].clone().T, operands[changed].double()]
    if changed > 1:
        others += [torch.rand(1, 4), torch.rand(1, 4).expand(4, 4), torch.rand(4, 1), torch.rand(())]

    def loss(operands):
        x, y, w, p = operands
        return bce_bridge.binary_cross_entropy_with_logits(x, y, w, pos_weight=p, reduction="none").double()

    for other in (operands[changed], *others):
        given = [*operands[:changed], other, *operands[changed + 1 :]]
        plain = [tensor.double().expand(4, 4).contiguous() for tensor in given]
        torch.testing.assert_close(loss(given), loss(plain), rtol=1e-6, atol=0)


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
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a prototype
    NESTED = torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)])


@pytest.mark.parametrize(
    "arguments, options, error, text",
    [
        ((X, X), {"reduction": "foo"}, ValueError, "foo is not a valid value for reduction"),
        ((X[0], X[:, :1]), {}, ValueError, r"Target size \(torch.Size\(\[4, 1\]\)\) must be the same as input size"),
        ((X, X), {"weight": torch.ones(4)}, RuntimeError, r"weight must broadcast to .* \(4, 3\), got shape \(4,\)"),
        ((X[:1], X[:1]), {"pos_weight": X}, RuntimeError, r"pos_weight must broadcast to .* \(1, 3\), got shape \(4, 3\)"),
        ((X, X), {"weight": 2.0}, TypeError, "weight must be a torch.Tensor, got float"),
        ((X.numpy(), X), {}, TypeError, "input must be a torch.Tensor, got ndarray"),
        ((X.long(), X), {}, RuntimeError, "input must have a floating dtype, got torch.int64: convert"),
        ((X + 1j, X), {}, RuntimeError, "input must .*, got a torch.strided .* torch.complex64: use its .real"),
        ((X, X + 1j), {}, RuntimeError, "target must .*, got a torch.strided .* torch.complex64: use its .real"),
        ((X.to_sparse(), X), {}, RuntimeError, r"input must be .*, got a torch.sparse_coo tensor.*: use its .to_dense\(\)"),
        ((X, X.to_mkldnn()), {}, RuntimeError, r"target must be .*, got a torch._mkldnn tensor.*: use its .to_dense\(\)"),
        ((X, NESTED), {}, RuntimeError, r"target must be a strided tensor, got a nested tensor: use to_padded_tensor\(\)"),
        ((NESTED, NESTED), {}, RuntimeError, r"input must be a strided tensor, got a nested tensor: use to_padded_tensor\(\)"),
        ((X, X.to(torch.float8_e5m2)), {}, RuntimeError, r"target must .*, got .* torch.float8_e5m2: use its .float\(\)"),
        ((X, X), {"weight": X.to(torch.uint16)}, RuntimeError, r"weight must .*, got .* torch.uint16: use its .float\(\)"),
        ((X, None), {}, TypeError, "target must be a torch.Tensor, got NoneType"),
        ((X, X), {"pos_weight": [1.0, 2.0, 3.0]}, TypeError, "pos_weight must be a torch.Tensor, got list"),
        ((X, X), {"backend": "gpu"}, ValueError, "backend must be 'auto', 'core', 'triton' or 'aten', got 'gpu'"),
        ((X, X), {"backend": "triton"}, RuntimeError, "tensors must be on a CUDA device for backend 'triton', got "),
        ((X, X), {"label_smoothing": 1.5}, ValueError, r"label_smoothing must be a number in \[0, 1\], got 1.5"),
        ((X, X), {"label_smoothing": math.nan}, ValueError, r"label_smoothing must be a number in \[0, 1\], got nan"),
        ((X, X), {"label_smoothing": True}, TypeError, r"label_smoothing must be a number in \[0, 1\], got True"),
        ((X, X), {"label_smoothing": "0.1"}, TypeError, r"label_smoothing must be a number in \[0, 1\], got '0.1'"),
        # The order of torch's own checks: reduction, shape, operator.
        ((X, X[0]), {"reduction": "foo", "weight": 2.0}, ValueError, "foo is not a valid value for reduction"),
        ((X + 1j, X[0]), {"weight": torch.ones(4)}, ValueError, "Target size"),
    ],
)
def test_refusals_name_the_argument(arguments, options, error, text):
    with pytest.raises(error, match=text):
        bce_bridge.binary_cross_entropy_with_logits(*arguments, **options)


# Catches: torch's own text for these, which does not say what to do; and, in the operators themselves, which an exported
# program calls without the function, a target whose memory ends before the input's.
def test_refusals_of_the_module_and_the_operators():
    for name in ("weight", "pos_weight"):
        with pytest.raises(TypeError, match=f"^{name} must be a torch.Tensor, got float: use torch.as_tensor"):
            bce_bridge.BCEWithLogitsLoss(**{name: 2.0})
    x = torch.zeros(4, 3)
    operators = torch.ops.bce_bridge
    for target in (x, x[:2]):
        calls = (
            lambda: operators.loss(x, target, None, None, "sum", 0.0, x.dtype, 0),
            lambda: operators.loss_and_gradient(x, target, None, None, "sum", 0.0, x.dtype),
            lambda: operators.derivative(x, target, None, None, "input", "sum", 0.0, 0),
        )
        for call in calls:
            if target is x:
                call()
            else:
                with pytest.raises(ValueError, match="Target size"):
                    call()


# The first backward hands out the gradient that forward has computed, scaled in place. Catches: a gradient that something else
# still uses being changed, two results in one memory, or a second backward that finds nothing left.


def step(x, y, factor=1.0, reduction="mean"):
    """The gradient alone, by the operators."""
    leaf = x.detach().clone().requires_grad_()
    loss = bce_bridge.binary_cross_entropy_with_logits(leaf, y, reduction=reduction)
    return torch.autograd.grad(loss, leaf, torch.full_like(loss, factor), create_graph=True)[0].detach()


XY = torch.linspace(-3, 3, 12).reshape(4, 3), torch.linspace(0, 1, 12).reshape(4, 3)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (1.0, 3.0), (3.0, 1.0), (3.0, 3.0)])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_retained_graphs_give_new_gradients(reduction, factors):
    leaf = XY[0].clone().requires_grad_()
    loss = bce_bridge.binary_cross_entropy_with_logits(leaf, XY[1], reduction=reduction)
    incoming = [torch.full_like(loss, factor) for factor in factors]
    first = torch.autograd.grad(loss, leaf, incoming[0], retain_graph=True)[0]
    kept = first.clone()
    second = torch.autograd.grad(loss, leaf, incoming[1])[0]
    assert torch.equal(first, kept) and first.data_ptr() != second.data_ptr()
    for got, factor in ((first, factors[0]), (second, factors[1])):
        assert torch.equal(got, step(*XY, factor, reduction))
    assert all((g == factor).all() for g, factor in zip(incoming, factors))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, leaf, incoming[1])


def test_accumulation_and_two_losses_of_the_same_logits():
    x, y = XY
    leaf = x.clone().requires_grad_()
    ours = bce_bridge.binary_cross_entropy_with_logits
    for _ in range(3):
        ours(leaf, y).backward()
    assert torch.equal(leaf.grad, step(x, y) + step(x, y) + step(x, y))
    leaf.grad = None
    (ours(leaf, y) + ours(leaf, 1 - y)).backward()
    assert torch.equal(leaf.grad, step(x, y) + step(x, 1 - y))
    leaf.grad = None
    loss = ours(leaf, y)
    (loss + 2 * loss).backward()
    assert torch.equal(leaf.grad, step(x, y, 3.0))


def test_hooks_may_change_gradients():
    leaf = XY[0].clone().requires_grad_()
    hidden = leaf * 1
    hidden.retain_grad()
    hidden.register_hook(lambda g: g.mul_(2))
    loss = bce_bridge.binary_cross_entropy_with_logits(hidden, XY[1])
    loss.backward(retain_graph=True)
    loss.backward()
    assert torch.equal(leaf.grad, 4 * step(*XY))


# Catches: writing into what a hook has kept, or handing it out as the gradient.
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_saved_tensors_hooks(factor):
    seen = []
    leaf = XY[0].clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append((t, t.clone())) or t, lambda t: t):
        loss = bce_bridge.binary_cross_entropy_with_logits(leaf, XY[1])
    (loss * factor).backward()
    leaf.grad.add_(1)
    assert len(seen) == 2 and all(torch.equal(tensor, copy) for tensor, copy in seen)
    for context in (torch.autograd.graph.save_on_cpu(), torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone)):
        leaf = XY[0].clone().requires_grad_()
        with context:
            bce_bridge.binary_cross_entropy_with_logits(leaf, XY[1]).backward()
        assert torch.equal(leaf.grad, step(*XY))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant):
    leaf = XY[0].clone().requires_grad_()
    ours = bce_bridge.binary_cross_entropy_with_logits
    loss = torch.utils.checkpoint.checkpoint(lambda x: ours(x * 1, XY[1]), leaf, use_reentrant=reentrant)
    loss.backward()
    assert torch.equal(leaf.grad, step(*XY))


def test_operands_changed_in_place_are_noticed():
    leaf, y = XY[0].clone().requires_grad_(), XY[1].clone()
    loss = bce_bridge.binary_cross_entropy_with_logits(leaf, y)
    y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# Catches: a training step that takes more extra memory than one gradient.
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_memory_of_a_step(factor, dtype):
    x, y = torch.randn(100_000).to(dtype).requires_grad_(), torch.rand(100_000).to(dtype)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        (bce_bridge.binary_cross_entropy_with_logits(x, y) * factor).backward()
    allocated = [event.self_cpu_memory_usage for event in profile.events() if event.name.startswith("aten::")]
    size = x.numel() * x.element_size()
    assert size <= sum(n for n in allocated if n > 0) < size + 100


# Catches: a gradient that underflows in float16 before a GradScaler's factor could lift it, or is rounded twice.
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_float16_gradients_are_scaled_before_rounding(reduction):
    torch.manual_seed(5)
    x, y = 4 * torch.randn(3000, dtype=torch.float16), torch.rand(3000, dtype=torch.float16)
    leaf, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    weight = torch.rand(3000) * 1e-4
    with torch.autocast("cpu", dtype=torch.float16):
        loss = bce_bridge.binary_cross_entropy_with_logits(leaf, y, weight, reduction=reduction)
    assert loss.dtype == torch.float32
    (loss * 65536).sum().backward()
    (bce_bridge.binary_cross_entropy_with_logits(wide, y.double(), weight, reduction=reduction) * 65536).sum().backward()
    assert torch.equal(leaf.grad, wide.grad.half())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_autocast_is_torchs(dtype):
    x, y = XY[0].to(dtype), XY[1].to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (loss, gradient), (theirs, their_gradient) = both(x, y, reduction="none")
        assert bce_bridge.binary_cross_entropy_with_logits(x, y > 0.5).dtype == theirs.dtype
    assert (loss.dtype, gradient.dtype) == (theirs.dtype, their_gradient.dtype)
    torch.testing.assert_close(loss, theirs)


# Catches: the loss in the input's strides or dtype; a gradient in the target's.
def test_results_follow_their_operands():
    base = torch.randn(2, 3, 4, 5)
    layouts = [base, base.to(memory_format=torch.channels_last), base.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)]
    for x in layouts:
        for y in layouts:
            for target in (y.sigmoid(), y.sigmoid().double()):
                ours, theirs = both(x, target, reduction="none")
                for a, b in zip(ours, theirs):
                    assert a.stride() == b.stride() and a.dtype == b.dtype
                torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)])
def test_empty(shape, reduction):
    ours, theirs = both(torch.zeros(shape), torch.zeros(shape), reduction=reduction)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape and torch.equal(a.isnan(), b.isnan())


class Logged(torch.Tensor):
    calls = []

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.calls.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


# Catches: checks or work before __torch_function__ has been asked; a subclass that is lost.
def test_torch_function():
    ours = bce_bridge.binary_cross_entropy_with_logits
    x = XY[0].as_subclass(Logged)
    Logged.calls.clear()
    loss = ours(x, XY[1], label_smoothing=0.1)
    assert Logged.calls == [ours] and type(loss) is Logged
    assert loss.as_subclass(torch.Tensor) == ours(*XY, label_smoothing=0.1)

    class Anything:
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function, len(args), kwargs

    function, n, options = ours(Anything(), 3, reduction="foo", label_smoothing="x")
    assert function is ours and n == 2 and options["label_smoothing"] == "x" and options["reduction"] == "foo"


def test_parameters_as_weights_learn():
    module = bce_bridge.BCEWithLogitsLoss(pos_weight=torch.nn.Parameter(torch.ones(3)))
    module(*XY).backward()
    assert (module.pos_weight.grad > 0).all()


# Catches: two threads that fill in the same description of a call.
def test_threads_share_nothing():
    x, y = torch.randn(8, 1000), torch.rand(8, 1000)
    expected = [bce_bridge.binary_cross_entropy_with_logits(*row).item() for row in zip(x, y)]

    def repeat(i):
        return {bce_bridge.binary_cross_entropy_with_logits(x[i], y[i]).item() for _ in range(300)}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(repeat, range(8))) == [{loss} for loss in expected]


@pytest.mark.parametrize(
    "mode",
    [
        "torch.inference_mode()",
        "torch.device('meta')",
        "torch.set_default_dtype(torch.float64) or contextlib.nullcontext()",
        "torch._subclasses.FakeTensorMode()",
        "contextlib.nullcontext(torch.func.grad(lambda x: (bce_bridge.BCEWithLogitsLoss(), x)[1])(torch.zeros(())))",
        "contextlib.nullcontext(torch.func.functionalize(lambda x: (bce_bridge.BCEWithLogitsLoss(), x)[1])(torch.zeros(2)))",
    ],
)
def test_first_use_in_any_mode(mode):
    """What the import finds out about tensors must not depend on its mode: it would choose the slow way or fail."""
    code = (
        f"import contextlib, torch, bce_bridge\nwith {mode}: bce_bridge.BCEWithLogitsLoss()\n"
        "x = torch.zeros(3, requires_grad=True)\nloss = bce_bridge.BCEWithLogitsLoss()(x, torch.zeros(3))\n"
        "assert type(loss.grad_fn).__name__ == 'EagerLossBackward' and abs(loss.item() - 0.6931) < 1e-4, loss"
    )
    run_python(code)


def test_a_buffer_may_become_a_parameter_or_none():
    """The module looks for its buffers in the shortest way."""
    module = bce_bridge.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))
    x, y = torch.randn(5), torch.ones(5)
    expected = F.binary_cross_entropy_with_logits(x, y, pos_weight=torch.tensor(2.0))
    module.pos_weight = torch.nn.Parameter(torch.tensor(2.0))
    torch.testing.assert_close(module(x, y), expected)
    module.pos_weight = None
    torch.testing.assert_close(module(x, y), F.binary_cross_entropy_with_logits(x, y))
    del module.pos_weight
    module.pos_weight = torch.tensor(2.0)
    torch.testing.assert_close(module(x, y), expected)


def test_a_module_made_of_torchs_state():
    """Catches an attribute that an older pickle, or a module whose class was changed, lacks."""
    module = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))
    expected = module(torch.ones(2), torch.ones(2))
    module.__class__ = bce_bridge.BCEWithLogitsLoss
    torch.testing.assert_close(module(torch.ones(2), torch.ones(2)), expected)


# Catches a gradient that is lost with a backward pass which fails: before our node, after it, and in the node that follows.
@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_failed_backward_pass_can_be_tried_again(reduction, factor):
    def refuse(*_):
        raise ZeroDivisionError

    gradients = []
    for loss_of in (bce_bridge.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits):
        leaf = XY[0].clone().requires_grad_()
        hidden = leaf * 1
        loss = loss_of(hidden, XY[1], reduction=reduction)
        incoming = torch.full_like(loss, factor)
        before, after = loss.grad_fn.register_prehook, loss.grad_fn.register_hook
        for register, retain in ((before, True), (after, True), (hidden.grad_fn.register_prehook, True), (after, False)):
            hook = register(refuse)
            with pytest.raises(ZeroDivisionError):
                loss.backward(incoming, retain_graph=retain)
            hook.remove()
        loss.backward(incoming)
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
