"""The private names of torch that this package uses, each looked up once. Imports torch.

Where a torch lacks one, values and gradients keep their bits, by a slower public way: see each name.
tests/torch/test_private.py takes them away one after the other.
"""

import functools
import operator
import types

import torch
from torch.autograd import forward_ad


def _find(name):
    """What torch has by this name, or None."""
    try:
        return operator.attrgetter(name)(torch)
    except AttributeError:
        return None


# Whether torch.func is at work in this thread. Absent: assume so, and call the operators.
_transforms_active = _find("_C._are_functorch_transforms_active")
KNOWS_TRANSFORMS = _transforms_active is not None
_transforms_active = _transforms_active or (lambda: True)

# How many modes want to see operators: fake tensors, tracers, counters. Absent: assume one, and call the operators.
_dispatch_modes = _find("_C._len_torch_dispatch_stack") or (lambda: 1)

# Its _current_level is that of torch.autograd.forward_ad.dual_level(), -1 outside. Absent: assume that we are inside, and call
# the operators.
_levels = forward_ad
if _find("autograd.forward_ad._current_level") is None:
    _levels = types.SimpleNamespace(_current_level=0)

_tracing = torch.jit.is_tracing


def constant_when_compiled(function):
    """What torch.compiler.assume_constant_result marks a function with. That imports the compiler, which takes a second, and
    which torch 2.7 cannot do under torch.device("meta"). Absent: the compiler traces the function, or leaves it to eager."""
    function._dynamo_marked_constant = True
    return function


def transforming():
    """Whether torch.func or forward-mode differentiation is at work."""
    return _transforms_active() or _levels._current_level >= 0


def intercepted():
    """Whether anybody wants to see operators: these, a mode, or torch.jit.trace."""
    return _transforms_active() or _levels._current_level >= 0 or _dispatch_modes() > 0 or _tracing()


# A Function that serves one level of torch.func at a time, as torch's own kernels do, and what calls it so. Absent, any of the
# three: the operators get the kernels of torch.library.register_autograd, which torch.func cannot go through, and under
# torch.func their Functions are applied instead; torch.compile, which cannot trace those, then breaks its graph unless it knows
# that there is no transform.
_SingleLevelFunction = _find("autograd.function._SingleLevelFunction")
allow_single_level = _find("_functorch.utils.enable_single_level_autograd_function")
below_autograd = _find("_C._AutoDispatchBelowAutograd")
SINGLE_LEVEL = None not in (_SingleLevelFunction, allow_single_level, below_autograd)

if SINGLE_LEVEL:

    class Function(_SingleLevelFunction):
        # What compiled autograd tells Functions apart by. Absent: it does not ask.
        _compiled_autograd_key = staticmethod(_find("autograd.Function._compiled_autograd_key"))

else:
    Function = torch.autograd.Function

# Torch runs a Function's jvp with forward-mode differentiation off; this context turns it on, for the levels of torch.func
# around it. Absent: forward mode is refused, since a derivative of a derivative would be 0.
_set_forward_mode = _find("autograd.forward_ad._set_fwd_grad_enabled")
forward_mode = _set_forward_mode and functools.partial(_set_forward_mode, True)

# How an operator is told to torch.onnx.export in operations that it knows. Absent: the export refuses the operator.
register_decomposition = _find("_decomp.register_decomposition") or (lambda operator: lambda function: function)
