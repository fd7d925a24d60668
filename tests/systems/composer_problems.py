"""Problems for Composer's function and ours: every kind of argument that it tells apart. Imports torch alone."""

import itertools
import warnings

import torch

SHAPES = ((4, 3), (2, 3, 2, 4), (2, 3, 1, 2, 2))
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

# Where ours answers and Composer raises: it scatters indices of other types than int64 only if one is negative, and takes the
# largest of no indices.
ANSWERED_BY_OURS = {f"indices {dtype}" for dtype in INTEGERS[:-1]} | {"no indices"}


def problems(seed):
    """(id, arguments) for each; the id says what is special about it."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator) * 3

    def uniform(*shape):
        return torch.rand(shape, generator=generator)

    def indices(shape):
        return torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)

    def negative(shape):
        some = indices(shape)
        some[0] = torch.randint(-5, 0, some[0].shape, generator=generator)
        return some

    for shape, reduction, scale in itertools.product(SHAPES, ("none", "mean", "sum"), (True, False)):
        options = {"reduction": reduction, "scale_by_batch_size": scale}
        yield f"indices {shape} {reduction} {scale}", {"input": normal(*shape), "target": indices(shape), **options}
        yield f"negative indices {shape} {reduction} {scale}", {"input": normal(*shape), "target": negative(shape), **options}
        yield f"probabilities {shape} {reduction} {scale}", {"input": normal(*shape), "target": uniform(*shape), **options}
    for shape in SHAPES:
        classes = (shape[1],) + (1,) * (len(shape) - 2)
        yield f"defaults {shape}", {"input": normal(*shape), "target": indices(shape)}
        for name, of in itertools.product(("weight", "pos_weight"), (classes, shape, ())):
            yield f"{name} {of} for {shape}", {"input": normal(*shape), "target": indices(shape), name: uniform(*of) * 4}
        both = {"weight": uniform(*classes), "pos_weight": uniform(*classes) * 4}
        yield f"both weights {shape}", {"input": normal(*shape), "target": uniform(*shape), **both}
    for average, reduce in itertools.product((None, False, True), repeat=2):
        options = {"size_average": average, "reduce": reduce, "reduction": "sum"}
        yield f"legacy {average} {reduce}", {"input": normal(4, 3), "target": indices((4, 3)), **options}
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        yield f"input {dtype}", {"input": normal(4, 3).to(dtype), "target": indices((4, 3))}
        yield f"both {dtype}", {"input": normal(4, 3).to(dtype), "target": uniform(4, 3).to(dtype), "reduction": "none"}
    yield "target torch.float64", {"input": normal(4, 3), "target": uniform(4, 3).double()}
    for dtype in (*INTEGERS, torch.bool):
        yield f"dense {dtype}", {"input": normal(4, 3), "target": (uniform(4, 3) < 0.5).to(dtype)}
    for dtype in INTEGERS:
        yield f"indices {dtype}", {"input": normal(4, 3), "target": indices((4, 3)).to(dtype)}
        if dtype != torch.uint8:
            yield f"negative indices {dtype}", {"input": normal(4, 3), "target": negative((4, 3)).to(dtype)}
    yield "empty", {"input": normal(0, 3), "target": uniform(0, 3)}
    yield "empty, mean", {"input": normal(0, 3), "target": uniform(0, 3), "reduction": "mean"}
    yield "empty, none", {"input": normal(0, 3), "target": uniform(0, 3), "reduction": "none"}
    yield "no indices", {"input": normal(0, 3), "target": indices((0, 3))}
    yield "large index", {"input": normal(4, 3), "target": torch.tensor([0, 1, 3, 2])}
    yield "large and negative index", {"input": normal(4, 3), "target": torch.tensor([0, -1, 3, 2])}
    yield "floating indices", {"input": normal(4, 3), "target": torch.zeros(4)}
    yield "boolean indices", {"input": normal(4, 3), "target": torch.zeros(4, dtype=torch.bool)}
    yield "more dimensions", {"input": normal(4, 3), "target": uniform(4, 3, 1)}
    yield "fewer dimensions", {"input": normal(4, 3, 2), "target": torch.zeros(4, dtype=torch.int64)}
    yield "other batch", {"input": normal(4, 3), "target": torch.zeros(5, dtype=torch.int64)}
    yield "other positions", {"input": normal(4, 3, 2, 2), "target": torch.zeros(4, 3, 3, dtype=torch.int64)}
    yield "other classes", {"input": normal(4, 3), "target": uniform(4, 2)}
    yield "no classes", {"input": normal(4), "target": torch.tensor(1)}
    yield "no dimensions", {"input": normal(), "target": uniform()}
    yield "unknown reduction", {"input": normal(4, 3), "target": uniform(4, 3), "reduction": "foo"}
    yield "old reduction", {"input": normal(4, 3), "target": uniform(4, 3), "reduction": "elementwise_mean"}
    yield "weight that does not fit", {"input": normal(4, 3), "target": uniform(4, 3), "weight": uniform(4)}
    shape = (2, 3, 2, 4)
    yield "weight of classes with positions", {"input": normal(*shape), "target": indices(shape), "weight": uniform(3)}


def answer(function, arguments):
    """The loss and its gradient, or the error, and the warnings."""
    input = arguments["input"].clone().requires_grad_()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loss = function(**{**arguments, "input": input})
            loss.sum().backward()
            found = {"loss": loss.detach(), "gradient": input.grad}
        except Exception as error:
            found = {"error": [type(error).__name__, str(error)]}
    return {**found, "warnings": [[warning.category.__name__, str(warning.message)] for warning in caught]}


def check(id, arguments, ours, theirs):
    """Assert that ours is theirs, within libtorch's some ten roundings in the coarser of the input's type and float32."""
    if id in ANSWERED_BY_OURS:
        assert "error" in theirs and "error" not in ours, id
        return
    if "error" in theirs:
        assert ours["error"][0] == theirs["error"][0], (id, ours, theirs)
        # Ours name the argument, where libtorch fails to broadcast and Composer to index a tuple.
        assert ours["error"][1] == theirs["error"][1] or id.startswith("weight ") or id == "no classes", (id, ours, theirs)
        return
    assert "error" not in ours, (id, ours)
    assert ours["warnings"] == theirs["warnings"], id
    eps = max(torch.finfo(dtype).eps for dtype in (arguments["input"].dtype, torch.float32))
    for quantity in ("loss", "gradient"):
        a, b = ours[quantity], theirs[quantity]
        assert a.dtype == b.dtype and a.shape == b.shape, (id, quantity)
        largest = b.abs().max().item() if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=32 * eps, atol=32 * eps * largest if largest == largest else 0, equal_nan=True)
