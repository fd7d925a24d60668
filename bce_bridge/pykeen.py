"""PyKEEN's binary cross entropy with logits, computed by bce_bridge. Imports PyKEEN and the functional layer.

PyKEEN finds the loss by its name once it is registered:

    from bce_bridge.pykeen import register
    register()
    pykeen.pipeline.pipeline(dataset="Nations", model="DistMult", training_loop="lcwa", loss="bce-bridge")

PyKEEN's command line, with the loss registered, is python -m bce_bridge.pykeen in place of python -m pykeen.
"""

import torch

from bce_bridge.torch.functional import binary_cross_entropy_with_logits

try:
    import pykeen.losses as losses
except ImportError as error:
    raise ImportError("bce_bridge.pykeen requires PyKEEN: pip install 'bce-bridge[pykeen]'") from error

__all__ = ["BCEBridgeLoss", "BCEWithLogitsLoss", "register"]


class BCEBridgeLoss(losses.PointwiseLoss):
    """pykeen.losses.BCEWithLogitsLoss, computed by bce_bridge.binary_cross_entropy_with_logits.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        "mean" divides by the number of elements, also with sample weights.
    pos_weight : float, optional
        Weight of the positive class, at least 0; 1 if not given. Kept as a 0-d buffer, which is saved and moved with the model.
        PyKEEN takes 0 for None; here it is 0.

    Raises
    ------
    KeyError
        If reduction is any other, as in PyKEEN.

    Notes
    -----
    Label smoothing e is PyKEEN's, from process_lcwa_scores and process_slcwa_scores with num_entities n: labels 1 become 1 - e,
    labels 0 become e / (n - 1).

    PyKEEN knows a loss by the name of its class, so this one has a name of its own. In this module BCEWithLogitsLoss is the
    same class.
    """

    synonyms = {"bce-bridge"}
    __docdata__ = {"name": "Binary cross entropy (with logits), by bce_bridge"}  # what PyKEEN's "ls losses" shows
    hpo_default = losses.BCEWithLogitsLoss.hpo_default

    def __init__(self, reduction="mean", pos_weight=None):
        super().__init__(reduction=reduction)
        self.register_buffer("pos_weight", None if pos_weight is None else torch.as_tensor(pos_weight))

    def forward(self, x, target, weight=None):
        """Compute the 0-d loss.

        Parameters
        ----------
        x, target : Tensor
            Scores and targets of one shape.
        weight : Tensor, optional
            Sample weights, which broadcast to that shape.
        """
        return binary_cross_entropy_with_logits(x, target, weight, reduction=self.reduction, pos_weight=self.pos_weight)


BCEWithLogitsLoss = BCEBridgeLoss


def register():
    """Let PyKEEN find the loss as "bce-bridge" in this process, in pipelines and hyper-parameter searches. May be repeated."""
    losses.loss_resolver.register(BCEBridgeLoss, synonyms=BCEBridgeLoss.synonyms, raise_on_conflict=False)


if __name__ == "__main__":
    from pykeen.cli import main

    import bce_bridge.pykeen  # the module itself: this is a copy, named __main__

    bce_bridge.pykeen.register()
    main(prog_name="python -m bce_bridge.pykeen")
