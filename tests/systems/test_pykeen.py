"""bce_bridge.pykeen beside PyKEEN's own loss, in PyKEEN's own pipeline."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("PYSTOW_HOME", str(Path(__file__).resolve().parents[2] / "build/pykeen"))  # where PyKEEN writes

import pykeen.losses
import pytest
import torch
from processes import run_python
from pykeen.hpo import hpo_pipeline
from pykeen.pipeline import pipeline

from bce_bridge import pykeen as bridge
from bce_bridge.conformance import implementations
from bce_bridge.conformance.cases import load_cases
from bce_bridge.conformance.crosscheck import crosscheck

THEIRS = pykeen.losses.BCEWithLogitsLoss
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def registered():
    bridge.register()


def both(call, *scores, **options):
    """[(loss, gradients in the scores)] by ours and by PyKEEN's; call(loss, *scores) is the loss."""
    results = []
    for kind in (bridge.BCEWithLogitsLoss, THEIRS):
        leaves = [score.clone().requires_grad_() for score in scores]
        loss = call(kind(**options), *leaves)
        loss.backward()
        results.append((loss.detach(), torch.cat([leaf.grad.flatten() for leaf in leaves])))
    return results


def same(ours, theirs, n, largest):
    """Ours is rounded once; libtorch rounds some ten times in float32, for terms of magnitude largest at most."""
    scale = 16 * EPS * largest
    assert ours[0].dtype == theirs[0].dtype and ours[0].shape == theirs[0].shape
    assert (ours[0] - theirs[0]).abs() <= scale * max(1, theirs[0].abs())
    assert (ours[1] - theirs[1]).abs().max() <= scale * max(1, n * theirs[1].abs().max())


# Catches: a reduction, pos_weight, smoothing or sample weight that is lost, swapped or scaled otherwise than PyKEEN's.
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("pos_weight", [None, 3.0, 2])
@pytest.mark.parametrize("label_smoothing", [None, 0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_pykeen(reduction, pos_weight, label_smoothing, weighted):
    torch.manual_seed(0)
    scores, labels, weights = torch.randn(8, 50), torch.randint(0, 2, (8, 50)).float(), torch.rand(8, 50) if weighted else None
    options = {"reduction": reduction, "pos_weight": pos_weight}

    def lcwa(loss, scores):
        return loss.process_lcwa_scores(scores, labels, label_smoothing, num_entities=50, weights=weights)

    def slcwa(loss, positive, negative):
        parts = (None, None) if weights is None else (weights[:, 0].clone(), weights[:, 1:].flatten())
        return loss.process_slcwa_scores(
            positive, negative, label_smoothing, num_entities=50, pos_weights=parts[0], neg_weights=parts[1]
        )

    same(*both(lcwa, scores, **options), n=400, largest=12)
    same(*both(slcwa, scores[:, :1].contiguous(), scores[:, 1:].contiguous(), **options), n=400, largest=12)
    same(*both(lambda loss, x: loss(x, labels, weights), scores, **options), n=400, largest=12)


# Catches: negatives that were filtered before, which PyKEEN passes flat.
def test_filtered_negatives():
    torch.manual_seed(0)
    positive, negative, keep = torch.randn(8, 1), torch.randn(8, 5), torch.rand(8, 5) < 0.5
    filtered = negative[keep]

    def slcwa(loss, positive, filtered):
        return loss.process_slcwa_scores(positive, filtered, batch_filter=keep)

    same(*both(slcwa, positive, filtered), n=8 + len(filtered), largest=4)


# Catches: an error from PyKEEN's smoothing that no longer comes.
def test_smoothing_refuses_what_pykeen_refuses():
    x, y = torch.zeros(2, 3), torch.ones(2, 3)
    for kind in (bridge.BCEWithLogitsLoss, THEIRS):
        with pytest.raises(ValueError, match="must pass num_classes to perform label smoothing"):
            kind().process_lcwa_scores(x, y, label_smoothing=0.1)
        with pytest.raises(ValueError, match="epsilon must be positive, but is -0.1"):
            kind().process_lcwa_scores(x, y, label_smoothing=-0.1, num_entities=3)


def test_signature_and_kind():
    assert issubclass(bridge.BCEWithLogitsLoss, pykeen.losses.PointwiseLoss)
    for name in ("__init__", "forward", "process_lcwa_scores", "process_slcwa_scores"):
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (bridge.BCEWithLogitsLoss, THEIRS))
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


@pytest.mark.parametrize("reduction", ["none", "foo", None])
def test_unknown_reduction(reduction):
    for kind in (bridge.BCEWithLogitsLoss, THEIRS):
        with pytest.raises(KeyError, match=repr(reduction)):
            kind(reduction=reduction)


# Catches: a pos_weight that stays behind when the model is moved or saved, or a state that PyKEEN's loss could not load.
@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_pos_weight_is_the_same_buffer(pos_weight):
    ours, theirs = bridge.BCEWithLogitsLoss(pos_weight=pos_weight), THEIRS(pos_weight=pos_weight)
    assert ours.state_dict() == theirs.state_dict()
    theirs.load_state_dict(ours.state_dict())
    moved = ours.double().pos_weight
    assert moved is None if pos_weight is None else moved.dtype == torch.float64


def test_pos_weight_of_zero_is_zero():
    x, y = torch.randn(4), torch.ones(4)
    assert bridge.BCEWithLogitsLoss(pos_weight=0.0)(x, y) == 0
    assert THEIRS(pos_weight=0.0)(x, y) == THEIRS()(x, y) != 0


def test_other_shapes_are_refused():
    for kind in (bridge.BCEWithLogitsLoss, THEIRS):
        with pytest.raises(ValueError, match=r"Target size \(torch.Size\(\[3\]\)\) must be the same as input size"):
            kind()(torch.zeros(2, 3), torch.zeros(3))


# Catches: a name that leads to PyKEEN's class, in its resolver or in what a hyper-parameter search records.
def test_registered_beside_pykeens():
    resolver = pykeen.losses.loss_resolver
    for name in ("bce-bridge", "BCE_bridge", "BCEBridgeLoss", bridge.BCEWithLogitsLoss):
        assert resolver.lookup(name) is bridge.BCEWithLogitsLoss
    assert resolver.lookup(resolver.normalize_cls(bridge.BCEWithLogitsLoss)) is bridge.BCEWithLogitsLoss
    for name in ("BCEWithLogitsLoss", *THEIRS.synonyms):
        assert resolver.lookup(name) is THEIRS
    made = resolver.make("bce-bridge", {"reduction": "sum", "pos_weight": 2.0})
    assert (made.reduction, made.pos_weight) == ("sum", 2)


QUIET = {"num_epochs": 5, "use_tqdm": False, "batch_size": 256}
ignore_pykeens_warnings = pytest.mark.filterwarnings("ignore:Training instances are always", "ignore:'pin_memory' argument")


# Trained with the same seed, the two differ by roundings alone: by less than a hundredth of what another seed changes.
@ignore_pykeens_warnings
@pytest.mark.parametrize("training_loop, label_smoothing", [("lcwa", 0.1), ("slcwa", 0.0)])
def test_pipeline_on_nations(training_loop, label_smoothing):
    def train(loss, seed):
        result = pipeline(
            dataset="Nations",
            model="DistMult",
            model_kwargs={"embedding_dim": 16},
            loss=loss,
            loss_kwargs={"pos_weight": 2.0},
            training_loop=training_loop,
            training_kwargs={**QUIET, "label_smoothing": label_smoothing},
            evaluation_kwargs={"use_tqdm": False, "batch_size": 32},
            random_seed=seed,
            device="cpu",
        )
        assert type(result.model.loss) is (THEIRS if loss == "BCEWithLogitsLoss" else bridge.BCEWithLogitsLoss)
        metrics = [result.metric_results.get_metric(name) for name in ("mrr", "amr", "hits@1", "hits@10")]
        return torch.tensor([*result.losses, *metrics])

    ours, theirs, noise = train("bce-bridge", 0), train("BCEWithLogitsLoss", 0), train("BCEWithLogitsLoss", 1)
    # A hundredth of what another seed changes, or of a per mille where that changes nothing.
    assert ((ours - theirs).abs() <= 0.01 * (theirs - noise).abs().clamp(min=1e-3)).all(), (ours, theirs, noise)


# Catches: a hyper-parameter that the constructor does not take, a range that PyKEEN cannot search, a name that a later
# run of the best configuration would resolve to another loss.
@ignore_pykeens_warnings
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_hyper_parameter_search():
    assert set(bridge.BCEWithLogitsLoss.hpo_default) == set(inspect.signature(bridge.BCEWithLogitsLoss).parameters)
    result = hpo_pipeline(
        dataset="Nations",
        model="DistMult",
        model_kwargs={"embedding_dim": 8},
        loss="bce-bridge",
        training_loop="lcwa",
        training_kwargs={**QUIET, "num_epochs": 1},
        evaluation_kwargs={"use_tqdm": False, "batch_size": 32},
        n_trials=2,
        device="cpu",
    )
    for trial in result.study.trials:
        assert trial.params["loss.reduction"] in ("mean", "sum")
        assert 0.25 <= trial.params["loss.pos_weight"] <= 1024
    assert pykeen.losses.loss_resolver.lookup(result.study.user_attrs["loss"]) is bridge.BCEWithLogitsLoss


# Catches: a worked example of the recorded family, or any other case that this signature can express, computed otherwise.
def test_conforms_on_recorded_cases():
    ours, theirs = crosscheck(implementations=(implementations.PyKEENFrontEnd, implementations.PyKEEN))
    assert ours.verdict == "conforms" and not theirs.failures
    expressed = [case for case in load_cases() if implementations.PyKEENFrontEnd().can_answer(case)]
    assert ours.cases == len(expressed) and "worked" in {case.family for case in expressed}
    # PyKEEN's own takes a pos_weight of 0 for None.
    assert theirs.cases == ours.cases - sum(case.pos_weight is not None and not case.pos_weight.any() for case in expressed)


def test_without_pykeen_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['pykeen'] = None\n"
        "try:\n    import bce_bridge.pykeen\nexcept ImportError as error:\n    print(error)"
    )
    assert "pip install 'bce-bridge[pykeen]'" in run_python(code)


# Catches a command line that does not know the name.
def test_the_command_line_knows_the_loss(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "bce_bridge.pykeen", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "by bce_bridge" in run("ls", "losses")
    pipeline = {"dataset": "nations", "model": "distmult", "loss": "bce-bridge", "training_loop": "lcwa"}
    pipeline["training_kwargs"] = {"num_epochs": 1, "use_tqdm": False}
    configuration = tmp_path / "experiment.json"
    configuration.write_text(json.dumps({"metadata": {}, "pipeline": pipeline}))
    run("experiments", "run", "-d", str(tmp_path / "results"), str(configuration))
    assert list((tmp_path / "results").rglob("results.json"))
