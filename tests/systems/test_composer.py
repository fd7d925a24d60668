"""bce_bridge.composer against what Composer's own function answered, recorded in data/composer.json, and exact values."""

import inspect
import json
from pathlib import Path

import composer_problems
import numpy as np
import pytest
import torch

from bce_bridge import core
from bce_bridge.benchmark.memory import peak_memory
from bce_bridge.composer import binary_cross_entropy_with_logits
from bce_bridge.conformance import implementations
from bce_bridge.conformance.cases import load_cases
from bce_bridge.conformance.crosscheck import crosscheck

RECORDS = json.loads((Path(__file__).parent / "data/composer.json").read_text())["answers"]


def decode(value):
    if not isinstance(value, dict):
        return value
    data = [float.fromhex(number) if isinstance(number, str) else number for number in value["data"]]
    return torch.tensor(data, dtype=getattr(torch, value["dtype"])).reshape(value["shape"])


def test_recorded_problems_are_todays():
    # Made by torch's generator, whose numbers may be others in another version: the ids are what must agree.
    assert [record["id"] for record in RECORDS] == [id for id, _ in composer_problems.problems(seed=0)]


# Catches: any argument, error or warning that is taken otherwise than by Composer, but for those that tests below are about.
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["id"])
def test_answers_as_composer(record):
    arguments, theirs = ({name: decode(value) for name, value in record[kind].items()} for kind in ("arguments", "answer"))
    ours = composer_problems.answer(binary_cross_entropy_with_logits, arguments)
    composer_problems.check(record["id"], arguments, ours, theirs)


def test_signature():
    parameters = inspect.signature(binary_cross_entropy_with_logits).parameters
    assert {name: parameter.default for name, parameter in parameters.items() if parameter.default is not parameter.empty} == {
        "weight": None,
        "size_average": None,
        "reduce": None,
        "reduction": "sum",
        "pos_weight": None,
        "scale_by_batch_size": True,
    }
    assert list(parameters)[:2] == ["input", "target"]


# Catches: a worked example of the recorded family, or any other case of float32, computed otherwise.
def test_conforms_on_recorded_cases():
    (row,) = crosscheck(implementations=(implementations.ComposerFrontEnd,))
    cases = [case for case in load_cases() if case.dtype == "float32"]
    assert row.verdict == "conforms" and row.cases == len(cases) and "worked" in {case.family for case in cases}


# Catches: one-hot targets at the wrong elements or with the wrong bits; the oracle spells the indices out in NumPy.
@pytest.mark.parametrize("dtype", composer_problems.INTEGERS)
def test_indices_of_every_type_are_the_core_of_their_one_hot(dtype):
    rng = np.random.default_rng(0)
    x, indices = rng.normal(0, 5, (6, 4, 3)).astype(np.float32), rng.integers(0, 4, (6, 3))
    dense = np.zeros((6, 4, 3), np.float32)
    for n, d in np.ndindex(6, 3):
        dense[n, indices[n, d], d] = 1
    leaf = torch.tensor(x, requires_grad=True)
    loss = binary_cross_entropy_with_logits(leaf, torch.tensor(indices).to(dtype), scale_by_batch_size=False)
    loss.backward()
    expected = core.loss_and_grad(x, dense, reduction="sum")
    assert loss.item() == expected[0] and np.array_equal(leaf.grad.numpy(), expected[1])


# Catches: 255 + 1 becoming 0, so that an index no class has would pass.
def test_large_uint8_index_is_refused():
    with pytest.raises(ValueError, match="num_classes must be greater than or equal to tensor.max.. . 1: 3 < 256"):
        binary_cross_entropy_with_logits(torch.zeros(2, 3), torch.tensor([0, 255], dtype=torch.uint8))


def test_no_indices_give_an_empty_loss():
    x, y = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert binary_cross_entropy_with_logits(x, y, scale_by_batch_size=False) == 0
    assert binary_cross_entropy_with_logits(x, y).isnan()
    assert binary_cross_entropy_with_logits(x, y, reduction="none").shape == (0, 3)


# Catches: masked classes, whose logits are -inf, turning the loss into NaN; libtorch's own is NaN there.
def test_masked_classes():
    x = torch.tensor([[1.0, -torch.inf, 2.0]], requires_grad=True)
    loss = binary_cross_entropy_with_logits(x, torch.tensor([2]))
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all() and x.grad[0, 1] == 0


@pytest.mark.parametrize("name", ["input", "target"])
def test_no_tensor_is_refused(name):
    arguments = {"input": torch.zeros(2, 3), "target": torch.zeros(2, 3), name: [[0.0] * 3] * 2}
    with pytest.raises(TypeError, match=f"{name} must be a torch.Tensor, got list"):
        binary_cross_entropy_with_logits(**arguments)


# Catches: a warning that points into this package and not to the caller.
def test_warning_points_to_the_caller():
    with pytest.warns(UserWarning, match="Negative label indices") as caught:
        binary_cross_entropy_with_logits(torch.zeros(2, 3), torch.tensor([0, -1]))
    assert caught[0].filename == __file__


# Catches: one-hot targets of 4 or 8 bytes each.
def test_indices_take_a_byte_for_each_logit():
    x, indices = torch.randn(100, 1000), torch.randint(1000, (100,))
    binary_cross_entropy_with_logits(x, indices)
    # Beside them, indices and a few numbers.
    assert x.numel() <= peak_memory(lambda: binary_cross_entropy_with_logits(x, indices)) < x.numel() + 10_000


def test_reduction_by_position_is_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="size_average must be a bool or None, got 'sum': write reduction='sum'"):
        binary_cross_entropy_with_logits(x, x, None, "sum")
