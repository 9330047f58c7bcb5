"""Constructors of plugins refuse when the pipeline is checked, wherever the refusal stands in them; what only a run can know is left to it."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError
from metaflowkit.search.specification import read_search

PLUGIN = """
import dataclasses

import torch
from metaflowkit.config.registry import BACKBONES, DATASETS, LOSSES, METRIC_LOGGERS, OBJECTIVES, PRUNERS, RULES, SCHEDULES, TASKS
from metaflowkit.rules import SGD

LEAST = 0.5
built = []


def require(t):
    if t < 0:
        raise ValueError(f"t must not be negative, got {t}")


class Objective:
    def __call__(self, adapted, task): ...


@OBJECTIVES.register("refuses_in_a_function")
class InAFunction(Objective):
    def __init__(self, t: float = 1.0) -> None:
        require(t)


@OBJECTIVES.register("refuses_in_a_branch")
class InABranch(Objective):
    def __init__(self, t: float = 1.0) -> None:
        if t >= 0:
            self.t = t
        else:
            message = "t must not be negative, got " + str(t)
            raise ValueError(message)


@OBJECTIVES.register("refuses_an_attribute")
class AnAttribute(Objective):
    def __init__(self, t: float = 1.0) -> None:
        self.t = t
        if self.t < 0:
            raise ValueError(f"t must not be negative, got {t}")


@OBJECTIVES.register("refuses_as_a_dataclass")
@dataclasses.dataclass
class AsADataclass(Objective):
    t: float = 1.0

    def __post_init__(self):
        require(self.t)


@RULES.register("refuses_in_its_base")
class InItsBase(SGD):
    def __init__(self, t: float = 1.0, **keywords) -> None:
        super().__init__(**keywords)


@SCHEDULES.register("refuses_more_than_the_steps")
class MoreThanTheSteps:
    def __init__(self, steps: int, last: int = 1) -> None:
        self.last = last
        if self.last > steps:
            raise ValueError(f"last must be at most {steps}, got {last}")

    def __call__(self, step): ...


@BACKBONES.register("asks_for_a_shape")
class AsksForAShape(torch.nn.Module):
    def __init__(self, shape, t: float = 1.0) -> None:
        super().__init__()
        built.append(shape)
        require(t)
        if t < LEAST:
            raise ValueError(f"t must be at least {LEAST}")


@BACKBONES.register("draws")
class Draws(torch.nn.Linear):
    def __init__(self, features: int = 3) -> None:
        built.append(features)
        super().__init__(4, features)
        self.features = features


@DATASETS.register("needs_a_file")
class NeedsAFile:
    def __init__(self, root: str = "nowhere") -> None:
        open(root)

    def load(self): ...


@DATASETS.register("loads_nothing")
class LoadsNothing: ...


@METRIC_LOGGERS.register("opens")
class Opens:
    def __init__(self) -> None:
        built.append("file")

    def log(self, event): ...


@PRUNERS.register("patient")
def patient(outer_steps: int, t: float = 1.0):
    require(outer_steps - t)
"""


@pytest.fixture
def check(plugin, write):
    name = plugin("mfk_refusing", PLUGIN)

    def checked(*overrides: str):
        return read(write(f"dataset: glyphs\nplugins: [{name}]\n"), list(overrides))

    return checked


@pytest.mark.parametrize(
    ("override", "says"),
    [
        *[(f"objective={{name: {name}, t: -1}}", "objective: t must not be negative, got -1.0")
          for name in ("refuses_in_a_function", "refuses_in_a_branch", "refuses_an_attribute", "refuses_as_a_dataclass")],
        ("inner.rule={name: refuses_in_its_base, nesterov: true}", "inner.rule: nesterov needs momentum, got momentum 0; set momentum"),
        ("outer.schedule={name: refuses_more_than_the_steps, last: 2000}", "outer.schedule: last must be at most 1000, got 2000"),
        ("model.backbone={name: asks_for_a_shape, t: -1}", "model.backbone: t must not be negative, got -1.0"),
        ("model.backbone={name: asks_for_a_shape, t: 0.2}", "model.backbone: t must be at least 0.5"),
        ("dataset=loads_nothing", "dataset: dataset 'loads_nothing' must define load(), and mfk_refusing.LoadsNothing does not; add it"),
    ],
)  # fmt: skip
def test_check_refuses_what_the_constructor_refuses_with_its_place(check, override, says) -> None:
    with pytest.raises(ConfigError) as caught:
        check(override)
    (problem,) = caught.value.problems
    assert problem.startswith(f"--set {override[:40]}")
    assert says in problem


@pytest.mark.parametrize(
    "override",
    [
        "objective={name: refuses_as_a_dataclass, t: 1}",
        "outer.schedule={name: refuses_more_than_the_steps, last: 1000}",
        "model.backbone=asks_for_a_shape",
        "dataset=needs_a_file",
        "loggers=[opens]",
    ],
)
def test_what_is_accepted_or_needs_data_passes(check, override) -> None:
    import mfk_refusing  # type: ignore[import-not-found]

    check(override)
    assert not mfk_refusing.built


def test_a_component_is_built_once_and_draws_nothing_from_the_generator(check) -> None:
    import mfk_refusing

    before = torch.random.get_rng_state()
    for _ in range(3):
        check("model.backbone=draws")
    assert mfk_refusing.built == [3]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_of_a_search_too(plugin, write) -> None:
    name = plugin("mfk_refusing", PLUGIN)
    write(f"dataset: glyphs\nplugins: [{name}]\n", "base.yaml")
    path = write("pipeline: base.yaml\nspace: {objective.delta: [5, 6]}\npruner: {name: patient, t: 1001}\n", "s.yaml")
    with pytest.raises(ConfigError, match=r"s\.yaml:3:9: pruner: t must not be negative, got -1\.0"):
        read_search(path)
