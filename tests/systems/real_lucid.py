"""bce_bridge.lucid beside Lucid 2 itself, in an environment of its own: make test-lucid.

These need operations, modules and optimizers around the loss; test_lucid.py, which runs there too, asks the rest.
"""

from importlib.metadata import version

import lucid
import lucid.optim
import numpy as np
import pytest
from lucid.nn import functional as F

from bce_bridge import core
from bce_bridge.lucid import BCEWithLogitsLoss

# Lucid's own operations raise NumPy's warnings, in a matrix product as at infinite numbers.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# Catches: a gradient that is scaled, or passed on, otherwise than Lucid's own operations do it; NaN from infinite logits.
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradient_through_what_lies_around(reduction):
    x = np.array([2.0, 1.0, np.inf])
    w = lucid.tensor(np.array([0.5, -2.0, 3.0]), requires_grad=True)
    logits, y = w * lucid.tensor(x), np.array([1.0, 0.0, 1.0])
    logits.keep_grad = True
    loss = BCEWithLogitsLoss(reduction=reduction)(logits, lucid.tensor(y))
    doubled = loss * 2
    assert np.array_equal(doubled.numpy(), 2 * loss.numpy())
    doubled.backward()
    _, gradient = core.loss_and_grad(logits.numpy(), y, reduction=reduction)
    assert np.array_equal(logits.grad, 2 * gradient)
    assert np.array_equal(w.grad[:2], 2 * (gradient * x)[:2])


# Catches: a step of training that fails, or does not move the parameters by the core's gradient.
def test_training_step():
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(16, 4)), (rng.random((16, 1)) < 0.5).astype(np.float64)
    model, criterion = lucid.nn.Linear(4, 1), BCEWithLogitsLoss()
    optimizer = lucid.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(20):
        before = model.weight.numpy(), model.bias.numpy()
        loss = criterion(model(lucid.tensor(inputs)), lucid.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        _, gradient = core.loss_and_grad(inputs @ before[0].T + before[1], labels)
        np.testing.assert_allclose(model.weight.numpy(), before[0] - 0.5 * gradient.T @ inputs, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model.bias.numpy().ravel(), before[1].ravel() - 0.5 * gradient.sum(), rtol=1e-12, atol=1e-14)
    assert losses == sorted(losses, reverse=True)


# Catches: docs/deviations.md saying of Lucid 2 what is no longer so.
def test_deviations_of_lucid():
    x, y = np.array([-1.0, 1.0, 20.0], np.float32), np.array([0.0, 1.0, 1.0], np.float32)
    logits, targets = lucid.tensor(x, requires_grad=True), lucid.tensor(y)
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    right, gradient = core.loss_and_grad(x.astype(np.float64), y, reduction="sum")
    loss.backward()
    if version("lucid-dl") == "2.9.0":
        assert loss.item() == pytest.approx(right + 1)  # off by -x where x is negative
        assert logits.grad[0] == pytest.approx(gradient[0] - 1)
    else:
        assert loss.item() == pytest.approx(right)
        assert logits.grad[2] == 0 > gradient[2]  # cancellation
    for infinite in (np.inf, -np.inf):
        loss = F.binary_cross_entropy_with_logits(
            lucid.tensor(np.array([infinite])), lucid.tensor(np.array([0.0])), reduction="sum"
        )
        assert np.isnan(loss.item())
    with pytest.raises(TypeError, match="eps"):
        lucid.nn.BCEWithLogitsLoss()(logits, targets)
