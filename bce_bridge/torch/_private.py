"""The private names of torch that this package uses, each looked up once. Imports torch.

If a torch lacks one, values and gradients keep their bits, by a slower public way: see each name.
tests/torch/test_private.py removes them one after the other.
"""

import functools
import operator
import types

import torch
from torch.autograd import forward_ad


def _find(name):
    """torch's attribute of this name, or None."""
    try:
        return operator.attrgetter(name)(torch)
    except AttributeError:
        return None


# Whether torch.func is active in this thread. Absent: assume so, and call the operators.
_transforms_active = _find("_C._are_functorch_transforms_active")
KNOWS_TRANSFORMS = _transforms_active is not None
_transforms_active = _transforms_active or (lambda: True)

# Number of active dispatch modes: fake tensors, tracers, counters. Absent: assume one, and call the operators.
_dispatch_modes = _find("_C._len_torch_dispatch_stack") or (lambda: 1)

# _current_level is the level of torch.autograd.forward_ad.dual_level(), -1 outside. Absent: assume 0, inside.
_levels = forward_ad
if _find("autograd.forward_ad._current_level") is None:
    _levels = types.SimpleNamespace(_current_level=0)

_tracing = torch.jit.is_tracing


def constant_when_compiled(function):
    """Mark a function as torch.compiler.assume_constant_result does.

    torch's decorator imports the compiler. That takes a second, and torch 2.7 cannot do it under torch.device("meta"). Absent:
    the compiler traces the function or leaves it to eager mode.
    """
    function._dynamo_marked_constant = True
    return function


def transforming():
    """Whether torch.func or forward-mode differentiation is active."""
    return _transforms_active() or _levels._current_level >= 0


def intercepted():
    """Whether operators must be visible: to torch.func, forward mode, a dispatch mode or torch.jit.trace."""
    return _transforms_active() or _levels._current_level >= 0 or _dispatch_modes() > 0 or _tracing()


# A Function that handles one level of torch.func at a time, as torch's own kernels do, and what calls it that way. If one of
# the three is absent, the operators get the kernels of torch.library.register_autograd. torch.func cannot go through those, so
# under it the Functions are applied directly. torch.compile cannot trace these Functions: it breaks its graph unless it knows
# that no transform is active.
_SingleLevelFunction = _find("autograd.function._SingleLevelFunction")
allow_single_level = _find("_functorch.utils.enable_single_level_autograd_function")
below_autograd = _find("_C._AutoDispatchBelowAutograd")
SINGLE_LEVEL = None not in (_SingleLevelFunction, allow_single_level, below_autograd)

if SINGLE_LEVEL:

    class Function(_SingleLevelFunction):
        # The key by which compiled autograd tells Functions apart. Absent: it does not ask.
        _compiled_autograd_key = staticmethod(_find("autograd.Function._compiled_autograd_key"))

else:
    Function = torch.autograd.Function

# Torch runs a Function's jvp with forward mode off. This context turns it on for the outer levels of torch.func. Absent:
# forward mode is refused, since a derivative of a derivative would be 0.
_set_forward_mode = _find("autograd.forward_ad._set_fwd_grad_enabled")
forward_mode = _set_forward_mode and functools.partial(_set_forward_mode, True)

# Gives torch.onnx.export an operator's decomposition into operations that it knows. Absent: the export refuses the operator.
register_decomposition = _find("_decomp.register_decomposition") or (lambda operator: lambda function: function)
