"""bce_bridge.lucid on NumPy arrays, on Lucid's tensors where it is installed, and on stand-ins for those of Lucid 3.

Lucid 2 runs on Linux (make test-lucid), Lucid 3 on Apple silicon alone. The stand-ins have that part of Lucid 3's documented
interface which the module uses: Tensor with numpy(), requires_grad, device, shape, sum(dim=, keepdim=) and multiplication,
tensor(data, device=), and autograd.Function with apply(), save_for_backward() and saved_tensors.
"""

import importlib.util
import inspect
import sys
import types

import numpy as np
import pytest
from mpmath import mp

from bce_bridge.conformance import implementations
from bce_bridge.conformance.cases import load_cases
from bce_bridge.conformance.crosscheck import crosscheck
from bce_bridge.lucid import BCEWithLogitsLoss, binary_cross_entropy_with_logits


class Tensor:
    def __init__(self, data, device="cpu", requires_grad=False):
        self.data, self.device, self.requires_grad = data, device, requires_grad
        self.grad, self.backward_of_grad = None, None

    @property
    def shape(self):
        return self.data.shape

    def numpy(self):
        return self.data

    def __mul__(self, other):
        return Tensor(self.data * other.data)

    def sum(self, dim=None, keepdim=False):
        return Tensor(self.data.sum(axis=dim, keepdims=keepdim))


def tensor(data, *, device=None):
    assert isinstance(data, np.ndarray)  # what every version of Lucid takes with its own type
    return Tensor(data.copy(), device)


class Function:
    @classmethod
    def apply(cls, x):
        context = types.SimpleNamespace()
        context.save_for_backward = lambda *tensors: setattr(context, "saved_tensors", tensors)
        output = cls.forward(context, x)

        def backward_of_grad(grad):
            x.grad = cls.backward(context, grad).data

        output.requires_grad, output.backward_of_grad = True, backward_of_grad
        return output


class StandIn:
    """Lucid 3's interface, for the tests: a leaf that requires grad, and its gradient for a given one of the loss."""

    @staticmethod
    def leaf(x):
        return Tensor(x, requires_grad=True)

    tensor = staticmethod(Tensor)

    @staticmethod
    def gradient(leaf, loss, grad_output):
        loss.backward_of_grad(Tensor(grad_output))
        return leaf.grad


class Lucid2:
    """The same of Lucid 2."""

    @staticmethod
    def leaf(x):
        return sys.modules["lucid"].tensor(np.asarray(x), requires_grad=True)

    @staticmethod
    def tensor(x):
        return sys.modules["lucid"].tensor(np.asarray(x))

    @staticmethod
    def gradient(leaf, loss, grad_output):
        loss.grad = np.asarray(grad_output)
        loss.backward()
        return leaf.grad


INTERFACES = [StandIn, Lucid2] if importlib.util.find_spec("lucid") else [StandIn]


@pytest.fixture(params=INTERFACES)
def lucid(request, monkeypatch):
    if request.param is StandIn:
        module = types.SimpleNamespace(Tensor=Tensor, tensor=tensor, autograd=types.SimpleNamespace(Function=Function))
        monkeypatch.setitem(sys.modules, "lucid", module)
    else:
        importlib.import_module("lucid")
    return request.param


class OnTensors(implementations.Core):
    """The module as the cross-check calls it: the loss on arrays, and its gradient on tensors of the interface."""

    name = "lucid"

    def loss_and_grad(self, logits, targets, weight, pos_weight, reduction):
        criterion = BCEWithLogitsLoss(weight, reduction, pos_weight)
        x = self.interface.leaf(logits)
        loss = criterion(x, self.interface.tensor(targets))
        assert np.array_equal(loss.numpy(), criterion(logits, targets), equal_nan=True)
        return loss.numpy(), self.interface.gradient(x, loss, np.ones(loss.shape, loss.numpy().dtype))


# Catches: a worked example of Lucid's, or any other recorded case, computed otherwise; a gradient that does not arrive.
def test_conforms_on_recorded_cases(lucid):
    implementation = type("OnTheseTensors", (OnTensors,), {"interface": lucid})
    (row,) = crosscheck(implementations=(implementation,))
    assert row.verdict == "conforms" and row.cases == len(load_cases(implementation.dtypes))


def test_signatures():
    parameters = inspect.signature(BCEWithLogitsLoss).parameters
    assert {name: p.default for name, p in parameters.items()} == {"weight": None, "reduction": "mean", "pos_weight": None}
    names = list(inspect.signature(binary_cross_entropy_with_logits).parameters)
    assert names[:5] == ["x", "target", "weight", "reduction", "pos_weight"]
    assert list(inspect.signature(BCEWithLogitsLoss.forward).parameters)[1:3] == ["x", "target"]


# Catches: 3.16's name of the logits refused, or taken for something else.
def test_both_names_of_the_logits():
    x, y = np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.0, 1.0])
    loss = BCEWithLogitsLoss()
    assert loss(x, y) == loss(x=x, target=y) == loss(input=x, target=y) == binary_cross_entropy_with_logits(input=x, target=y)
    for arguments in ({"target": y}, {"x": x}, {"x": x, "input": x, "target": y}):
        with pytest.raises(TypeError, match="x or input must be given, not both, and target"):
            loss(**arguments)


def formula(x, y, w, p):
    """Lucid's own two formulae, of its documentation, for one element in 100 digits."""
    with mp.workdps(100):
        x, y, w, p = (mp.mpf(float(v)) for v in (x, y, w, p))
        if p == 1:
            return float(w * (max(x, 0) - x * y + mp.log(1 + mp.exp(-abs(x)))))
        return float(w * ((1 - y) * x + (1 + (p - 1) * y) * (mp.log(1 + mp.exp(-abs(x))) + max(-x, 0))))


SHAPES = [
    ((4, 3), (4, 3), (), ()),
    ((3,), (4, 3), (4, 1), (3,)),
    ((4, 1), (3,), (1,), (1, 3)),
    ((), (3,), (4, 3), ()),
    ((4, 1), (4, 1), (4, 3), (1,)),
    ((1, 3), (1, 1), (4, 1), (1, 3)),
]


# Catches: an operand that is not broadcast, or a mean over fewer elements than the result has.
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_all_four_broadcast(shapes, reduction):
    rng = np.random.default_rng(0)
    x, y, w, p = (rng.uniform(low, 3, shape) for low, shape in zip((-3, 0, 0, 0.5), shapes))
    y /= 3
    each = np.vectorize(formula)(x, y, w, p)
    expected = {"none": each, "mean": each.mean(), "sum": each.sum()}[reduction]
    got = BCEWithLogitsLoss(w, reduction, p)(x, y)
    assert np.shape(got) == np.shape(expected)
    # Ours is within 4 ULP, and the expected sum of 12 numbers within as many roundings.
    np.testing.assert_allclose(got, expected, rtol=12 * 2**-52)


# Catches: a gradient of the broadcast shape, or one that is not summed over what x was repeated along.
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradient_has_the_shape_of_x(lucid, shapes):
    rng = np.random.default_rng(1)
    x, y, w, p = (rng.uniform(0, 1, shape) for shape in shapes)
    leaf = lucid.leaf(x)
    gradient = lucid.gradient(leaf, BCEWithLogitsLoss(w, "sum", p)(leaf, lucid.tensor(y)), np.array(2.0))
    each = 2 * w * ((1 - y) / (1 + np.exp(-x)) - p * y / (1 + np.exp(x)))
    added = each.ndim - x.ndim
    axes = (*range(added), *(added + i for i, size in enumerate(x.shape) if size == 1))
    expected = each.sum(axes, keepdims=True).reshape(x.shape)
    assert gradient.shape == x.shape
    np.testing.assert_allclose(gradient, expected, rtol=1e-13)


# Catches: a result on another device, of another kind or with a gradient that nobody asked for.
def test_lucid_tensors_give_lucid_tensors(lucid):
    x, y = np.array([2.0, -1.0], np.float32), np.array([1.0, 0.0], np.float32)
    tensor = lucid.tensor(x)
    loss = BCEWithLogitsLoss(reduction="none")(tensor, lucid.tensor(y))
    assert type(loss) is type(tensor) and loss.device == tensor.device and not loss.requires_grad
    assert loss.numpy().dtype == np.float32
    assert isinstance(BCEWithLogitsLoss()(x, y), np.float32)
    assert isinstance(BCEWithLogitsLoss()(x, lucid.tensor(y)), np.float32)
    leaf = lucid.leaf(x)
    loss = BCEWithLogitsLoss(reduction="none")(leaf, lucid.tensor(y.astype(np.float64)))
    assert type(loss) is type(tensor) and loss.requires_grad and loss.numpy().dtype == np.float64


# Catches: an object that only has numpy(), or only __array__, taken for an object array.
def test_other_objects():
    class OnlyArray:
        def __array__(self, dtype=None, copy=None):
            return np.array([2.0, -1.0])

    x, y = np.array([2.0, -1.0]), [1, 0]
    expected = BCEWithLogitsLoss()(x, y)
    for other in (OnlyArray(), types.SimpleNamespace(numpy=lambda: x), x.tolist()):
        assert BCEWithLogitsLoss()(other, y) == expected


@pytest.mark.parametrize(
    "x, target, result", [("f4", "f8", "f8"), ("f8", "f4", "f8"), ("f2", "f4", "f4"), ("f4", "i8", "f4"), ("f4", "?", "f4")]
)
def test_result_type(x, target, result):
    loss = BCEWithLogitsLoss()(np.zeros(3, x), np.ones(3, target))
    assert loss.dtype == np.dtype(result)
    assert loss == np.log(np.longdouble(2)).astype(result)


def test_empty():
    empty = np.zeros((0, 3))
    assert np.isnan(BCEWithLogitsLoss()(empty, empty))
    assert BCEWithLogitsLoss(reduction="sum")(empty, empty) == 0
    assert BCEWithLogitsLoss(reduction="none")(empty, empty).shape == (0, 3)


# Lucid up to 3.15.4 takes any reduction in the constructor.
@pytest.mark.parametrize("reduction", ["foo", None, "Mean"])
def test_unknown_reduction(reduction):
    loss = BCEWithLogitsLoss(reduction=reduction)
    with pytest.raises(ValueError, match=r"^reduction must be one of \('none', 'mean', 'sum'\), got " + repr(reduction)):
        loss(np.zeros(3), np.zeros(3))


def test_attributes_are_looked_at_in_the_call():
    loss, x = BCEWithLogitsLoss(), np.array([1.0, -2.0])
    loss.reduction, loss.weight, loss.pos_weight = "sum", np.array(2.0), np.array(3.0)
    assert loss(x, x > 0) == BCEWithLogitsLoss(2.0, "sum", 3.0)(x, x > 0)


def test_repr():
    assert BCEWithLogitsLoss().extra_repr() == "reduction='mean'"
    assert repr(BCEWithLogitsLoss(reduction="sum")) == "BCEWithLogitsLoss(reduction='sum')"


# Catches: a shape, type or gradient that is dropped without a word.
def test_refusals_name_the_argument(lucid):
    x = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"shapes must broadcast .*, got x of shape \(4, 3\), target of shape \(4,\)"):
        BCEWithLogitsLoss()(x, np.zeros(4))
    with pytest.raises(ValueError, match=r"shapes must .*, got .*target of shape \(4, 3\), pos_weight of shape \(2,\)$"):
        BCEWithLogitsLoss(pos_weight=np.ones(2))(x, x)
    with pytest.raises(TypeError, match="^x must have a real dtype, got complex128"):
        BCEWithLogitsLoss()(x + 1j, x)
    for name in ("weight", "pos_weight"):
        with pytest.raises(RuntimeError, match=f"^{name} must not require grad"):
            BCEWithLogitsLoss(**{name: lucid.leaf(x)})(x, x)
    with pytest.raises(RuntimeError, match="^target must not require grad"):
        BCEWithLogitsLoss()(x, lucid.leaf(x))


# Lucid up to 3.15.4 has pos_weight before reduction there. Catches: a pos_weight that is ignored.
def test_older_order_by_position_is_refused():
    x = np.array([1.0, -2.0])
    with pytest.raises(ValueError, match="^reduction must be one of"):
        binary_cross_entropy_with_logits(x, x > 0, None, np.array([3.0, 3.0]), "sum")


# Catches: 1 - y, which max(x, 0) - x y + log(1 + e^-|x|) has by its subgradients.
def test_gradient_at_zero(lucid):
    x = lucid.leaf(np.zeros(3))
    loss = BCEWithLogitsLoss(reduction="sum")(x, lucid.tensor(np.array([0.0, 0.5, 1.0])))
    assert lucid.gradient(x, loss, np.array(1.0)).tolist() == [0.5, 0, -0.5]


# Catches: a training loop written for a Module, which fails or sees a parameter.
def test_methods_of_a_module():
    loss, x = BCEWithLogitsLoss(), np.array([1.0, -2.0])
    before = loss(x, x > 0)
    assert loss.training and loss.eval() is loss and not loss.training
    assert loss(x, x > 0) == before
    assert loss.train() is loss and loss.training
    assert list(loss.parameters()) == [] and loss.state_dict() == {}
    loss.load_state_dict(loss.state_dict())
    with pytest.raises(KeyError, match="state_dict must be empty, got 'weight'"):
        loss.load_state_dict({"weight": x})
