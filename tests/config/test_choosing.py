"""Overrides enter lists that stand by default; objects from Python meet the contract of their kind when they are chosen."""

from __future__ import annotations

import pytest
from torch import nn
from torch.utils.data import TensorDataset

import metaflowkit as mfk
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.errors import ConfigError


def names(pipeline) -> list[str]:
    return [choice.name for choice in pipeline.evaluate.readouts]


@pytest.mark.parametrize(
    ("overrides", "of", "value"),
    [
        (["evaluate.readouts.0=logistic"], names, ["logistic", "adapted"]),
        (["evaluate.readouts.0=logistic", "evaluate.readouts.1=prototype"], names, ["logistic", "prototype"]),
        (["evaluate.readouts.2.c=3", "evaluate.readouts.2.name=logistic"], lambda p: p.evaluate.readouts[2].plain(), {"name": "logistic", "c": 3.0}),
        (["evaluate.readouts.2=logistic", "evaluate.readouts.2.c=3"], lambda p: p.evaluate.readouts[2].plain(), {"name": "logistic", "c": 3.0}),
        (["evaluate.readouts.0=logistic", "evaluate.readouts=[prototype]"], names, ["prototype"]),
        (["loggers.0=csv"], lambda p: [choice.name for choice in p.loggers], ["csv"]),
        (["inner.adapt.0=head.*", "inner.adapt.1=backbone.*"], lambda p: p.inner.adapt, ["head.*", "backbone.*"]),
        (["dataset.train.1=greek", "dataset.test=[armenian]"], lambda p: p.dataset.settings["train"], ["latin", "greek"]),
        (["model.backbone.name=mlp", "model.backbone.widths.4=8"], lambda p: p.model.backbone.settings["widths"], [256, 128, 64, 64, 8]),
        (["augment=[RandomHorizontalFlip]", "augment.1=RandomVerticalFlip"], lambda p: len(p.augment.operations), 2),
    ],
)  # fmt: skip
def test_an_override_enters_a_list_that_stands_by_default(overrides, of, value) -> None:
    assert of(pipeline_of({"dataset": "glyphs"}, overrides)) == value


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("evaluate.readouts.3=logistic", "evaluate.readouts.3: '3' is no place in a list of 2; use 0 to 1, or 2 to append"),
        ("evaluate.readouts.x=logistic", "evaluate.readouts.x: 'x' is no place in a list of 2"),
        ("evaluate.readouts.0.power=2", "evaluate.readouts.0.power: readout 'prototype' has no such setting"),
        ("dataset.train.9=greek", "dataset.train.9: '9' is no place in a list of 2"),
        (
            "augment.0=RandomHorizontalFlip",
            "augment.0: there is no list, since the default is a level; set the whole list, such as augment=[RandomHorizontalFlip]",
        ),
        ("plugins.1=json", "plugins.1: '1' is no place in a list of 0"),
    ],
)
def test_an_override_past_a_default_is_refused_with_its_whole_path(override, says) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline_of({"dataset": "glyphs"}, [override])
    (problem,) = caught.value.problems
    assert problem.startswith(f"--set {override}: {says}")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (
            "dataset",
            TensorDataset(),
            "python: dataset: dataset 'python.TensorDataset' must define load(), and torch.utils.data.dataset.TensorDataset does not; "
            "add it, or write metaflowkit.image_sets(train, val, test) of torch's data sets",
        ),
        ("tasks", object(), "python: tasks: tasks 'python.object' must define episode(step), and builtins.object does not; add it"),
        ("model", {"backbone": nn.Flatten()}, "python: model.backbone: backbone 'python.Flatten' must define the attribute features, and torch.nn.modules"),
        ("inner", {"rule": mfk.rules.SGD}, "python: inner.rule: must be an object, got the class SGD; write SGD(...)"),
        (
            "inner",
            {"rule": "python.SGD"},
            "python: inner.rule: there is no rule 'python.SGD' in this process, since it was made from a Python object; make the pipeline",
        ),
    ],
)
def test_objects_are_refused_where_they_are_given(key, value, says) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline_of({"dataset": "glyphs", key: value})
    (problem,) = caught.value.problems
    assert problem.startswith(says)


@pytest.mark.parametrize("settings", [[1], None, "p.yaml"])
def test_a_pipeline_from_python_is_a_mapping(settings) -> None:
    with pytest.raises(ConfigError, match=r"python: must be a mapping of keys to values, got .*; write such as \{'dataset': 'glyphs'\}"):
        pipeline_of(settings)
