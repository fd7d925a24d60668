"""The implementations that the cross-check compares, each behind one function.

To add one: a subclass of Implementation here, and its name in IMPLEMENTATIONS.
"""

from abc import ABC, abstractmethod
from importlib.metadata import version

import numpy as np

from bce_bridge import core
from bce_bridge.conformance.cases import DTYPES, load_recorded
from bce_bridge.conformance.compare import KNOWN_DEVIATIONS, Bound

# The contract: one rounding for the narrower types, 4 ULP for float64, and 4 float64 roundings of terms that cancel.
CONTRACT = Bound({"float16": 0.5001, "bfloat16": 0.5001, "float32": 0.5001, "float64": 4}, 4, "float64")
# Formulae that add the same terms with an error of some ULP in each.
CAREFUL = Bound({"float64": 8}, 8, "float64")
LIBTORCH = Bound(dict.fromkeys(DTYPES, 4), 8, None, KNOWN_DEVIATIONS)


class NotInstalled(Exception):
    """The implementation cannot run here; the text says how to get it, or why it never can."""


class Implementation(ABC):
    """name: as the table shows it. bound: what it may be off by. dtypes: those of the cases that it answers. float64_only:
    answers them all in float64. device: where its torch tensors are put, if it has such. reductions: which its signature has.
    cpu_capability, once it is open: the code path that libtorch takes on this CPU, where it is libtorch's loss; each path
    rounds in its own way.

    open() prepares it and returns its version, or raises NotInstalled. expresses(operands of a case) says whether its
    signature can take them. loss_and_grad(operands of a case, reduction) returns both as arrays; can_answer(case)
    and answer(case) are what the cross-check calls.
    """

    name: str
    bound = CONTRACT
    dtypes = DTYPES
    float64_only = False
    reductions = ("none", "mean", "sum")
    cpu_capability = None

    def __init__(self, device="cpu"):
        self.device = device

    @abstractmethod
    def open(self): ...

    def expresses(self, logits, targets, weight, pos_weight):
        return True

    @abstractmethod
    def loss_and_grad(self, logits, targets, weight, pos_weight, reduction): ...

    def can_answer(self, case):
        """Whether a case is of its dtypes, and its signature expresses it."""
        return case.dtype in self.dtypes and self.expresses(*case.operands)

    def answer(self, case):
        """The quantities of a case that its reductions have, each a flat float64 array."""
        answers = {}
        for reduction in self.reductions:
            loss, gradient = self.loss_and_grad(*self.operands(case), reduction)
            answers[reduction] = loss
            if reduction != "none":
                answers[f"grad_{reduction}"] = gradient
        return {quantity: np.asarray(value, np.float64).ravel() for quantity, value in answers.items()}

    def operands(self, case):
        return case.operands

    def result_dtype(self, case):
        return "float64" if self.float64_only else case.dtype


class Core(Implementation):
    name = "C core (NumPy)"
    dtypes = ("float16", "float32", "float64")  # NumPy's own

    def open(self):
        from bce_bridge import __version__

        return __version__

    def loss_and_grad(self, logits, targets, weight, pos_weight, reduction):
        return core.loss_and_grad(logits, targets, weight, pos_weight, reduction)


class Torch(Implementation):
    """This package's function on torch tensors, with the gradient by autograd: by the C core, or by Triton on a device."""

    name = "torch front end"

    @property
    def backend(self):
        return "core" if self.device == "cpu" else "triton"

    def open(self):
        try:
            import torch
        except ImportError:
            raise NotInstalled("pip install 'bce-bridge[torch]'") from None
        device = "" if self.device == "cpu" else f", {torch.cuda.get_device_name(self.device)}"
        return f"torch {torch.__version__}{device}"

    def loss(self, x, y, w, p, reduction):
        from bce_bridge import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(x, y, w, reduction=reduction, pos_weight=p, backend=self.backend)

    def operands(self, case):
        """Tensors: NumPy has no bfloat16."""
        import torch

        return [None if a is None else torch.tensor(a, dtype=getattr(torch, case.dtype)) for a in case.operands]

    def loss_and_grad(self, logits, targets, weight, pos_weight, reduction):
        import torch

        operands = (logits, targets, weight, pos_weight)
        x, y, w, p = (None if a is None else torch.asarray(a, device=self.device, copy=True) for a in operands)
        x.requires_grad_()
        loss = self.loss(x, y, w, p, reduction)
        loss.backward(torch.ones_like(loss))
        return loss.detach().cpu().double().numpy(), x.grad.cpu().double().numpy()


class Libtorch(Torch):
    """What has libtorch's own loss."""

    bound = LIBTORCH

    @property
    def cpu_capability(self):
        import torch

        if self.device != "cpu":
            return None
        capability = torch.backends.cpu.get_cpu_capability()
        return "DEFAULT" if capability == "NO AVX" else capability  # its name in torch 2.7


class Aten(Libtorch):
    name = "libtorch (aten)"
    backend = "aten"


class PyKEENFrontEnd(Torch):
    """This package's class for PyKEEN, whose pos_weight is one number that float32 holds."""

    name = "PyKEEN front end"
    reductions = ("mean", "sum")

    def open(self):
        try:
            from bce_bridge import pykeen
        except ImportError:
            raise NotInstalled("pip install 'bce-bridge[pykeen]'") from None
        self.kind = pykeen.BCEWithLogitsLoss
        return f"pykeen {version('pykeen')}"

    def expresses(self, logits, targets, weight, pos_weight):
        return pos_weight is None or (pos_weight.size == 1 and np.all(np.float32(pos_weight) == pos_weight))

    def loss(self, x, y, w, p, reduction):
        return self.kind(reduction, None if p is None else p.item()).to(self.device)(x, y, w)


class PyKEEN(PyKEENFrontEnd, Libtorch):
    """PyKEEN's own class, which takes a pos_weight of 0 for None."""

    name = "PyKEEN"

    def open(self):
        found = super().open()
        from pykeen.losses import BCEWithLogitsLoss

        self.kind = BCEWithLogitsLoss
        return found

    def expresses(self, logits, targets, weight, pos_weight):
        return super().expresses(logits, targets, weight, pos_weight) and (pos_weight is None or np.all(pos_weight != 0))


class ComposerFrontEnd(Torch):
    """This package's function for Composer, whose loss is float32, without its division by the batch size."""

    name = "Composer front end"
    dtypes = ("float32",)

    def open(self):
        found = super().open()
        from bce_bridge.composer import binary_cross_entropy_with_logits

        self.function = binary_cross_entropy_with_logits
        return found

    def expresses(self, logits, targets, weight, pos_weight):
        return logits.dtype == np.float32

    def loss(self, x, y, w, p, reduction):
        return self.function(x, y, weight=w, reduction=reduction, pos_weight=p, scale_by_batch_size=False)


class Composer(ComposerFrontEnd, Libtorch):
    """Composer's own function."""

    name = "Composer"

    def open(self):
        try:
            from composer.loss import binary_cross_entropy_with_logits
        except ImportError:
            raise NotInstalled("it wants an older torch, in an environment of its own: make test-composer") from None
        self.function = binary_cross_entropy_with_logits
        return f"mosaicml {version('mosaicml')}"


class EmbeddedR(Implementation):
    """An implementation that runs in R, through rpy2."""

    implementation: str

    def open(self):
        try:
            from bce_bridge import r
        except ImportError:
            raise NotInstalled("pip install 'bce-bridge[r]', and R from the system's package manager") from None
        try:
            return r.version(self.implementation)
        except r.NotAvailable as error:
            raise NotInstalled(str(error)) from None

    def loss_and_grad(self, logits, targets, weight, pos_weight, reduction):
        from bce_bridge import r

        return r.evaluate(self.implementation, logits, targets, weight, pos_weight, reduction)


class RPackage(EmbeddedR):
    name = "R package bcebridge"
    implementation = "r-package"
    float64_only = True


class RNmath(EmbeddedR):
    name = "R nmath (plogis)"
    implementation = "r-nmath"
    bound = CAREFUL
    float64_only = True


class RTorch(EmbeddedR):
    name = "R torch (live)"
    implementation = "r-torch"
    bound = LIBTORCH
    dtypes = ("float32", "float64")


class RecordedRTorch(Implementation):
    name = "R torch (recorded)"
    bound = LIBTORCH

    def open(self):
        self.description, self.recorded = load_recorded()
        self.cpu_capability = self.description["cpu_capability"]
        return f"torch {self.description['torch']}, libtorch {self.description['libtorch']}"

    def answer(self, case):
        return self.recorded[case.id]

    def loss_and_grad(self, logits, targets, weight, pos_weight, reduction):
        raise NotInstalled("a recording answers its own cases only")


IMPLEMENTATIONS = (
    Core,
    Torch,
    Aten,
    PyKEENFrontEnd,
    PyKEEN,
    ComposerFrontEnd,
    Composer,
    RPackage,
    RNmath,
    RTorch,
    RecordedRTorch,
)
