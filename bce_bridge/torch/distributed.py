"""The loss over the shards of many processes, on torch.distributed. Imports torch, the functional layer and the core."""

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from bce_bridge import _abi, _errors
from bce_bridge.torch import checks, evaluate, functional
from bce_bridge.torch.derivatives import scaled_first

# What a rank may ask for. All ranks must ask for the same.
_CHOICES = [
    (dtype, reduction)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    for reduction in ("mean", "sum")
]


def global_loss(logits, targets, weight=None, pos_weight=None, reduction="mean", group=None, *, label_smoothing=0.0):
    """Compute the loss over the elements of all ranks: their exact mean or sum, rounded once.

    The mean of the ranks' means is wrong if ranks hold different numbers of elements. Here the ranks add their exact partial
    sums in one all-reduce of 81 integers. Every rank gets the bits that `binary_cross_entropy_with_logits` gives for the
    concatenation of the shards, however the elements are divided among ranks.

    This is a collective call: every rank of the group must make it, even without elements.

    Parameters
    ----------
    logits, targets, weight, pos_weight : Tensor
        This rank's shard, as for `binary_cross_entropy_with_logits`. The number of elements may differ and may be 0.
    reduction : {"mean", "sum"}, default "mean"
        "mean" divides by the number of elements of all ranks; without any it is NaN.
    group : ProcessGroup, optional
        The process group, of which this rank must be a member. Without it, the default group.
    label_smoothing : float, default 0.0
        As for `binary_cross_entropy_with_logits`.

    Returns
    -------
    Tensor
        0-d, the same on all ranks, on the logits' device. The dtype is the targets', or the logits' if the targets are integer
        or boolean.

    Raises
    ------
    RuntimeError
        If there is no process group or this rank is not in it; if targets or weights require grad; in a backward with
        create_graph, since there are first derivatives only; and if another rank raised an error of its own.
    ValueError
        On all ranks, if they differ in reduction or in the result's dtype.

    Notes
    -----
    What `binary_cross_entropy_with_logits` refuses on one rank is raised there, and RuntimeError on the others, which do not
    hang. A rank that does not call at all is waited for until the group's timeout, as in any collective call.

    Each rank's gradient is that of the global loss with respect to its own logits: its slice of what one process would compute.
    Under "mean" it is divided by the number of elements of all ranks. Backward communicates nothing. The parameters of a
    replicated model therefore need the *sum* of their gradients over the ranks, but DistributedDataParallel takes the mean.
    Either multiply the loss by the number of ranks::

        loss = global_loss(ddp_model(x), y)
        (loss * torch.distributed.get_world_size()).backward()

    or leave the loss as it is and give the model a hook that sums::

        def add(group, bucket):
            return torch.distributed.all_reduce(bucket.buffer(), group=group, async_op=True).get_future().then(
                lambda future: future.value()[0])
        ddp_model.register_comm_hook(None, add)
    """
    if not dist.is_initialized():
        raise RuntimeError("torch.distributed must be initialized: call torch.distributed.init_process_group first")
    if dist.get_rank(group) < 0:
        raise RuntimeError("group must have this process as a member")
    return _GlobalLoss.apply(logits, targets, weight, pos_weight, reduction, label_smoothing, [group])


class _GlobalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, weight, pos_weight, reduction, label_smoothing, groups):
        partial = _abi.partial_from()
        try:
            if reduction not in ("mean", "sum"):
                raise _errors.choice("reduction", ("mean", "sum"), reduction)
            if any(ctx.needs_input_grad[1:]):
                raise RuntimeError("targets and weights must not require grad, which have no global derivative: detach them")
            dtype = _add(partial, logits, targets, weight, pos_weight, label_smoothing)
        except Exception:
            _exchange(groups, partial, None)
            raise
        total = _exchange(groups, partial, (dtype, reduction))
        ctx.save_for_backward(logits, targets, weight, pos_weight)
        ctx.options = reduction, label_smoothing, total.count
        loss = torch.empty((), dtype=dtype, device="cpu")  # whatever torch.set_default_device says
        _abi.round_partial(total, reduction, evaluate.DTYPES[dtype], loss.data_ptr())
        return loss.to(logits.device)

    @staticmethod
    def backward(ctx, grad_output):
        if torch.is_grad_enabled():
            raise RuntimeError("create_graph must be False, global_loss has first derivatives only: call backward without it")
        logits, targets, weight, pos_weight = ctx.saved_tensors
        if not scaled_first(logits.dtype, grad_output.dtype):
            gradient = _gradient(logits, targets, weight, pos_weight, *ctx.options).mul_(grad_output)
        else:
            # Scale before rounding, as in operators.gradients.
            weight = grad_output.double() if weight is None else weight.double() * grad_output.double()
            gradient = _gradient(logits, targets, weight, pos_weight, *ctx.options)
        return gradient, None, None, None, None, None, None


def _exchange(groups, partial, choice):
    """Add up the partial sums over the ranks of all groups, one group after the other.

    Raises an error unless all ranks came with the same choice. A choice of None says that this rank failed.
    """
    places = [None, *_CHOICES]
    message = torch.tensor(_abi.partial_fields(partial) + [int(choice == place) for place in places], device="cpu")
    for group in groups:
        on_cpu = "cpu:" in dist.get_backend_config(group)
        message = message.to("cpu" if on_cpu else torch.accelerator.current_accelerator())
        dist.all_reduce(message, group=group)
    fields = message.tolist()
    ranks = {place: n for place, n in zip(places, fields[_abi.PARTIAL_SIZE :]) if n}
    if choice is not None and None in ranks:
        raise RuntimeError(f"{ranks[None]} of {sum(ranks.values())} ranks raised an error of their own: see there")
    if choice is not None and len(ranks) > 1:
        asked = ", ".join(f"{n} for the {reduction} in {dtype}" for (dtype, reduction), n in ranks.items())
        raise ValueError(f"ranks must ask for the same loss, got {asked}")
    return _abi.partial_from(fields[: _abi.PARTIAL_SIZE])


def _add(partial, logits, targets, weight, pos_weight, label_smoothing):
    """Add the element losses to the partial sum. Returns the dtype of the loss."""
    operands = [logits, targets, weight, pos_weight]
    if any(isinstance(operand, DTensor) for operand in operands):
        raise TypeError("operands must be this rank's shards, got a DTensor: binary_cross_entropy_with_logits takes DTensors")
    # On the meta device this only checks.
    empty = [torch.empty_like(operand, device="meta") if isinstance(operand, torch.Tensor) else operand for operand in operands]
    _loss(*empty, "sum", label_smoothing)
    if _by_triton(operands):
        for fields in evaluate.triton_partial_sums(*operands, label_smoothing):
            _abi.lib.bce_partial_merge(partial, _abi.partial_from(fields))
    else:
        _evaluate(operands, "sum", label_smoothing, partial=partial)
    return functional.loss_dtype(logits, targets, logits.device.type)


def _by_triton(operands):
    return operands[0].is_cuda and functional.kernel_for("auto", *operands) == "triton"


def _evaluate(operands, reduction, label_smoothing, **results):
    """Have the core compute the results of operands on any device."""
    operands = [None if operand is None else operand.cpu().resolve_neg() for operand in operands]
    _abi.evaluate(*map(evaluate.describe, operands), label_smoothing, reduction, **results)


def _loss(logits, targets, weight, pos_weight, reduction, label_smoothing):
    return functional.binary_cross_entropy_with_logits(
        logits, targets, weight, reduction=reduction, pos_weight=pos_weight, label_smoothing=label_smoothing
    )


def _gradient(logits, targets, weight, pos_weight, reduction, label_smoothing, count):
    """Gradient of the global loss over count elements, with respect to these logits."""
    operands = logits, targets, weight, pos_weight
    if _by_triton(operands):
        return evaluate.triton_gradient(*operands, reduction, label_smoothing, count)
    gradient = torch.empty_like(logits, device="cpu")
    _evaluate(operands, reduction, label_smoothing, count=count, gradient=evaluate.describe(gradient))
    return gradient.to(logits.device)


def dtensor_loss(logits, targets, weight, pos_weight, reduction, label_smoothing):
    """binary_cross_entropy_with_logits of DTensors. No rank sees more than its own shard of the logits.

    Parameters
    ----------
    logits : DTensor
        Sharded over any of its dimensions, also unevenly.
    targets, weight, pos_weight : DTensor or Tensor
        Placed in any way on the same mesh: they are redistributed to the logits' shards. A plain tensor counts as replicated.
    reduction, label_smoothing
        As in `binary_cross_entropy_with_logits`.

    Returns
    -------
    DTensor
        Under "none" it has the placements of the logits. Else it is replicated and has the bits of one process. If targets or
        weights require grad, and under torch.compile, it is instead the sum (Partial) of the ranks' rounded shares.

    Raises
    ------
    TypeError
        If the logits are not a DTensor.

    Notes
    -----
    Gradients have the placements of the logits. The gradient of a weight that several shards share is also a sum.

    This is not a sharding rule of the operators, for two reasons. Under such a rule the ranks know neither the number of all
    elements nor the exact sums. And torch keeps the first rule that it finds for given shapes, whatever the reduction.
    """
    if not isinstance(logits, DTensor):
        raise TypeError(f"input must be a DTensor where another argument is one, got {type(logits).__name__}")
    mesh = logits.device_mesh
    placements = [p if isinstance(p, Shard) else Replicate() for p in logits.placements]
    operands = {"logits": logits, "targets": targets, "weight": weight, "pos_weight": pos_weight}

    def shard(name, tensor):
        if tensor is None:
            return None
        if not isinstance(tensor, DTensor):
            tensor = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
        checks.check_weights(logits, **{name: tensor})
        own, of_gradient = zip(*(_align(placement, tensor.shape, logits.shape) for placement in placements))
        if torch.compiler.is_compiling():  # cannot trace _Local
            return tensor.redistribute(mesh, own).to_local(grad_placements=of_gradient)
        return _Local.apply(tensor, own, of_gradient)

    local = [shard(*operand) for operand in operands.items()]
    if reduction == "none":
        loss = _loss(*local, reduction, label_smoothing)
        return DTensor.from_local(loss, mesh, placements, run_check=False, shape=targets.shape, stride=targets.stride())
    others_differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in local[1:])
    if torch.compiler.is_compiling() or others_differentiable:
        # _GlobalLoss can do neither: each rank rounds its own share, and DTensor adds the shares when needed.
        dtype = targets.dtype if targets.is_floating_point() else logits.dtype
        share = _loss(local[0], local[1].double(), *local[2:], "sum", label_smoothing)
        share = (share / (logits.numel() if reduction == "mean" else 1)).to(dtype)
        shares = [Partial() if isinstance(placement, Shard) else placement for placement in placements]
        return DTensor.from_local(share, mesh, shares, run_check=False)
    groups = [mesh.get_group(i) for i, placement in enumerate(placements) if isinstance(placement, Shard)]
    loss = _GlobalLoss.apply(*local, reduction, label_smoothing, groups)
    return DTensor.from_local(loss, mesh, [Replicate()] * mesh.ndim, run_check=False)


class _Local(torch.autograd.Function):
    """tensor.redistribute(placements=own).to_local(grad_placements=of_gradient), with two faults of torch's backward repaired.

    Up to 2.11 torch derives the gradient's strides from the shard's, wrongly for uneven shards. It then gathers the gradient,
    and hangs if only some ranks do so. Torch 2.7 cannot redistribute a sharded gradient to logits that are partial sums.
    """

    @staticmethod
    def forward(ctx, tensor, own, of_gradient):
        # As everywhere in DTensor, the gradient of partial sums is replicated.
        back = [Replicate() if placement.is_partial() else placement for placement in tensor.placements]
        ctx.options = tensor.device_mesh, of_gradient, tensor.shape, tensor.stride(), back
        local = tensor.redistribute(placements=own).to_local()
        return local.view_as(local)  # not the DTensor's own object

    @staticmethod
    def backward(ctx, gradient):
        mesh, placements, shape, stride, back = ctx.options
        gradient = DTensor.from_local(gradient, mesh, placements, run_check=False, shape=shape, stride=stride)
        return gradient.redistribute(placements=back), None, None


def _align(placement, shape, logits_shape):
    """Placements, on one mesh dimension, of a tensor that broadcasts to logits of this placement, and of its gradient."""
    if not isinstance(placement, Shard):
        return Replicate(), Replicate()
    dim = placement.dim - len(logits_shape) + len(shape)
    if dim >= 0 and shape[dim] == logits_shape[placement.dim]:
        return Shard(dim), Shard(dim)
    return Replicate(), Partial()
