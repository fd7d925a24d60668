"""What is measured: each setting's operands, and the contenders that compute the same thing from them.

A section of the results is an entry of SECTIONS: which settings it has, and which contenders compete in one. Another
section is one more entry.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

import bce_bridge
from bce_bridge import _abi, core
from bce_bridge.benchmark.results import GIVEN
from bce_bridge.torch import evaluate

LOSS, LOSS_AND_GRADIENT = QUANTITIES = ("loss", "loss + gradient")
TYPES = ("float32", "float32+pos_weight", "bfloat16", "float64")
SIZES = (1000, 1 << 14, 1 << 20, 1 << 24, 1 << 26)
LARGEST = 1 << 28  # bytes of an array, where the user asks for no size
NUMPY_LARGEST = 1 << 24  # elements: a call takes most of a second there, and seconds beyond
STEP_SIZES, STEP_TYPES = (1000, 1 << 20, 1 << 24), ("float32+pos_weight",)  # of training steps
POS_WEIGHT = 3.0

OURS = "bce_bridge"
EAGER = "torch eager"
COMPILE = "torch.compile"
NUMPY = "NumPy"
LIMIT = "memory limit"


class Setting(NamedTuple):
    """What all contenders of one comparison share."""

    section: str
    quantity: str  # one of QUANTITIES, reduction "mean"
    dtype: str
    given: str  # "pos_weight", a key of SITUATIONS, or "none"
    n: int  # elements
    threads: int


class Contender(NamedTuple):
    """call() computes the setting's quantity: the loss, or (loss, gradient), or for LIMIT anything; before() is not timed."""

    name: str
    way: str  # a name may compete in several ways; the fastest counts
    call: Callable
    before: Callable = lambda: None


class Operands(NamedTuple):
    x: torch.Tensor  # logits
    y: torch.Tensor  # targets, 0 or 1
    gradient: torch.Tensor  # for the contenders that take their results' memory


class Options(NamedTuple):
    """The user's choice of settings and contenders."""

    sizes: tuple = SIZES
    types: tuple = TYPES
    threads: tuple = (1,)
    compiler: bool = True  # whether torch.compile competes
    largest: int = LARGEST  # bytes: settings whose arrays are larger are left out
    device: str = "cpu"  # torch's name of the device that the operands are on


@functools.lru_cache(maxsize=1)
def operands(dtype, n, device="cpu"):
    """Normal logits of standard deviation 3 and random 0/1 targets, every page written once."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, generator=generator).mul_(3).to(getattr(torch, dtype))
    y = torch.randint(0, 2, (n,), generator=generator, dtype=torch.uint8).to(x.dtype)
    return Operands(x.to(device), y.to(device), torch.zeros_like(x, device=device))


def _backend(device):
    """On other devices than the CPU the kernel by its name: "auto" would measure libtorch where it is missing."""
    return "auto" if device.type == "cpu" else "triton"


def _ours(setting, x, y, pos_weight):
    """The public call, which allocates its results: core on NumPy arrays, or in torch for what NumPy has not."""
    if x.dtype == torch.bfloat16 or x.device.type != "cpu":
        function = functools.partial(bce_bridge.binary_cross_entropy_with_logits, backend=_backend(x.device))
        way = "torch function" if x.device.type == "cpu" else _backend(x.device)
        return Contender(OURS, way, _torch_call(setting, function, x, y, pos_weight))
    function = core.loss if setting.quantity == LOSS else core.loss_and_grad
    p = None if pos_weight is None else pos_weight.numpy()
    return Contender(OURS, f"core.{function.__name__}", functools.partial(function, x.numpy(), y.numpy(), pos_weight=p))


def _ours_given(setting, x, y, pos_weight, gradient):
    """bce_evaluate as a C program calls it, into memory that is there."""
    loss = torch.empty((), dtype=x.dtype)
    described = [*map(evaluate.describe, (x, y, None, pos_weight))]
    results = {"loss": evaluate.describe(loss)}
    if setting.quantity == LOSS_AND_GRADIENT:
        results["gradient"] = evaluate.describe(gradient)

    def call():
        _abi.evaluate(*described, 0.0, "mean", **results)
        return loss if setting.quantity == LOSS else (loss, gradient)

    return Contender(GIVEN, "bce_evaluate", call)


def _torch_call(setting, function, x, y, pos_weight):
    def loss():
        with torch.no_grad():
            return function(x, y, pos_weight=pos_weight)

    def loss_and_gradient():
        leaf = x.detach().requires_grad_()
        value = function(leaf, y, pos_weight=pos_weight)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    return loss if setting.quantity == LOSS else loss_and_gradient


def _compiled(setting, x, y, pos_weight):
    """Compiled for this very size (dynamic=False) and number of threads."""
    torch.compiler.reset()

    def function(x, y, pos_weight):
        return torch.nn.functional.binary_cross_entropy_with_logits(x, y, pos_weight=pos_weight)

    forward = torch.compile(function, dynamic=False)
    call = _torch_call(setting, forward, x, y, pos_weight)
    if setting.quantity == LOSS:
        yield Contender(COMPILE, "forward", call)
        return
    yield Contender(COMPILE, "forward + backward", call)
    both = torch.compile(torch.func.grad_and_value(function), dynamic=False)
    yield Contender(COMPILE, "grad_and_value", lambda: both(x, y, pos_weight)[::-1])


def compiler_problem(device="cpu"):
    """Why torch.compile does not work here (it wants a C++ compiler), or None."""
    try:
        torch.compile(torch.nn.functional.softplus, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # the compilers of torch raise what they like
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def _numpy(setting, x, y, pos_weight):
    """The same formula, as one writes it in NumPy."""
    x, y, p = x.numpy(), y.numpy(), x.numpy().dtype.type(1 if pos_weight is None else POS_WEIGHT)

    def call():
        t = np.exp(-np.abs(x))
        negative, positive = 1 - y, y if pos_weight is None else p * y
        log1p = np.log1p(t)
        loss = np.mean(negative * (np.maximum(x, 0) + log1p) + positive * (np.maximum(-x, 0) + log1p))
        if setting.quantity == LOSS:
            return loss
        small, large = t / (1 + t), 1 / (1 + t)
        up = x >= 0
        return loss, (negative * np.where(up, large, small) - positive * np.where(up, small, large)) / x.dtype.type(x.size)

    return Contender(NUMPY, "formula", call)


def _limit(setting, x, y, gradient):
    """The same bytes read, and written where there is a gradient, with next to no arithmetic: x + y into given memory, or
    x . y where nothing is written. A type of 2 bytes is taken as half as many float32, for its own sums convert."""
    if x.element_size() == 2:
        x, y, gradient = (torch.ones(x.numel() // 2, device=x.device) for _ in range(3))
    if setting.quantity == LOSS:
        yield Contender(LIMIT, "torch.dot", functools.partial(torch.dot, x, y))
        yield Contender(LIMIT, "torch.sum, twice", lambda: (torch.sum(x), torch.sum(y)))
    else:
        yield Contender(LIMIT, "torch.add", functools.partial(torch.add, x, y, out=gradient))
    if setting.threads == 1 and x.device.type == "cpu":
        function, out = (np.dot, {}) if setting.quantity == LOSS else (np.add, {"out": gradient.numpy()})
        yield Contender(LIMIT, f"numpy.{function.__name__}", functools.partial(function, x.numpy(), y.numpy(), **out))


def _split(name):
    """A name of TYPES as (dtype, what is given)."""
    dtype, plus, given = name.partition("+")
    if dtype not in ("float64", "float32", "float16", "bfloat16") or given != ("pos_weight" if plus else ""):
        raise ValueError(f"type must be a floating type, or one with +pos_weight, got {name!r}: take some of {','.join(TYPES)}")
    return dtype, given or "none"


def _pos_weight(setting, x):
    return torch.tensor(POS_WEIGHT, dtype=x.dtype, device=x.device) if setting.given == "pos_weight" else None


def kernel_settings(options):
    """Every size, type and number of threads, for the loss alone and with its gradient."""
    for n, name, quantity, threads in itertools.product(options.sizes, options.types, QUANTITIES, options.threads):
        setting = Setting("kernel", quantity, *_split(name), n, threads)
        if n * getattr(torch, setting.dtype).itemsize <= options.largest:
            yield setting


def kernel_contenders(setting, options):
    """bce_bridge's public call and the C call under it, torch, NumPy (which has one thread), and the memory limit; what runs
    on the CPU alone is left out on another device."""
    x, y, gradient = operands(setting.dtype, setting.n, options.device)
    p = _pos_weight(setting, x)
    on_cpu = x.device.type == "cpu"
    yield _ours(setting, x, y, p)
    if on_cpu:
        yield _ours_given(setting, x, y, p, gradient)
    eager = torch.nn.functional.binary_cross_entropy_with_logits
    way = "forward" if setting.quantity == LOSS else "forward + backward"
    yield Contender(EAGER, way, _torch_call(setting, eager, x, y, p))
    if options.compiler:
        yield from _compiled(setting, x, y, p)
    if on_cpu and setting.threads == 1 and setting.n <= NUMPY_LARGEST and x.dtype != torch.bfloat16:
        yield _numpy(setting, x, y, p)
    yield from _limit(setting, x, y, gradient)


def _among(chosen, usual):
    """What the user chose of the usual, or else all that the user chose."""
    return tuple(choice for choice in chosen if choice in usual) or chosen


def step_settings(options):
    """Sizes and types of training steps, every number of threads."""
    sizes, types = _among(options.sizes, STEP_SIZES), _among(options.types, STEP_TYPES)
    for n, name, threads in itertools.product(sizes, types, options.threads):
        yield Setting("training step", LOSS_AND_GRADIENT, *_split(name), n, threads)


def step_contenders(setting, options):
    """Forward and backward through the module, as a training loop calls it: ours and torch's."""
    x, y, _ = operands(setting.dtype, setting.n, options.device)
    p = _pos_weight(setting, x)
    ours = bce_bridge.BCEWithLogitsLoss(pos_weight=p, backend=_backend(x.device))
    yield _step(OURS, "module" if x.device.type == "cpu" else ours.backend, ours, x, y)
    yield _step(EAGER, "module", torch.nn.BCEWithLogitsLoss(pos_weight=p), x, y)


def _step(name, way, module, x, y):
    logits = x.detach().requires_grad_()

    def zero_grad():
        logits.grad = None

    def call():
        zero_grad()
        loss = module(logits, y)
        loss.backward()
        return loss.detach(), logits.grad

    return Contender(name, way, call, zero_grad)


# The arguments, beside the logits, of what users do: by names of binary_cross_entropy_with_logits.
SITUATIONS = {
    "hard labels": lambda x, y, random: {"target": y},
    "boolean labels": lambda x, y, random: {"target": y.bool()},
    "soft targets": lambda x, y, random: {"target": random},
    "label smoothing": lambda x, y, random: {"target": y, "label_smoothing": 0.1},
    "mask": lambda x, y, random: {"target": y, "weight": (random < 0.8).to(x.dtype)},
    "weight": lambda x, y, random: {"target": y, "weight": random},
    "pos_weight of each class": lambda x, y, random: {"target": y, "pos_weight": 1 + random[0]},
}


def torchs_loss(input, target, label_smoothing=0.0, **weights):
    """torch's loss of what it does not take itself: boolean labels and label smoothing."""
    target = target.to(input.dtype)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return torch.nn.functional.binary_cross_entropy_with_logits(input, target, **weights)


def situation_settings(options):
    """One thread, 16 Ki and 1 Mi elements, float32 and bfloat16; of the CPU alone."""
    if options.device != "cpu":
        return
    dtypes = [name for name in ("float32", "bfloat16") if name in options.types]
    for n, dtype, given in itertools.product(_among(options.sizes, (1 << 14, 1 << 20)), dtypes, SITUATIONS):
        yield Setting("situation", LOSS_AND_GRADIENT, dtype, given, n, 1)


def situation_contenders(setting, options):
    """Forward and backward through the functions, ours and torch's, on logits of 256 classes where that divides n."""
    x, y, _ = operands(setting.dtype, setting.n, options.device)
    random = torch.rand(setting.n, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    x, y, random = (tensor.view(-1, math.gcd(256, setting.n)) for tensor in (x, y, random))
    arguments = SITUATIONS[setting.given](x, y, random)

    def step(function):
        def call():
            leaf = x.detach().requires_grad_()
            value = function(leaf, **arguments)
            return value.detach(), torch.autograd.grad(value, leaf)[0]

        return call

    yield Contender(OURS, "torch function", step(bce_bridge.binary_cross_entropy_with_logits))
    yield Contender(EAGER, "forward + backward", step(torchs_loss))
    if options.compiler:
        torch.compiler.reset()
        yield Contender(COMPILE, "forward + backward", step(torch.compile(torchs_loss, dynamic=False)))
        both = torch.compile(torch.func.grad_and_value(torchs_loss), dynamic=False)
        yield Contender(COMPILE, "grad_and_value", lambda: both(x, **arguments)[::-1])


def set_instruction_set(name):
    """Use the instruction set of this name from now on. Raises RuntimeError if this machine has it not."""
    _abi.call(_abi.lib.bce_set_isa, name.encode())


def isa_settings(options):
    """One thread, at 1 Mi elements or, without that, at the largest size; of the CPU alone."""
    if options.device != "cpu":
        return
    n = 1 << 20 if 1 << 20 in options.sizes else max(options.sizes)
    for name, quantity in itertools.product(options.types, QUANTITIES):
        yield Setting("instruction set", quantity, *_split(name), n, 1)


def isa_contenders(setting, options):
    """The C call under each instruction set, by its name."""
    x, y, gradient = operands(setting.dtype, setting.n, options.device)
    for name in (name for name, supported in _abi.isas().items() if supported):
        ours = _ours_given(setting, x, y, _pos_weight(setting, x), gradient)
        yield ours._replace(name=name, before=functools.partial(set_instruction_set, name))


class Section(NamedTuple):
    settings: Callable
    contenders: Callable
    memory: bool = False  # whether the peak memory of a call is measured too


SECTIONS = {
    "kernel": Section(kernel_settings, kernel_contenders),
    "training step": Section(step_settings, step_contenders, memory=True),
    "situation": Section(situation_settings, situation_contenders),
    "instruction set": Section(isa_settings, isa_contenders),
}
