"""The loss over real processes: five ranks of gloo on this machine, their subgroups, DistributedDataParallel and DTensor.

The ranks are started once. A test sends all of them a function of this module, in which they compare what they got with what
one process computes of the whole, and fails with the first rank that raises.
"""

import multiprocessing
import traceback
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import bce_bridge
from bce_bridge.torch.distributed import global_loss

RANKS = 5
SIZES = (1, 2, 3, 5)  # of the groups, each of the first so many ranks
GROUPS = {}


def serve(rank, path, connection):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    timeout = timedelta(seconds=30)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=RANKS, timeout=timeout)
    GROUPS.update((size, dist.new_group(range(size))) for size in SIZES)
    while job := connection.recv():
        function, arguments = job
        try:
            function(*arguments)
            connection.send(None)
        except BaseException:
            connection.send(traceback.format_exc())
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory):
    """A function that calls a function on all ranks at once."""
    path = tmp_path_factory.mktemp("ranks") / "rendezvous"
    context = multiprocessing.get_context("spawn")
    connections, processes = [], []
    for rank in range(RANKS):
        connection, other = context.Pipe()
        process = context.Process(target=serve, args=(rank, path, other), daemon=True)
        process.start()
        other.close()  # so that recv() fails when the process has ended
        connections.append(connection)
        processes.append(process)

    def call(function, *arguments):
        for connection in connections:
            connection.send((function, arguments))
        errors = []
        for rank, connection in enumerate(connections):
            assert connection.poll(60), f"rank {rank} does not answer"
            errors.append(connection.recv())
        for rank, error in enumerate(errors):
            assert error is None, f"rank {rank}: {error}"

    yield call
    for connection in connections:
        connection.send(None)
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


def raises(error, function, *arguments, **options):
    """The text of the error that the function raises."""
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    return str(caught.value)


def members(size):
    """The group of this size; the rank in it, or None for those that are not."""
    rank = dist.get_rank()
    return GROUPS[size], rank if rank < size else None


def whole(shape=(40, 3), dtype=torch.float64):
    """Logits and targets that every rank draws alike."""
    generator = torch.Generator().manual_seed(0)
    x = 6 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)


def single(x, y, scale=1.0, **options):
    """(loss, gradient times scale) of one process."""
    leaf = x.detach().clone().requires_grad_()
    loss = bce_bridge.binary_cross_entropy_with_logits(leaf, y, **options)
    (gradient,) = torch.autograd.grad(loss, leaf, torch.full_like(loss, scale))
    return loss.detach(), gradient


def shard(rank, size):
    """Of 40 rows: very uneven, and the third of three or more has none."""
    cuts = {1: (0, 40), 2: (0, 3, 40), 3: (0, 3, 40, 40), 5: (0, 1, 13, 13, 31, 40)}[size]
    return slice(cuts[rank], cuts[rank + 1])


def same_bits(size, dtype):
    group, rank = members(size)
    if rank is None:
        return
    rows = shard(rank, size)
    x, y = whole(dtype=dtype)
    w, p = torch.linspace(0.1, 3, 40, dtype=torch.float64)[:, None], torch.tensor([0.5, 1.0, 7.0])
    for options, own in (({}, {}), ({"weight": w, "pos_weight": p, "label_smoothing": 0.1}, {"weight": w[rows]})):
        for reduction in ("mean", "sum"):
            expected, expected_gradient = single(x, y, 1024.0, reduction=reduction, **options)
            # A shard that lies across its memory, as a slice of columns would.
            leaf = x.T[:, rows].contiguous().T.requires_grad_()
            loss = global_loss(leaf, y[rows], reduction=reduction, group=group, **{**options, **own})
            loss.backward(torch.full_like(loss, 1024.0))
            assert loss.dtype == dtype and loss.shape == () and torch.equal(loss.detach(), expected)
            assert leaf.grad.dtype == dtype and torch.equal(leaf.grad, expected_gradient[rows])


# Catches: a mean of the ranks' means, a gradient divided by the local count, sums whose bits depend on the division among
# ranks, a group taken for the default one, a scaled float16 gradient that underflows before it is scaled. One process's sum is
# exact (test_core).
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
def test_same_bits_as_one_process(everywhere, size, dtype):
    everywhere(same_bits, size, dtype)


def unlike_types():
    rank = dist.get_rank()
    x, y = whole((40, 3))
    x, y, rows = x.bfloat16(), y.float(), shard(rank, RANKS)
    expected, expected_gradient = single(x, y, 3.0)
    leaf = x[rows].clone().requires_grad_()
    with torch.device("meta"):  # where tensors are made is not for the exchange to follow
        loss = global_loss(leaf, y[rows])
    loss.backward(torch.full_like(loss, 3.0))
    assert torch.equal(loss.detach(), expected) and torch.equal(leaf.grad, expected_gradient[rows])


# Catches: a gradient rounded to bfloat16 before the factor of a float32 loss, tensors made on torch's default device.
def test_unlike_types_and_a_default_device(everywhere):
    everywhere(unlike_types)


def edges(size):
    group, rank = members(size)
    if rank is None:
        return
    last = rank == size - 1
    for targets in (torch.zeros, torch.ones):
        empty = torch.zeros(0, 3, requires_grad=True)
        mean, total = (global_loss(empty, targets(0, 3), reduction=r, group=group) for r in ("mean", "sum"))
        mean.backward()
        assert mean.isnan() and total == 0 and empty.grad.shape == (0, 3)
    for bad, expected in ((float("nan"), float("nan")), (float("inf"), float("inf")), (float("-inf"), 0.0)):
        # Only the last rank has elements; those before it must learn of its NaN or infinity.
        x = torch.full((int(last),), bad, requires_grad=True)
        loss = global_loss(x, torch.zeros_like(x), group=group)
        torch.testing.assert_close(loss.detach(), torch.tensor(expected), equal_nan=True)
        loss.backward()
        assert torch.equal(x.grad.isnan(), x.isnan())
    scalar = global_loss(torch.tensor(1.0), torch.tensor(True), group=group, reduction="sum")
    torch.testing.assert_close(scalar, size * F.softplus(torch.tensor(-1.0)))
    x = torch.tensor([0.5, -1.0]).bfloat16()
    assert global_loss(x, torch.tensor([True, False]), group=group).dtype == torch.bfloat16
    assert not global_loss(x, x, group=group).requires_grad


# Catches: 0 / 0 of an empty shard spread to the others, an empty whole that is not NaN, a NaN that stays on its rank.
@pytest.mark.parametrize("size", [1, 3])
def test_empty_shards_and_what_is_not_finite(everywhere, size):
    everywhere(edges, size)


def refusals():
    rank = dist.get_rank()
    x, y = whole()
    leaf = x.clone().requires_grad_()
    culprit = rank == 3
    for arguments, options, error, text in (
        ((x, y[:1]), {}, ValueError, "Target size (torch.Size([1, 3])) must be the same as input size (torch.Size([40, 3]))"),
        ((x, y, torch.ones(4)), {}, RuntimeError, "weight must broadcast to the input's shape (40, 3), got shape (4,)"),
        ((x.numpy(), y), {}, TypeError, "must be a torch.Tensor, got ndarray"),
        ((x, y), {"reduction": "none"}, ValueError, "reduction must be 'mean' or 'sum', got 'none'"),
        ((x, y), {"label_smoothing": 2.0}, ValueError, "label_smoothing must be a number in [0, 1], got 2.0"),
        ((x, leaf), {}, RuntimeError, "targets and weights must not require grad"),
    ):
        if culprit:
            assert text in raises(error, global_loss, *arguments, **options)
        else:
            assert "1 of 5 ranks raised an error of their own" in raises(RuntimeError, global_loss, x, y)
    asked = "2 for the mean in torch.float64, 3 for the mean in torch.float32"
    assert asked in raises(ValueError, global_loss, x, y if rank < 2 else y.float())
    asked = "4 for the mean in torch.float64, 1 for the sum in torch.float64"
    assert asked in raises(ValueError, global_loss, x, y, reduction="sum" if culprit else "mean")
    if rank >= 2:
        assert "group must have this process as a member" in raises(RuntimeError, global_loss, x, y, group=GROUPS[2])
    with torch.no_grad():
        assert global_loss(x, leaf.abs()).isfinite()
    loss = global_loss(leaf, y)
    assert "create_graph must be False" in raises(RuntimeError, torch.autograd.grad, loss, leaf, create_graph=True)
    # After all that the ranks are still in step.
    assert torch.equal(global_loss(x, y), single(x, y)[0])


# Catches: ranks that wait for one that has raised, or that go on with a sum which lacks its share.
def test_an_error_on_one_rank_is_one_on_all(everywhere):
    everywhere(refusals)


def test_wants_a_process_group():
    assert "init_process_group first" in raises(RuntimeError, global_loss, torch.zeros(2), torch.zeros(2))


def add(group, bucket):
    """The hook in global_loss's docstring."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def train(model, x, y, loss):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()


def data_parallel():
    x, y = whole()
    rows = shard(dist.get_rank(), RANKS)
    expected = train(network(), x, y, F.binary_cross_entropy_with_logits)
    scaled = train(DistributedDataParallel(network()), x[rows], y[rows], lambda x, y: global_loss(x, y) * RANKS)
    summing = DistributedDataParallel(network())
    summing.register_comm_hook(None, add)
    hooked = train(summing, x[rows], y[rows], global_loss)
    for a, b, c in zip(expected, scaled, hooked):
        torch.testing.assert_close(b, a, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(c, a, rtol=1e-11, atol=1e-13)


# Catches: a gradient that is off by the number of ranks, or weighted by the shard it comes from: five steps of gradient
# descent must end where one process on the whole batch does, though a rank has nothing.
def test_trains_as_one_process_under_ddp(everywhere):
    everywhere(data_parallel)


PLACEMENTS = [
    (Shard(0), Shard(1)),
    (Shard(0), Shard(0)),
    (Replicate(), Shard(1)),
    (Replicate(), Replicate()),
    (Partial(), Shard(0)),
]


def dtensors():
    line, square = DeviceMesh("cpu", list(range(RANKS))), DeviceMesh("cpu", [[0, 1], [2, 3]])
    for mesh, several in ((line, [(Shard(0),), (Shard(1),)]), (square, PLACEMENTS)):
        if mesh.get_coordinate() is None:
            continue
        for shape in ((7, 5), (3, 1), (0, 4)):
            x, y = whole(shape)
            for placements in several:
                leaf = distribute_tensor(x, mesh, [p if isinstance(p, Shard) else Replicate() for p in placements])
                if Partial() in placements:
                    share = leaf.to_local() * (mesh.get_coordinate()[0] == 0)
                    leaf = DTensor.from_local(share, mesh, placements, shape=x.shape, stride=x.stride())
                targets = distribute_tensor(y, mesh, [Shard(1), Replicate()][: mesh.ndim])
                for weight_shape in (None, (1,), shape[1:], (shape[0], 1), shape):
                    for reduction in ("mean", "sum", "none"):
                        compare(leaf, targets, weight_shape, reduction, single_of=(x, y))


def compare(logits, targets, weight_shape, reduction, single_of):
    weights, mesh = {}, logits.device_mesh
    if weight_shape is not None:
        weight = 0.5 + torch.arange(torch.Size(weight_shape).numel(), dtype=torch.float64).reshape(weight_shape)
        weights = {"weight": weight, "pos_weight": 1 / weight}
    expected, expected_gradient = single(*single_of, reduction=reduction, **weights)
    if weights:  # one in shards, the other plain
        weights["weight"] = distribute_tensor(weight, mesh, [Replicate(), Shard(0)][: mesh.ndim])
    leaf = logits.detach().requires_grad_()
    loss = bce_bridge.binary_cross_entropy_with_logits(leaf, targets, reduction=reduction, **weights)
    assert isinstance(loss, DTensor) and loss.shape == expected.shape
    torch.testing.assert_close(loss.full_tensor(), expected, rtol=0, atol=0, equal_nan=True)
    loss.sum().backward()
    # What is to be a sum of the ranks' shares has one gradient for all of them, as everywhere in DTensor.
    assert leaf.grad.placements == tuple(Replicate() if p.is_partial() else p for p in leaf.placements)
    assert torch.equal(leaf.grad.full_tensor(), expected_gradient)
    if reduction == "none":
        assert loss.placements == leaf.grad.placements
    plain = bce_bridge.binary_cross_entropy_with_logits(logits, single_of[1], reduction=reduction, **weights)
    torch.testing.assert_close(plain.full_tensor(), expected, rtol=0, atol=0, equal_nan=True)


# Catches: torch's own rule, by which the mean of uneven shards is the mean of their means; weights that meet the wrong shard;
# gradients that come back gathered, or summed over replicas.
def test_dtensors_have_the_bits_of_one_process(everywhere):
    everywhere(dtensors)


def dtensor_shares():
    mesh = DeviceMesh("cpu", [0, 1])
    if mesh.get_coordinate() is None:
        return
    x, y = whole((7, 5))
    operands = [x, y, torch.linspace(0.1, 2, 7, dtype=x.dtype)[:, None], torch.linspace(0.5, 3, 5, dtype=x.dtype)]
    placements = [[Shard(0)], [Shard(0)], [Shard(0)], [Replicate()]]

    def mean(x, y, w, p):
        return bce_bridge.binary_cross_entropy_with_logits(x, y, w, pos_weight=p)

    leaves = [operand.clone().requires_grad_() for operand in operands]
    expected = mean(*leaves)
    expected_gradients = torch.autograd.grad(expected, leaves)
    leaves = [distribute_tensor(operand, mesh, p).requires_grad_() for operand, p in zip(operands, placements)]
    loss = mean(*leaves)
    gradients = torch.autograd.grad(loss, leaves)
    torch.testing.assert_close(loss.full_tensor(), expected)
    for gradient, wanted in zip(gradients, expected_gradients):
        torch.testing.assert_close(gradient.full_tensor(), wanted)

    # 65,536 losses of 5 do not fit into float16, but their mean does.
    half = distribute_tensor(torch.full((2**16,), 5.0, dtype=torch.float16), mesh, [Shard(0)]).requires_grad_()
    p = torch.ones((), dtype=torch.float16, requires_grad=True)
    loss = bce_bridge.binary_cross_entropy_with_logits(half, torch.zeros_like(half), pos_weight=p)
    torch.testing.assert_close(loss.full_tensor(), F.softplus(torch.tensor(5.0)).half(), rtol=2**-10, atol=0)

    leaves = [leaves[0], *(leaf.detach() for leaf in leaves[1:])]
    compiled = torch.compile(bce_bridge.binary_cross_entropy_with_logits, backend="aot_eager", fullgraph=True)
    loss = compiled(*leaves[:3], pos_weight=leaves[3])
    torch.testing.assert_close(loss.full_tensor(), expected)
    (gradient,) = torch.autograd.grad(loss, leaves[0])
    torch.testing.assert_close(gradient.full_tensor(), expected_gradients[0])


# Catches: a gradient of a common weight that lacks the other ranks' part, or has it twice, and shares of the mean that are
# divided by their own counts, with gradients in all operands and in a graph of torch.compile; a float16 sum that overflows.
def test_dtensors_with_gradients_in_all_operands_and_compiled(everywhere):
    everywhere(dtensor_shares)


def dtensor_refusals():
    mesh = DeviceMesh("cpu", list(range(RANKS)))
    x, y = whole((10, 2))
    logits, targets = (distribute_tensor(t, mesh, [Shard(0)]) for t in (x, y))
    loss = bce_bridge.binary_cross_entropy_with_logits
    assert "operands must be this rank's shards, got a DTensor" in raises(TypeError, global_loss, logits, targets)
    assert "input must be a DTensor" in raises(TypeError, loss, x, targets)
    assert "Target size" in raises(ValueError, loss, logits, targets.to_local())
    # Two weights for ten rows: each rank's two rows would take them.
    refused = raises(RuntimeError, loss, logits, targets, torch.ones(2, 1))
    assert "weight must broadcast to the input's shape (10, 2), got shape (2, 1)" in refused


# Catches: shapes judged by the shards alone, shards taken for wholes.
def test_dtensor_refusals(everywhere):
    everywhere(dtensor_refusals)
