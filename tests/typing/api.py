"""The public API as a user calls it: mypy --strict reads this and tests/test_typing.py runs mypy. It is never run."""

import functools
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import assert_type

import bce_bridge
from bce_bridge import BCEWithLogitsLoss, binary_cross_entropy_with_logits, composer, core, lucid, pykeen, r
from bce_bridge.torch import distributed

Scalar = np.floating[Any]
Array = NDArray[np.floating[Any]]

assert_type(bce_bridge.__version__, str)
bce_bridge.show_versions()

# NumPy: lists, arrays and numbers in; what comes out depends on the reduction alone.
x, y = np.zeros((4, 3), np.float32), [[0, 1, 0]] * 4
assert_type(core.loss(x, y), Scalar)
assert_type(core.loss(1.0, True, 2, [3.0], "sum", label_smoothing=0.1), Scalar)
assert_type(core.loss(x, y, reduction="none"), Array)
assert_type(core.loss(x, y, None, [1, 2, 3], "none"), Array)
assert_type(core.loss_and_grad(x, y), tuple[Scalar, Array])
assert_type(core.loss_and_grad(x, y, pos_weight=3, reduction="none", out=x), tuple[Array, Array])
assert_type(core.curvature(x, y, reduction="none"), Array)


def either(reduction: Literal["mean", "none"]) -> None:
    assert_type(core.loss(x, y, reduction=reduction), Scalar | Array)


accumulator = core.Accumulator().update(x, y).merge(core.Accumulator())
assert_type(accumulator, core.Accumulator)
assert_type(functools.reduce(core.Accumulator.merge, [accumulator], core.Accumulator()), core.Accumulator)
assert_type(accumulator.mean(), Scalar)
assert_type(accumulator.sum(np.float32), Scalar)
assert_type(accumulator.count, int)
assert_type(core.Accumulator.from_array(accumulator.to_array()), core.Accumulator)
core.set_num_threads(core.get_num_threads())
assert_type(core.build_info()["isas_built"], list[str])

# torch: one import changed.
logits, targets = torch.zeros(4, 3, requires_grad=True), torch.ones(4, 3)
criterion: torch.nn.BCEWithLogitsLoss = BCEWithLogitsLoss(pos_weight=torch.ones(3), label_smoothing=0.1, backend="core")
assert_type(criterion.forward(logits, targets), torch.Tensor)
assert_type(binary_cross_entropy_with_logits(logits, targets, reduction="sum", backend="aten"), torch.Tensor)
assert_type(distributed.global_loss(logits, targets, group=None), torch.Tensor)
assert_type(composer.binary_cross_entropy_with_logits(logits, targets, scale_by_batch_size=False), torch.Tensor)
assert_type(pykeen.BCEWithLogitsLoss(pos_weight=2.0).forward(logits, targets), torch.Tensor)
pykeen.register()
lucid.BCEWithLogitsLoss(reduction="sum")(x, y)

# R
assert_type(r.evaluate("r-package", x, y), tuple[Scalar, Array])
assert_type(r.evaluate("r-nmath", x, y, reduction="none"), tuple[Array, Array])
assert_type(r.run("list(a = 1)")["a"], NDArray[np.float64])
try:
    r.install(torch.device("cuda"))
except r.RError as error:
    assert_type(error.call, str | None)

# What mypy must refuse: an ignore that ignores nothing is an error under --strict.
core.loss(x, y, reduction="average")  # type: ignore[call-overload]
core.loss(x, None)  # type: ignore[call-overload]
core.Accumulator().merge(x)  # type: ignore[arg-type]
binary_cross_entropy_with_logits(logits, targets, pos_weight=3.0)  # type: ignore[arg-type]
BCEWithLogitsLoss(backend="gpu")  # type: ignore[arg-type]
distributed.global_loss(logits, targets, reduction="none")  # type: ignore[arg-type]
r.evaluate("r", x, y)  # type: ignore[call-overload]
