"""The operators under torch.compile, torch.export, tracers, fake and meta tensors: bits and errors as in eager mode."""

import io
import sys
import types

import onnxruntime
import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import bce_bridge
from bce_bridge import binary_cross_entropy_with_logits as bce
from bce_bridge.torch import functional, operators

# torch's own forward-mode differentiation and compiler call what torch has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script(_method)?` is deprecated", "ignore:`torch._prims_common.check` is deprecated"
)


@pytest.fixture(autouse=True)
def forget_compiled_code():
    torch._dynamo.reset()


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.criterion = bce_bridge.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 5.0]), label_smoothing=0.1)

    def forward(self, x, y):
        return self.criterion(self.linear(x), y)


def train(function, *operands):
    """The loss and the gradients in its operands, of an incoming gradient that is not 1."""
    leaves = [None if t is None else t.detach().clone().requires_grad_(t.is_floating_point()) for t in operands]
    loss = function(*leaves)
    loss.backward(torch.full_like(loss, 0.3))
    return loss.detach(), *(t.grad for t in leaves if t is not None and t.requires_grad)


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()


# Catches: a graph break, other bits, dtypes or strides than in eager mode, gradients that the compiler loses.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_compile(reduction, dtype):
    def function(x, y, w, p):
        return bce(x, y, w, pos_weight=p, reduction=reduction, label_smoothing=0.1)

    compiled = torch.compile(function, fullgraph=True)
    x, y = torch.randn(6, 4, dtype=dtype).T, torch.rand(4, 6, dtype=dtype)
    for target, w, p in ((y, torch.rand(4, 1), torch.rand(6)), (y.round().long(), None, None), (y > 0.5, None, torch.rand(6))):
        same(train(compiled, x, target, w, p), train(function, x, target, w, p))


# Catches: a recompilation for each batch size.
def test_dynamic_shapes():
    model = Model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    torch._dynamo.utils.counters.clear()
    for n in (4, 5, 9):
        x, y = torch.randn(n, 3), torch.randint(0, 2, (n, 3))
        same(train(compiled, x, y), train(model, x, y))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


# Catches: a compiled training step that computes its gradient in a second pass.
def test_compiled_step_is_one_pass():
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes if "bce_bridge" in str(node.target))
        return make_boxed_func(graph.forward)

    x, y = torch.randn(4, 3, requires_grad=True), torch.rand(4, 3)
    torch.compile(bce, fullgraph=True, backend=aot_autograd(fw_compiler=backend))(x, y).backward()
    assert seen == ["bce_bridge.loss_and_gradient.default"]
    seen.clear()
    torch.compile(bce, fullgraph=True, backend=aot_autograd(fw_compiler=backend))(x.detach(), y)
    assert seen == ["bce_bridge.loss.default"]


# Catches: torch.func inside compiled code, which once gave zero tangents without a word.
@pytest.mark.parametrize(
    "transform",
    [
        torch.func.grad,
        torch.func.vmap,
        torch.func.hessian,
        lambda f: torch.func.vmap(torch.func.grad(f)),
        lambda f: lambda x, y: torch.func.jvp(f, (x, y), (y, x)),
    ],
)
def test_compiled_transforms(transform):
    x, y = torch.randn(4, 3), torch.rand(4, 3)
    ours, theirs = (
        torch.utils._pytree.tree_leaves(f(x, y)) for f in (torch.compile(transform(bce), fullgraph=True), transform(bce))
    )
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # the compiler fuses the formulae of the second derivatives
    torch.testing.assert_close(ours, torch.utils._pytree.tree_leaves(transform(F.binary_cross_entropy_with_logits)(x, y)))


def test_compiled_autocast():
    x, y = torch.randn(4, 3, dtype=torch.bfloat16), torch.rand(4, 3, dtype=torch.bfloat16)

    def function(x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return bce(x, y)

    same(train(torch.compile(function, fullgraph=True), x, y), train(function, x, y))


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_compiled_refusals(name):
    x = torch.zeros(1, 3)
    with pytest.raises(RuntimeError, match=f"{name} must broadcast to the input's shape"):
        torch.compile(bce, fullgraph=True)(x, x, **{name: torch.ones(4, 3)})
    for options in ({name: [1.0]}, {"reduction": "foo"}):
        with pytest.raises(Exception):  # noqa: B017, PT011 (the kind is the compiler's choice)
            torch.compile(bce, fullgraph=True)(x, x, **options)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")  # torch 2.13's export warns of itself
@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    model = Model()
    dynamic = {name: {0: torch.export.Dim.DYNAMIC} for name in "xy"}
    program = torch.export.export(model, (torch.randn(4, 3), torch.rand(4, 3)), dynamic_shapes=dynamic, strict=strict)
    x, y = torch.randn(7, 3), torch.rand(7, 3)
    assert torch.equal(program.module()(x, y), model(x, y))
    targets = [str(node.target) for node in program.run_decompositions().graph.nodes]
    assert sum("bce_bridge" in target for target in targets) == 1


# Catches: an operator that ONNX does not know; a decomposition with other values than the core's, in the tails, at masked
# logits, where weights broadcast, or in the mean of a batch of another size.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # the exporter's
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("training", [False, True])
def test_onnx(training, reduction):
    class Criterion(torch.nn.Module):
        def __init__(self):
            super().__init__()
            weights = {"weight": torch.tensor([2.0, 1.0, 0.0]), "pos_weight": torch.tensor([1.0, 3.0, 0.5])}
            self.criterion = bce_bridge.BCEWithLogitsLoss(**weights, reduction=reduction, label_smoothing=0.125)

        def forward(self, x, y):
            return self.criterion(x, y)

    def operands(rows):
        generator = torch.Generator().manual_seed(rows)
        x = 40 * torch.randn(rows, 3, generator=generator)
        return x.requires_grad_(training), torch.rand(rows, 3, generator=generator).round()

    model, dynamic = Criterion(), {name: {0: torch.export.Dim("rows", min=2)} for name in "xy"}
    file = io.BytesIO()
    torch.onnx.export(model, operands(4), dynamo=True, dynamic_shapes=dynamic, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    x, y = operands(7)
    if not training and reduction == "none":
        x[0], y[0] = -torch.inf, 0.0
    (got,) = session.run(None, {"x": x.detach().numpy(), "y": y.numpy()})
    # float64 to 2^-34 within, so that both are rounded once, or to the number beside.
    torch.testing.assert_close(torch.from_numpy(got), model(x, y).detach(), rtol=2**-23, atol=0)


# torch's own tests of an operator: schema, autograd registration, fake tensors, dynamic shapes. In torch 2.14 they warn of
# themselves, for torch's own operators too.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor is being accessed:UserWarning")
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("given", [True, False])
def test_opcheck(given, reduction):
    x, y = torch.randn(4, 3, requires_grad=True), torch.rand(3, 4).T.requires_grad_()
    weights = (torch.rand(3, requires_grad=True), torch.rand(4, 1, requires_grad=True)) if given else (None, None)
    torch.library.opcheck(operators.loss, (x, y, *weights, reduction, 0.1, torch.float64, 0))
    torch.library.opcheck(operators.loss_and_gradient, (x, y, *weights, reduction, 0.1, torch.float32))
    for name in ("input", "target", "weight", "pos_weight"):
        torch.library.opcheck(operators.derivative, (x, y, *weights, name, reduction, 0.1, 0))


# Catches: reading the memory of a tensor that has none; a result of another dtype, shape or stride than the real one.
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("device", ["meta", "fake"])
def test_meta_and_fake_tensors(device, reduction):
    x, y = torch.randn(3, 4).T, torch.randint(0, 2, (4, 3))

    def step(x, y, p):
        x = x.detach().requires_grad_()
        loss = bce(x, y, pos_weight=p, reduction=reduction)
        (first,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
        return loss, first, *torch.autograd.grad(first.sum(), x)

    real = step(x, y, torch.rand(3))
    if device == "meta":
        got = step(x.to("meta"), y.to("meta"), torch.empty(3, device="meta"))
        with pytest.raises(RuntimeError, match=r"pos_weight must broadcast to the input's shape .*, got shape \(5, 4, 3\)"):
            bce(x.to("meta"), y.to("meta"), pos_weight=torch.empty(5, 4, 3, device="meta"))
    else:
        with FakeTensorMode() as mode:
            got = step(mode.from_tensor(x), mode.from_tensor(y), torch.empty(3))
    for a, b in zip(got, real):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        assert a.device.type == ("meta" if device == "meta" else "cpu")


def test_make_fx_and_symbolic_trace():
    x, y = torch.randn(4, 3), torch.rand(4, 3)
    graph = make_fx(lambda x, y: torch.func.grad(bce)(x, y))(x, y)
    assert torch.equal(graph(x, y), torch.func.grad(bce)(x, y))
    model = Model()
    assert torch.equal(torch.fx.symbolic_trace(model)(x, y), model(x, y))


# TorchScript can hold no operator written in Python: there it is libtorch's own loss.
@pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated", "ignore:Converting a tensor to a Python boolean")
def test_torchscript():
    model = Model()
    x, y = torch.randn(4, 3), torch.rand(4, 3)
    for compiled in (torch.jit.script(model), torch.jit.trace(model, (x, y))):
        torch.testing.assert_close(compiled(x, y), model(x, y))


# Catches: a backward that the compiler cannot see through.
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_compiled_autograd(factor):
    x, y = torch.randn(6, requires_grad=True), torch.rand(6)
    expected = torch.autograd.grad(bce(x, y) * factor, x)[0]
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        (bce(x, y) * factor).backward()
    assert torch.equal(x.grad, expected)


# Catches a graph break where CUDA tensors are first asked what serves them: torch 2.11 traces into cached functions.
def test_the_search_for_triton_is_no_part_of_the_graph(monkeypatch):
    def gives_the_cores_bits(device):
        return torch.ones(3, device=device).sum().item() == 3.0

    stub = types.SimpleNamespace(gives_the_cores_bits=gives_the_cores_bits)
    monkeypatch.setitem(sys.modules, "bce_bridge.torch.triton_kernel", stub)
    functional._find_triton_problem.cache_clear()
    try:
        double = torch.compile(lambda x: x * 2 if functional._triton_problem(x.device) is None else x, fullgraph=True)
        assert torch.equal(double(torch.ones(2)), torch.full((2,), 2.0))
    finally:
        functional._find_triton_problem.cache_clear()
