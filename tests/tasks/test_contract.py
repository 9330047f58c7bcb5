"""Task samplers that break their contract are refused by name before anything is trained."""

from __future__ import annotations

import pytest
import torch

import metaflowkit as mfk
from metaflowkit.criteria import Regression
from metaflowkit.errors import ConfigError
from metaflowkit.types import Episode, Labelled

T = torch.zeros(2, 3, 1)
X, Y = torch.zeros(2, 3, 1, 28, 28), torch.arange(3).expand(2, -1)


class Given:
    """Returns what it was given."""

    def __init__(self, episode) -> None:
        self.given = episode

    def episode(self, step: int):
        return self.given


@pytest.mark.parametrize(
    ("episode", "says"),
    [
        ((X, Y), "episode(step) must return an Episode, got tuple; return Episode(support, query, way)"),
        (Episode(X, X, 3), "episode(step).support must be Labelled(x, y) with tensors, got Tensor"),
        (Episode(Labelled(X[0], Y[0]), Labelled(X, Y), 3), "episode(step).support.x must have the shape [tasks, examples, 1, 28, 28], got [3, 1, 28, 28]"),
        (Episode(Labelled(X, Y), Labelled(X[..., :14], Y), 3), "episode(step).query.x must have the shape [tasks, examples, 1, 28, 28], got [2, 3, 1, 28, 14]"),
        (Episode(Labelled(X, Y.float()), Labelled(X, Y), 3), "episode(step).support.y must be int64 of shape [2, 3], got float32 [2, 3]"),
        (Episode(Labelled(X, Y), Labelled(X, Y), 2), "episode(step).support.y must hold classes of 0 to 1 (way - 1)"),
        (Episode(Labelled(X, Y), Labelled(X[:1], Y[:1]), 3), "episode(step) must have as many tasks in support and query, got 2 and 1"),
    ],
)
def test_what_came_and_what_was_expected(episode, says) -> None:
    pipeline = mfk.pipeline(
        {
            "dataset": {"name": "glyphs", "train": ["cyrillic"], "test": ["georgian"]},
            "tasks": Given(episode),
            "evaluate": {"readouts": ["prototype"], "way": 3, "query": 2},
        },
        name="mine",
    )
    with pytest.raises(ConfigError) as caught:
        mfk.build(pipeline)
    assert f"tasks: {says}" in str(caught.value)


class Measured:
    """Tasks that measure themselves; every part can be replaced."""

    reads_data, measured, metric, percent = False, True, "error", False
    criterion, shape, outputs = Regression(), (1,), 1

    def __init__(self, **parts) -> None:
        vars(self).update(parts)

    def episode(self, step: int):
        return Episode(Labelled(T, T), Labelled(T, T))

    def held_out(self, split: str, index: int, count: int, shot: int):
        return Episode(Labelled(T[:count], T[:count]), Labelled(T[:count], T[:count]))

    def measure(self, call, task):
        return call(task.query.x).logits.mean()


def started(tasks: object, **keys: object) -> None:
    """A run up to its first outer step."""
    model = {"backbone": {"name": "mlp", "widths": [4]}, "head": "linear"}
    text = {"tasks": tasks, "model": model, "inner": {"loss": "task", "steps": 1}, "objective": "query_loss", "evaluate": {"val_episodes": 2}, **keys}
    flow = mfk.build(mfk.pipeline(text, name="mine"))
    mfk.evaluate_adaptation(flow, "val", 1, [1], 2)
    flow.learner.outcome(flow.episode(1))


def test_measured_tasks_from_python_need_no_registration() -> None:
    started(Measured())


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"episode": lambda step: (T, T)}, "tasks: episode(1) must return an Episode, got tuple; return Episode(support, query)"),
        ({"held_out": lambda split, index, count, shot: T}, "tasks: held_out('val', 0, 2, 1) must return an Episode, got Tensor"),
        ({"held_out": lambda split: T}, "must define held_out(split, index, count, shot), and that of"),
        ({"measure": None}, "must define measure(call, task), and tests.tasks.test_contract.Measured does not; add it"),
        ({"episode": lambda step: Episode(T, T)}, "tasks: episode(1).support must be (x, y) with a tensor x, got Tensor"),
        ({"shape": (4,)}, "tasks: episode(1).support: x must have the shape [tasks, examples, 4], as the attribute shape says, got [2, 3, 1]"),
        ({"episode": lambda step: Episode(Labelled(T, T), Labelled(T[:1], T[:1]))}, "every tensor needs the same leading axis of tasks"),
        ({"measure": lambda call, task: 1.0}, "tasks: measure(call, task) must return a tensor, a scalar or [n], got float; reduce it"),
        ({"measure": lambda call, task: call(task.query.x).logits}, "tasks: measure(call, task) must return a tensor, a scalar or [n], got a tensor [3, 1]"),
        ({"samples": True}, "must define sample(call, batch, draw), and"),
        ({"samples": True, "sample": lambda call, batch, draw: T}, "tasks: sample(call, batch, draw) must return (x, y), got Tensor; return Labelled(x, y)"),
        (
            {"criterion": type("Wrong", (), {"loss": lambda self, outputs, y: outputs})()},
            "TaskLoss must return a floating-point tensor of no dimension, got a tensor [3, 1]",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_measured_tasks_that_break_their_contract(parts, says) -> None:
    with pytest.raises(ConfigError) as caught:
        started(Measured(**parts))
    assert says in str(caught.value)


@pytest.mark.parametrize("missing", ["criterion", "shape", "outputs"])
def test_measured_tasks_that_lack_an_attribute(missing) -> None:
    cls = type("Lacking", (), {name: value for name, value in vars(Measured).items() if name not in (missing, "__dict__", "__weakref__")})
    with pytest.raises(ConfigError, match=f"must define the attribute {missing}, and "):
        started(cls())
