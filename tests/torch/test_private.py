"""The private names of torch: all in one file, and each may be gone from a later torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import bce_bridge

PACKAGE = Path(bce_bridge.__file__).parent
SOURCE = (PACKAGE / "torch/_private.py").read_text(encoding="utf-8")
NAMES = re.findall(r'_find\("(.+?)"\)', SOURCE)

# {absent} are the names to hide from torch/_private.py.
PROGRAM = """
import sys, types
from pathlib import Path

import numpy as np
import torch

import bce_bridge

source = Path(bce_bridge.__file__).with_name("torch").joinpath("_private.py").read_text(encoding="utf-8")
for name in {absent!r}:
    assert f'"{{name}}"' in source
    source = source.replace(f'"{{name}}"', f'"{{name}}_of_no_torch"')
module = types.ModuleType("bce_bridge.torch._private")
exec(source, vars(module))
sys.modules["bce_bridge.torch._private"] = module

from bce_bridge import binary_cross_entropy_with_logits as bce, core
from torch.nn import functional as F

torch.manual_seed(0)
x, y, w, p = 9 * torch.randn(40, 3), torch.rand(40, 3), torch.rand(40, 1), torch.rand(3)
loss, gradient = map(torch.from_numpy, map(np.asarray, core.loss_and_grad(*(t.numpy() for t in (x, y, w, p)))))
for function in (bce, torch.compile(bce, fullgraph={fullgraph}, backend="aot_eager")):
    assert torch.equal(function(x, y, w, pos_weight=p), loss)
    leaf = x.clone().requires_grad_()
    function(leaf, y, w, pos_weight=p).backward()
    assert torch.equal(leaf.grad, gradient)

def ours(x, y=y, function=bce):
    return function(x, y, w[0], pos_weight=p)

def theirs(x, y=y):
    return ours(x, y, F.binary_cross_entropy_with_logits)

grad, hessian, vmap = torch.func.grad, torch.func.hessian, torch.func.vmap
second = lambda f: torch.func.jacrev(torch.func.jacrev(f))
for transform in (grad, vmap, lambda f: vmap(grad(f)), second, lambda f: vmap(second(f))):
    operands = (x[0], y[0]) if transform is second else (x, y)
    torch.testing.assert_close(transform(ours)(*operands), transform(theirs)(*operands))
z = x[0].double()
f = lambda x: ours(x, y[0].double())
for forward in (hessian, lambda f: torch.func.jacfwd(torch.func.jacfwd(f)), lambda f: lambda x: torch.func.jvp(f, (x,), (x,))):
    try:
        got = forward(f)(z)
    except NotImplementedError:  # which is no wrong number
        assert "autograd.forward_ad._set_fwd_grad_enabled" in {absent!r}
    else:
        torch.testing.assert_close(got, forward(lambda x: theirs(x, y[0].double()))(z))
"""


def test_stand_in_one_file():
    assert len(NAMES) == SOURCE.count("_find(") - 1
    pattern = re.compile(r"(?<!bce_bridge\.)\btorch(\.\w+)*\._[a-z]|from torch[.\w]* import .*\b_[a-z]|from torch(\.\w+)*\._")
    for path in PACKAGE.rglob("*.py"):
        if path != PACKAGE / "torch/_private.py":
            assert not (found := pattern.search(path.read_text(encoding="utf-8"))), (path, found[0])


# Catches: a torch without the name that breaks the import, gives other bits, or zeros for a derivative.
@pytest.mark.parametrize("absent", [[], *([name] for name in NAMES), NAMES], ids=lambda absent: ",".join(absent[:2]) or "none")
def test_each_may_be_absent(absent):
    program = PROGRAM.format(absent=absent, fullgraph=absent != NAMES)
    subprocess.run([sys.executable, "-c", program], check=True)
