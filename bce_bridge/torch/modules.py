"""torch.nn.BCEWithLogitsLoss on the C core. Imports torch and the functional layer."""

import torch
from torch.nn import functional as F

from bce_bridge.torch.checks import check_tensor
from bce_bridge.torch.functional import binary_cross_entropy_with_logits


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """torch.nn.BCEWithLogitsLoss, computed by bce_bridge.binary_cross_entropy_with_logits.

    The buffers, state_dict and repr are torch's. label_smoothing and backend are attributes.

    Parameters
    ----------
    weight, size_average, reduce, reduction, pos_weight
        As in torch.nn.BCEWithLogitsLoss.
    label_smoothing, backend
        As in `bce_bridge.binary_cross_entropy_with_logits`.

    Raises
    ------
    TypeError
        If weight or pos_weight is not a tensor.

    Examples
    --------
    >>> import torch
    >>> from bce_bridge import BCEWithLogitsLoss
    >>> BCEWithLogitsLoss()(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
    tensor(0.2201)
    """

    # Class attributes, for modules made from torch's own state without __init__.
    label_smoothing = 0.0
    backend = "auto"

    def __init__(
        self,
        weight=None,
        size_average=None,
        reduce=None,
        reduction="mean",
        pos_weight=None,
        *,
        label_smoothing=0.0,
        backend="auto",
    ):
        for name, tensor in (("weight", weight), ("pos_weight", pos_weight)):
            if tensor is not None:
                check_tensor(name, tensor)
        super().__init__(weight, size_average, reduce, reduction, pos_weight)
        self.label_smoothing = label_smoothing
        self.backend = backend

    def forward(self, input, target):
        """Return the loss of logits and targets of one shape."""
        if torch.jit.is_scripting():  # can compile only libtorch's own operator
            target = target * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
            return F.binary_cross_entropy_with_logits(
                input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
            )
        # Attribute access to a buffer takes half a microsecond. It is needed only if the buffer has become a parameter.
        buffers = self._buffers
        return binary_cross_entropy_with_logits(
            input,
            target,
            buffers["weight"] if "weight" in buffers else self.weight,
            None,
            None,
            self.reduction,
            buffers["pos_weight"] if "pos_weight" in buffers else self.pos_weight,
            label_smoothing=self.label_smoothing,
            backend=self.backend,
        )
