"""Few-shot evaluation: accuracies recomputed with numpy, autograd and scikit-learn on the same episodes; what is drawn, shown, said and refused."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from metaflowkit.composition.flow import Flow, build
from metaflowkit.composition.learner import build_learner
from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.episodes import evaluate
from metaflowkit.evaluation.measurement import protocol
from metaflowkit.evaluation.scores import ACCURACY, FewShot, Score
from metaflowkit.tasks.labelled import LabelledTasks
from tests.small import SMALL

PIPELINE = f"device: cpu\n{SMALL}"
COUNT = 23  # a batch of 20 and three more
SIZES = {"way": 3, "shot": 2, "query": 3, "episodes": COUNT}
READOUTS = ("prototype", "adapted", "logistic")


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Build the small pipeline with overrides."""
    path = tmp_path_factory.mktemp("evaluation") / "small.yaml"
    path.write_text(PIPELINE)

    def build_flow(*overrides: str) -> Flow:
        with pytest.MonkeyPatch.context() as patch:  # the cache of conftest, which a fixture of the module comes before
            patch.setenv("METAFLOWKIT_CACHE", str(tmp_path_factory.getbasetemp().parent / "metaflowkit-cache"))
            return build(read(path, overrides), train=False)

    return build_flow


@pytest.fixture(scope="module")
def flow(make) -> Flow:
    return make()


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The batches of episodes that evaluations draw, in their order."""
    batches: list = []
    of_rows = LabelledTasks.of_rows

    def recorded(self, *rows):
        batches.append(of_rows(self, *rows))
        return batches[-1]

    monkeypatch.setattr(LabelledTasks, "of_rows", recorded)
    return batches


def tasks_of(batches, count: int = COUNT) -> list:
    """(support images, support labels, query images, query labels) of the first episodes that were drawn; images as floats in 0..1."""
    tasks = [(s.x[t] / 255, s.y[t], q.x[t] / 255, q.y[t]) for s, q, *_ in batches for t in range(len(s.x))]
    return tasks[:count]


@torch.no_grad()
def embedded(flow: Flow, batches, count: int = COUNT) -> list:
    """The same in numpy and double precision, with features in place of images, each set through the backbone by itself."""
    net = flow.learner.model.backbone
    return [(net(s).double().numpy(), y.numpy(), net(q).double().numpy(), labels.numpy()) for s, y, q, labels in tasks_of(batches, count)]


def nearest_mean(task, metric: str) -> float:
    support, y, query, labels = task
    means = np.stack([support[y == k].mean(0) for k in range(y.max() + 1)])
    if metric == "euclidean":
        scores = -np.linalg.norm(query[:, None] - means[None], axis=-1)
    else:
        scores = (query @ means.T) / (np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(means, axis=1)[None])
    return float(np.mean(scores.argmax(1) == labels))


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "semi_normalised"])
def test_prototype_accuracy_and_interval_are_those_of_numpy(make, drawn, metric) -> None:
    flow = make(f"model.head={{name: prototype, metric: {metric}}}")
    (score,) = evaluate(flow, "test", **SIZES, readouts=["prototype"])
    each = [nearest_mean(task, metric) for task in embedded(flow, drawn)]
    mean = sum(each) / COUNT
    deviation = math.sqrt(sum((value - mean) ** 2 for value in each) / (COUNT - 1))
    assert score.value == pytest.approx(mean, abs=1e-9)
    assert score.ci95 == pytest.approx(1.96 * deviation / math.sqrt(COUNT), abs=1e-9)
    assert 1 / 3 < score.value < 1
    assert score == Score("test", FewShot(3, 2, 3, "prototype"), ACCURACY, COUNT, score.value, score.ci95)


def test_logistic_accuracy_is_that_of_scikit_learn(flow, drawn) -> None:
    (score,) = evaluate(flow, "test", **SIZES, readouts=["logistic"])
    each = []
    for support, y, query, labels in embedded(flow, drawn):
        support, query = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (support, query))
        each.append(LogisticRegression(C=10.0, max_iter=1000).fit(support, y).score(query, labels))
    assert score.value == pytest.approx(np.mean(each), abs=1e-9)
    assert score.ci95 == pytest.approx(1.96 * np.std(each, ddof=1) / math.sqrt(COUNT), abs=1e-9)
    assert 1 / 3 < score.value < 1


ADAPTED = ["model.head=linear", "inner.loss=cross_entropy", "inner.rule={name: sgd, lr: 0.5}"]


def descended(flow: Flow, task, steps: int) -> float:
    """Accuracy after plain gradient descent on the cross-entropy of the support set."""
    support, y, query, labels = task
    model = copy.deepcopy(flow.learner.model)
    parameters = list(model.parameters())
    for _ in range(steps):
        gradients = torch.autograd.grad(F.cross_entropy(F.linear(model.backbone(support), model.head.weight, model.head.bias), y), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.data -= 0.5 * gradient
    with torch.no_grad():
        return (F.linear(model.backbone(query), model.head.weight, model.head.bias).argmax(1) == labels).double().mean().item()


def test_adapted_accuracy_is_that_of_plain_descent_and_not_that_of_the_initialisation(make, drawn) -> None:
    flow = make(*ADAPTED, "inner.steps=3", "evaluate.views=0")
    (score,) = evaluate(flow, "test", **SIZES, readouts=["adapted"])
    each = [descended(flow, task, 3) for task in tasks_of(drawn)]
    assert score.value == pytest.approx(np.mean(each), abs=1e-9)
    assert score.ci95 == pytest.approx(1.96 * np.std(each, ddof=1) / math.sqrt(COUNT), abs=1e-9)
    assert score.value != pytest.approx(np.mean([descended(flow, task, 0) for task in tasks_of(drawn)]), abs=0.05)


def test_no_inner_steps_leave_the_linear_head_as_it_is(make, drawn) -> None:
    flow = make(*ADAPTED, "inner.steps=0")
    (score,) = evaluate(flow, "test", **SIZES, readouts=["adapted"])
    weight, bias = (p.detach().double().numpy() for p in (flow.learner.model.head.weight, flow.learner.model.head.bias))
    each = [np.mean((query @ weight.T + bias).argmax(1) == labels) for _, _, query, labels in embedded(flow, drawn)]
    assert score.value == pytest.approx(np.mean(each), abs=1e-9)


@pytest.mark.parametrize("views", [0, 2])
def test_no_inner_steps_leave_the_prototypes_of_the_clean_support_images(make, views) -> None:
    flow = make("inner.steps=0", f"evaluate.views={views}", "augment.level=4")
    adapted, prototype = evaluate(flow, "test", **SIZES, readouts=["adapted", "prototype"])
    assert dataclasses.replace(adapted, setting=dataclasses.replace(adapted.setting, readout="prototype")) == prototype


class Recorder:
    """A learner that keeps the sets it is asked to adapt on."""

    def __init__(self, learner) -> None:
        self.learner, self.model, self.shown = learner, learner.model, []

    def adapt(self, support, episode, read):
        self.shown.append(support)
        return self.learner.adapt(support, episode, read)


def test_adapted_is_shown_views_under_the_support_augmentation_or_the_images_themselves(make, drawn) -> None:
    flip, invert = "{name: RandomHorizontalFlip, apply_to: support, p: 1.0}", "{name: RandomInvert, apply_to: query, p: 1.0}"
    flow = make(f"augment=[{flip}, {invert}]")
    for views in (2, 0):
        pipeline = dataclasses.replace(flow.pipeline, evaluate=dataclasses.replace(flow.pipeline.evaluate, views=views))
        learner = Recorder(flow.learner)
        evaluate(dataclasses.replace(flow, pipeline=pipeline, learner=learner), "test", 3, 2, 2, 2, readouts=["adapted"])
        (shown,), support = learner.shown, drawn.pop().support
        clean = support.x[:2].float() / 255
        assert torch.allclose(shown.x, clean.repeat_interleave(2, dim=1).flip(-1) if views else clean, atol=1e-6)
        assert torch.equal(shown.y, support.y[:2].repeat_interleave(max(views, 1), dim=1))


def test_views_of_an_image_differ_and_are_the_same_again(flow) -> None:
    learners = [Recorder(flow.learner), Recorder(flow.learner)]
    for learner in learners:
        evaluate(dataclasses.replace(flow, learner=learner), "test", 3, 1, 2, COUNT, readouts=["adapted"])
        torch.rand(3)  # the state of the global generator must not matter
    (first, second), again = learners[0].shown, learners[1].shown
    assert first.x.shape == (20, 3 * 2, 1, 28, 28)
    assert second.x.shape == (3, 3 * 2, 1, 28, 28)
    assert not torch.equal(first.x[:, 0], first.x[:, 1])
    assert all(torch.equal(a.x, b.x) for a, b in zip((first, second), again, strict=True))


def test_every_readout_sees_the_same_episodes_alone_or_beside_others_and_again(flow, drawn) -> None:
    together = evaluate(flow, "test", **SIZES, readouts=READOUTS)
    first = list(drawn)
    assert [score.setting.readout for score in together] == list(READOUTS)
    for readout, score in zip(READOUTS, together):
        drawn.clear()
        assert evaluate(flow, "test", **SIZES, readouts=iter([readout])) == [score]
        assert all(torch.equal(a.support.x, b.support.x) and torch.equal(a.query.x, b.query.x) for a, b in zip(first, drawn, strict=True))
    assert len({score.value for score in together}) > 1


def test_episodes_depend_on_the_seed_of_the_evaluation_and_not_on_that_of_the_run(make, flow, drawn) -> None:
    for one in (flow, make("seed=7"), make("evaluate.seed=7")):
        evaluate(one, "test", **SIZES, readouts=["prototype"])
    (a, _, run, _, other, _) = drawn
    assert torch.equal(a.query.x, run.query.x)
    assert not torch.equal(a.query.x, other.query.x)


@pytest.mark.parametrize("count", [2, 19, 20, 21, 40])
def test_exactly_so_many_episodes_are_measured_and_fewer_are_the_first_of_more(flow, drawn, count) -> None:
    (score,) = evaluate(flow, "test", 3, 1, 2, count, readouts=["prototype"])
    assert score.episodes == count
    evaluated = [nearest_mean(task, "cosine") for task in embedded(flow, drawn, count)]
    assert score.value == pytest.approx(np.mean(evaluated), abs=1e-9)
    drawn.clear()
    evaluate(flow, "test", 3, 1, 2, 40, readouts=["prototype"])
    assert [nearest_mean(task, "cosine") for task in embedded(flow, drawn, count)] == evaluated


def test_no_episode_is_another_one_again(flow, drawn) -> None:
    evaluate(flow, "test", 3, 1, 2, 60, readouts=["prototype"])
    assert len({query.numpy().tobytes() for _, _, query, _ in tasks_of(drawn, 60)}) == 60


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_are_those_of_the_split(flow, drawn, split) -> None:
    evaluate(flow, split, **SIZES, readouts=["prototype"])
    pool = {image.numpy().tobytes() for image in flow.splits[split].x}
    for batch in drawn:
        assert {image.numpy().tobytes() for x in (batch.support.x, batch.query.x) for image in x.flatten(0, 1)} <= pool
    others = {image.numpy().tobytes() for name in flow.splits if name != split for image in flow.splits[name].x}
    assert not pool <= others


def test_evaluation_changes_neither_weights_nor_the_global_generator(flow) -> None:
    weights, state = copy.deepcopy(flow.learner.model.state_dict()), torch.get_rng_state()
    evaluate(flow, "val", **SIZES, readouts=READOUTS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in flow.learner.model.state_dict().items())


def test_a_split_that_is_not_at_hand_is_refused(flow) -> None:
    with pytest.raises(DataError) as caught:
        evaluate(flow, "dev")
    assert str(caught.value) == "split 'dev': is not in this flow, which has train, val, test; choose one of them"
    unlabelled = dataclasses.replace(flow, splits={name: flow.splits[name] for name in ("val", "test")})
    with pytest.raises(DataError, match=r"^split 'train': is not in this flow, which has val, test; choose one of them$"):
        evaluate(unlabelled, "train")


def test_a_split_without_classes_is_refused(flow) -> None:
    images = flow.splits["test"]
    bare = dataclasses.replace(flow, splits={"test": dataclasses.replace(images, y=images.y[:0], classes=())})
    with pytest.raises(DataError) as caught:
        evaluate(bare)
    assert str(caught.value) == (
        "split 'test': has no classes, so accuracy cannot be measured on it; choose another split, or another data set with --set dataset=..."
    )


def test_protocol_says_what_a_data_set_notes_of_its_images(flow) -> None:
    noted = dataclasses.replace(flow, splits={name: dataclasses.replace(images, note="classes were seen") for name, images in flow.splits.items()})
    assert protocol(noted, ["prototype"]) == f"{TRANSDUCTIVE}; classes were seen; episodes are drawn with seed 0"


def test_too_few_classes_are_refused_with_their_number(flow) -> None:
    have = len(flow.splits["test"].classes)
    with pytest.raises(DataError, match=f"way {have + 1} with shot 1 and query 2 needs {have + 1} classes of 3 images"):
        evaluate(flow, "test", have + 1, 1, 2, 4)


TRANSDUCTIVE = "batch normalisation uses the statistics of the current set (transductive)"
INDUCTIVE = "no statistics are shared between images (inductive)"
GROUP, LABELLED = "model.backbone={name: conv4, norm: group}", "tasks={name: labelled, shot: 2}"
ON_VIEWS = "'adapted' takes 1 inner steps on {} augmented views of each support image"
ON_IMAGES = "'adapted' takes 4 inner steps on the support images"


@pytest.mark.parametrize(
    ("overrides", "readouts", "facts"),
    [
        ([], ["prototype"], [TRANSDUCTIVE]),
        ([GROUP, "evaluate.seed=3"], ["logistic", "prototype"], [INDUCTIVE]),
        ([GROUP], ["adapted"], [INDUCTIVE, ON_VIEWS.format(2)]),
        (["evaluate.views=5"], ["prototype", "adapted"], [TRANSDUCTIVE, ON_VIEWS.format(5)]),
        (["evaluate.views=0", "evaluate.shot=2", "inner.steps=4"], ["adapted"], [TRANSDUCTIVE, ON_IMAGES]),
        ([LABELLED, "evaluate.shot=2", "inner.steps=4"], ["adapted"], [TRANSDUCTIVE, ON_IMAGES]),
    ],
)
def test_protocol_says_what_is_shared_and_what_is_adapted_on(flow, write, overrides, readouts, facts) -> None:
    pipeline = read(write(PIPELINE), overrides)
    seed = f"episodes are drawn with seed {pipeline.evaluate.seed}"
    built = dataclasses.replace(flow, pipeline=pipeline, learner=build_learner(pipeline, flow.interface, flow.device))
    assert protocol(built, readouts) == "; ".join([*facts, seed])


def test_a_readout_that_is_named_twice_is_measured_once(flow) -> None:
    assert evaluate(flow, "test", 3, 1, 2, 4, ["prototype", "prototype"]) == evaluate(flow, "test", 3, 1, 2, 4, "prototype")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"readouts": ["prototype", "logistics"]}, "readouts: there is no 'logistics'; did you mean 'logistic'?"),
        ({"episodes": 1}, "episodes: must be at least 2, got 1; raise it"),
        ({"way": 1}, "way: must be at least 2, got 1; raise it"),
        ({"shot": 0}, "shot: must be at least 1, got 0; raise it"),
    ],
)
def test_arguments_that_make_no_sense_are_named(flow, arguments, says) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate(flow, "test", **{"way": 3, "shot": 1, "query": 2, "episodes": 4, **arguments})
    assert str(caught.value) == says
