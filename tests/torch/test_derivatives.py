"""Derivatives of every order, in all operands, by every route that torch has to them."""

import math

import mpmath
import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.nn import functional as F

from bce_bridge import binary_cross_entropy_with_logits as bce
from bce_bridge.torch import operators
from bce_bridge.torch.derivatives import Formulae

# torch's own forward-mode differentiation scripts its decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

REDUCTIONS = ["none", "mean", "sum"]


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


# Catches: a wrong, missing or undifferentiable derivative in any operand; one that forgets the 1 / n, the label smoothing, the
# sum over broadcast dimensions, or a batch.
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shapes", [[(3, 2), (3, 2)], [(3, 2), (3, 2), (2,), (3, 1)], [(), (), (), ()]])
def test_gradcheck(shapes, label_smoothing, reduction):
    torch.manual_seed(0)
    operands = [torch.rand(shape, dtype=torch.float64) for shape in shapes]
    operands = leaves(4 * operands[0] - 2, *operands[1:])

    def function(x, y, w=None, p=None):
        return bce(x, y, w, pos_weight=p, reduction=reduction, label_smoothing=label_smoothing)

    forward = {"check_forward_ad": True, "check_batched_forward_grad": True}
    assert gradcheck(function, operands, check_batched_grad=True, **forward)
    assert gradgradcheck(function, operands, check_batched_grad=True, check_fwd_over_rev=True, check_rev_over_rev=True)


TRANSFORMS = {
    "vmap": lambda f, x, y, w, p: vmap(f, (0, 0, None, 0))(x, y, w, p),
    "vmap over the second dimension": lambda f, x, y, w, p: vmap(f, (1, 1, None, None), 0)(x, y, w, p[0, :1]),
    "vmap with one target": lambda f, x, y, w, p: vmap(f, (0, None, None, None))(x, y[0], w, p[0]),
    "vmap of vmap": lambda f, x, y, w, p: vmap(vmap(f, (0, 0, None, 0)), (0, 0, None, None))(x, y, w[0], p[0, :, 0]),
    "vmap of grad": lambda f, x, y, w, p: vmap(grad(scalar(f), (0, 1)), (0, 0, None, 0))(x, y, w, p),
    "vjp": lambda f, x, y, w, p: vjp(scalar(f), x, y, w, p)[1](torch.tensor(3.0, dtype=x.dtype)),
    "jvp": lambda f, x, y, w, p: jvp(lambda x, y: f(x, y, w, p), (x, y), (y, x)),
    "jacrev": lambda f, x, y, w, p: jacrev(f, (0, 1))(x[0], y[0], w, p[0]),
    "jacfwd": lambda f, x, y, w, p: jacfwd(f, (0, 1))(x[0], y[0], w, p[0]),
    "hessian": lambda f, x, y, w, p: hessian(scalar(f), (0, 1))(x[0], y[0], w, p[0]),
    "jacrev of jacrev": lambda f, x, y, w, p: jacrev(jacrev(scalar(f)))(x[0], y[0], w, p[0]),
    "reverse over forward": lambda f, x, y, w, p: jacrev(jacfwd(scalar(f)))(x[0], y[0], w, p[0]),
    "vmap of hessian": lambda f, x, y, w, p: vmap(hessian(scalar(f), (0, 1)), (0, 0, None, 0))(x, y, w, p),
    "third derivative": lambda f, x, y, w, p: vmap(grad(grad(grad(f))), (0, 0, None, 0))(
        x[:, 0, 0], y[:, 0, 0], w[0], p[:, 0, 0]
    ),
    "vectorised jacobian": lambda f, x, y, w, p: torch.autograd.functional.jacobian(lambda x: f(x, y, w, p), x, vectorize=True),
}


def scalar(function):
    return lambda *operands: function(*operands).sum()


# Catches: a transform that fails, or that silently returns something else than it does of libtorch's own operator.
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, reduction):
    torch.manual_seed(1)
    shapes = (4, 3, 2), (4, 3, 2), (2,), (4, 3, 1)
    operands = [2 * torch.rand(shape, dtype=torch.float64) for shape in shapes]
    results = [
        TRANSFORMS[name](lambda x, y, w, p: function(x, y, w, pos_weight=p, reduction=reduction), *operands)
        for function in (bce, F.binary_cross_entropy_with_logits)
    ]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


def derivatives(outer, middle, inner, count):
    """Of a function of several operands: its derivative count times over in the first, or in the first and then the second."""
    return {
        "twice": lambda f: outer(inner(f)),
        "three times": lambda f: outer(middle(inner(f))),
        "in two operands": lambda f: outer(inner(f), 1),
    }[count]


# Catches: forward mode within forward mode that takes the inner tangent for a constant, and gives 0. The oracle is reverse mode
# over libtorch's operator, which does not have all of it.
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("count", ["twice", "three times", "in two operands"])
@pytest.mark.parametrize("modes", [(jacfwd, jacfwd, jacfwd), (jacfwd, jacfwd, jacrev), (jacfwd, jacrev, jacfwd)])
def test_forward_over_forward(modes, count, reduction):
    torch.manual_seed(4)
    x, y, w, p = (torch.rand(shape, dtype=torch.float64) for shape in (3, 3, 3, ()))

    def of(function):
        return lambda x, y: function(4 * x - 2, y, w, pos_weight=p, reduction=reduction)

    got = derivatives(*modes, count)(of(bce))(x, y)
    expected = derivatives(jacrev, jacrev, jacrev, count)(of(F.binary_cross_entropy_with_logits))(x, y)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)
    assert expected.abs().max() > 1e-3


# Catches: a weight's gradient that is summed or scaled in its own precision; the oracle is the exact sum.
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_of_weights_are_rounded_once(reduction):
    torch.manual_seed(2)
    x, y, w, p = 5 * torch.randn(40, 3), torch.rand(40, 3), torch.rand(40, 1), 4 * torch.rand(3)
    operands = leaves(w, p)
    got = torch.autograd.grad(3 * bce(x, y, operands[0], pos_weight=operands[1], reduction=reduction), operands)
    exact = [{}, {}]
    for i in range(40):
        for j in range(3):
            a, b, c, d = (mpmath.mpf(t.item()) for t in (x[i, j], y[i, j], w[i, 0], p[j]))
            positive = b * mpmath.log1p(mpmath.exp(-a))
            exact[0][i] = exact[0].get(i, 0) + (1 - b) * mpmath.log1p(mpmath.exp(a)) + d * positive
            exact[1][j] = exact[1].get(j, 0) + c * positive
    for gradient, values in zip(got, exact):
        assert gradient.dtype == torch.float32
        for number, value in zip(gradient.flatten().tolist(), values.values()):
            value *= 3 / mpmath.mpf(120 if reduction == "mean" else 1)
            ulp = 2.0 ** (math.frexp(float(value))[1] - 24)
            assert abs(number - value) <= 0.5001 * ulp


# Catches: a route on which the first derivative is not the core's, bit for bit: as are those of the eager backward.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_routes_give_the_same_bits(reduction, dtype):
    torch.manual_seed(3)
    x, y = 0.01 * torch.randn(2000, dtype=dtype), torch.randint(0, 2, (2000,)).to(dtype)
    p = torch.rand(2000) if reduction == "sum" else None

    def loss(x):
        return bce(x, y, pos_weight=p, reduction=reduction)

    for factor in (1.0, 0.3):
        (leaf,) = leaves(x)
        (expected,) = torch.autograd.grad((loss(leaf) * factor).sum(), leaf)
        (leaf,) = leaves(x)
        assert torch.equal(torch.autograd.grad((loss(leaf) * factor).sum(), leaf, create_graph=True)[0], expected)
        assert torch.equal(grad(lambda x: (loss(x) * factor).sum())(x), expected)
        twice = vmap(grad(lambda x: (loss(x) * factor).sum()))(torch.stack([x, x]))
        assert torch.equal(twice, torch.stack([expected, expected]))


# Catches: a batch of incoming gradients that is taken for one.
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batched_incoming_gradients(reduction):
    x, y = torch.randn(6, requires_grad=True), torch.rand(6)
    loss = bce(x, y, reduction=reduction)
    incoming = torch.rand(4, *loss.shape)
    (got,) = torch.autograd.grad(loss, x, incoming, is_grads_batched=True, retain_graph=True)
    expected = [torch.autograd.grad(loss, x, g, retain_graph=True)[0] for g in incoming]
    assert torch.equal(got, torch.stack(expected))


# Catches: NaN in forward mode from a tangent of 0 where the derivative is infinite: what does not move adds nothing.
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_zero_tangent_silences_an_infinite_derivative(reduction):
    x = torch.tensor([math.inf, -math.inf, 0.5], dtype=torch.float64)
    y, dy = torch.tensor([[1.0, 0.0, 0.25], [0.0, 0.0, 1.0]], dtype=torch.float64)
    w = torch.ones(3, dtype=torch.float64)
    tangent = jvp(lambda y, w: bce(x, y, w, reduction=reduction), (y, w), (dy, w))[1]
    alone = jvp(lambda y, w: bce(x[2:], y, w, reduction=reduction), (y[2:], w[2:]), (dy[2:], w[2:]))[1]
    expected = {"none": torch.cat([torch.zeros(2), alone]) if reduction == "none" else None, "mean": alone / 3, "sum": alone}
    torch.testing.assert_close(tangent, expected[reduction], rtol=1e-15, atol=0)


# Catches: NaN from 0 times infinity where a zero coefficient silences its term: masked logits must not spoil a Hessian.
def test_infinite_logits_at_every_order():
    inf = math.inf
    operands = [inf, -inf, inf, -inf, inf, 0.5], [1.0, 0, 0, 1, 1, 1], [1.0, 1, 0, 0, 2, 1]
    x, y, w = leaves(*map(torch.tensor, operands))
    loss = bce(x, y, w, reduction="sum")
    first = torch.autograd.grad(loss, (x, w), create_graph=True)
    assert first[0][:5].tolist() == [0] * 5 and first[1][[0, 1, 4]].tolist() == [0] * 3
    second = torch.autograd.grad(first[0].sum(), (x, w), create_graph=True)
    assert second[0][:5].tolist() == [0] * 5 and second[0][5] > 0
    third = torch.autograd.grad(second[0].sum(), x)[0]
    assert third[:5].tolist() == [0] * 5 and third[5] < 0
    z, p = leaves(torch.tensor([-inf, 2.0]), torch.tensor([0.0, 1.0]))
    by_p = torch.autograd.grad(bce(z, torch.zeros(2), pos_weight=p, reduction="sum"), p, create_graph=True)[0]
    assert by_p.tolist() == [0, 0]
    assert torch.autograd.grad(by_p.sum(), z)[0].tolist() == [0, 0]


# Catches: a formula that is right but for the core's: on CUDA the first derivatives in target and weights are these.
@pytest.mark.parametrize("name", ["target", "weight", "pos_weight"])
def test_formulae_are_the_cores(name):
    torch.manual_seed(4)
    operands = 30 * torch.randn(500, dtype=torch.float64), *torch.rand(3, 500, dtype=torch.float64)
    for reduction in REDUCTIONS:
        got = Formulae(*operands, reduction, 0.1, 0).first(name)
        torch.testing.assert_close(got, operators.derivative(*operands, name, reduction, 0.1, 0), rtol=1e-13, atol=1e-16)


# Catches: a tangent of the incoming gradient that is lost because its value is 1.
def test_forward_mode_over_a_finished_graph():
    x, y = torch.randn(5, dtype=torch.float64, requires_grad=True), torch.rand(5, dtype=torch.float64)
    loss = bce(x, y)
    with forward_ad.dual_level():
        incoming = forward_ad.make_dual(torch.ones_like(loss), torch.full_like(loss, 2.0))
        got, tangent = forward_ad.unpack_dual(torch.autograd.grad(loss, x, incoming, retain_graph=True)[0])
    assert torch.equal(got, torch.autograd.grad(loss, x)[0]) and torch.equal(tangent, 2 * got)


# Catches: an outer level of torch.func that differentiates what the function computes under no_grad.
def test_no_grad_inside_nested_transforms():
    x, y = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)

    def of(loss):
        def f(z):
            with torch.no_grad():
                constant = loss(z, y)
            return constant * z.sum()

        return f

    theirs, ours = of(F.binary_cross_entropy_with_logits), of(bce)
    torch.testing.assert_close(grad(ours)(x), grad(theirs)(x))
    second = [grad(lambda z, f=f: grad(f)(z).sum())(x) for f in (ours, theirs)]
    torch.testing.assert_close(*second)


# Catches: samples whose sums are not exact, or whose derivatives are divided and rounded in another way than alone.
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_samples_of_a_vmap_have_the_bits_of_their_own_calls(dtype, reduction):
    torch.manual_seed(2)
    x = (torch.randn(7, 5, 9) * torch.logspace(-3, 3, 7)[:, None, None]).to(dtype)
    x[0, 0, :2] = torch.tensor([math.inf, -math.inf])
    x[1, 0, 0] = math.nan
    y, w = torch.rand(9, 5, 7, dtype=dtype).permute(2, 1, 0), torch.rand(9, dtype=dtype)
    y[0, 0, :2] = torch.tensor([1.0, 0.0])

    def loss(x, y):
        return bce(x, y, w, reduction=reduction)

    together = vmap(loss)(x, y), vmap(grad(loss))(x, y)
    alone = [torch.stack([f(a, b) for a, b in zip(x, y)]) for f in (loss, grad(loss))]
    for got, expected in zip(together, alone):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    assert vmap(loss)(x[:, :0], y[:, :0]).shape == (7,)


# Catches: a recorded graph, which holds the operator of the fused pass, that vmap can only take sample by sample.
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap_of_the_fused_operator(reduction):
    torch.manual_seed(3)
    x, y, w = torch.randn(4, 5, 3), torch.rand(3, 5), torch.rand(4, 3)
    operator = torch.ops.bce_bridge.loss_and_gradient
    together = vmap(lambda x, w: operator(x, y.T, w, None, reduction, 0.1, torch.float32))(x, w)
    alone = [operator(x[i], y.T, w[i], None, reduction, 0.1, torch.float32) for i in range(4)]
    for got, expected in zip(together, zip(*alone)):
        torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=0)
