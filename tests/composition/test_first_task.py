"""Components that break their contract, as objects of a pipeline: each is refused by name before a run writes anything."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import metaflowkit as mfk
from metaflowkit.errors import ConfigError
from metaflowkit.rules.sgd import SGD
from metaflowkit.types import Episode, Labelled


class Net(nn.Module):
    """A network with the output that is given."""

    def __init__(self, output=lambda z: z, features: int = 3) -> None:
        super().__init__()
        self.linear, self.output, self.features = nn.Linear(12 * 12, 3), output, features

    def forward(self, x):
        return self.output(self.linear(x.flatten(1)))


class Head(nn.Module):
    """A head with the output that is given."""

    fixed_way = False

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, features, support, way):
        return self.output(features)


class Warp(nn.Module):
    """A learned augmentation with the output that is given."""

    def __init__(self, output) -> None:
        super().__init__()
        self.strength, self.output = nn.Parameter(torch.ones(())), output

    def forward(self, x, y):
        return self.output(self.strength * x, y)


class Rule(SGD):
    """A rule whose update is given."""

    def __init__(self, update) -> None:
        super().__init__(lr=0.1)
        self.broken = update

    def update(self, grads, state, params):
        return self.broken(params)


class Readout:
    """A readout whose scores are given."""

    def __call__(self, shown):
        return torch.zeros(3)


def images(count: int, classes: int):
    generator = torch.Generator().manual_seed(0)
    return [((255 * torch.rand(1, 12, 12, generator=generator)).to(torch.uint8), i % classes) for i in range(count)]


def pipeline(**parts):
    text = {
        "dataset": mfk.image_sets(train=images(12, 4), val=images(16, 4), test=images(16, 4)),
        "augment": [],
        "tasks": {"name": "labelled", "way": 3, "shot": 1, "query": 1, "meta_batch": 2},
        "model": {"backbone": parts.pop("backbone", None) or Net(), "head": parts.pop("head", "prototype")},
        "inner": {"loss": "cross_entropy", "steps": 1, **{key: parts.pop(key) for key in ("rule", "augment", "loss") if key in parts}},
        "objective": parts.pop("objective", "query_loss"),
        "outer": {"steps": 1, **{key: parts.pop(key) for key in ("optimizer", "schedule") if key in parts}},
        "evaluate": {"way": 3, "query": 2, "episodes": 2, "val_episodes": 2, "readouts": ["prototype", *parts.pop("readouts", [])]},
    }
    return mfk.pipeline(text | parts, name="mine")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"backbone": Net(features=5)}, "model.backbone: Net must return features [n, 5], as its attribute features says, got a tensor [3, 3] for 3 examples"),
        ({"backbone": Net(lambda z: (z, z))}, "model.backbone: Net must return features [n, 3], as its attribute features says, got a tuple of 2"),
        ({"backbone": Net(lambda z: z[:, None])}, "got a tensor [3, 1, 3] for 3 examples"),
        ({"head": Head(lambda f: f[:, :1])}, "model.head: Head must return scores [n, 3], got a tensor [3, 1] for 3 examples"),
        ({"augment": Warp(lambda x, y: x)}, "inner.augment: Warp must return images and as many labels, got [3, 1, 12, 12]; return (x, y)"),
        ({"augment": Warp(lambda x, y: (x, y[:2]))}, "inner.augment: Warp must return images and as many labels, got [3, 1, 12, 12] and [2]; return (x, y)"),
        ({"rule": Rule(lambda params: params)}, "inner.rule: Rule must return (params, state) from update, got dict"),
        ({"rule": Rule(lambda params: ({}, {}))}, "inner.rule: Rule must return from update a tensor [3, 144] for backbone.linear.weight, got none"),
        ({"loss": lambda outputs, y: torch.ones(())}, "<lambda> depends on no parameter that the inner loop moves, so that nothing would be learned"),
        ({"loss": lambda outputs, y: outputs.logits}, "<lambda> must return a floating-point tensor of no dimension, got a tensor [3, 3]; reduce it"),
        ({"objective": lambda adapted, task: (torch.ones(()), {})}, "<lambda> depends on no parameter that the outer loop moves"),
        ({"optimizer": object()}, "outer.optimizer: must be a torch.optim.Optimizer, got object; derive it from one"),
        ({"schedule": lambda step: "half"}, "outer.schedule: function must return a number from each outer step, got str"),
        ({"readouts": [Readout()]}, "evaluate.readouts: 'python.Readout' must return scores [tasks, queries, classes], a tensor [2, 6, 3], got a tensor [3]"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_a_call_shows_is_refused_before_the_first_outer_step(parts, says, tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        mfk.train(pipeline(**parts), tmp_path / "run")
    assert says in str(caught.value)
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_the_same_parts_unbroken_train(tmp_path) -> None:
    report = mfk.train(pipeline(augment=Warp(lambda x, y: (x, y))), tmp_path / "run")
    assert report.after


class Tasks:
    """A few-shot sampler that calls its number of classes otherwise than the ones here."""

    reads_labels = True

    def __init__(self, images) -> None:
        self.images = images

    def episode(self, step: int) -> Episode:
        x, y = self.images.x[:4][None], self.images.y[:4][None]
        return Episode(Labelled(x, y), Labelled(x, y), 4)


def test_what_an_episode_refuses_bears_its_path() -> None:
    tasks = Tasks(None)
    tasks.episode = lambda step: (_ for _ in ()).throw(ValueError("no task, got nothing; give some"))
    with pytest.raises(ConfigError, match="^mine: tasks: no task, got nothing; give some$"):
        mfk.build(pipeline(tasks=tasks))


def test_tasks_with_an_episode_alone_train_a_head_with_a_row_per_class(tmp_path) -> None:
    chosen = pipeline(
        tasks=Tasks(mfk.image_sets(train=images(12, 4)).load()["train"]), head="linear", evaluate={"way": 4, "query": 2, "episodes": 2, "val_episodes": 2}
    )
    assert mfk.build(chosen).model.head.weight.shape[0] == 4
    assert mfk.train(chosen, tmp_path / "run").after


class Walk:
    """A regression whose targets lack the axis of outputs."""

    measured, metric, shape, outputs = True, "error", (1,), 1
    reads_data = reads_labels = False

    def __init__(self) -> None:
        self.criterion = mfk.criteria.Regression()

    def episode(self, step: int) -> Episode:
        x = torch.ones(2, 3, 1)
        return Episode(Labelled(x, x[..., 0]), Labelled(x, x[..., 0]))

    def held_out(self, split, index, count, shot):
        return self.episode(0)

    def measure(self, call, task):
        return (call(task.query.x).logits[..., 0] - task.query.y).abs().mean()


def test_targets_that_torch_would_broadcast_are_refused(tmp_path) -> None:
    model = {"backbone": {"name": "mlp", "widths": [4]}, "head": "linear"}
    text = {"tasks": Walk(), "model": model, "inner": {"loss": "task", "steps": 1}, "objective": "query_loss", "outer": {"steps": 1}}
    with pytest.raises(ConfigError, match=r"tasks: targets y must have the shape of the outputs, \[3, 1\], got \[3\]"):
        mfk.train(mfk.pipeline(text, name="mine"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
