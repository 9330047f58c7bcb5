"""The JSON Schema against the reader: what is valid satisfies it, and what one value alone makes wrong does not."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from metaflowkit.config.json_schema import json_schema
from metaflowkit.config.pipeline import read
from metaflowkit.config.yaml import read_yaml
from metaflowkit.errors import ConfigError
from metaflowkit.search.specification import read_search
from tests.fuzz.mutants import ROOT, lay_out, mutant

SHIPPED = [path for folder in ("pipelines", "search") for path in sorted((ROOT / folder).rglob("*.yaml"))]


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    Draft7Validator.check_schema(json_schema())
    return Draft7Validator(json_schema())


def faults(schema: Draft7Validator, path: Path) -> list[str]:
    return [error.message for error in schema.iter_errors(read_yaml(path).plain())]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_what_is_shipped_satisfies_it_as_it_is_and_with_every_default_written_out(schema, path, write) -> None:
    assert faults(schema, path) == []
    if path.parent.name != "search":
        assert faults(schema, write(read(path).to_yaml())) == []


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_valid_mutant_satisfies_it(schema, tmp_path, count) -> None:
    folder, valid, refused = lay_out(tmp_path / "files"), 0, 0
    for seed in range(count):
        path, _ = mutant(seed, folder)
        reader = read_search if path.parent.name == "search" else read
        with contextlib.suppress(ConfigError):
            read_yaml(path)
            try:
                reader(path)
            except ConfigError:
                refused += bool(faults(schema, path))
            else:
                valid += 1
                assert faults(schema, path) == [], f"seed {seed}"
    assert valid > count // 20
    assert refused > count // 10


@pytest.mark.parametrize(
    "change",
    [
        "outr: {steps: 3}",
        "seed: -1",
        "seed: one",
        "dataset: glyfs",
        "dataset: {image_size: 28}",
        "dataset: {name: folder}",  # which has no default for its root
        "augment: {level: 5}",
        "augment: {levels: 2}",
        "augment: [RandomNothing]",
        "tasks: {name: views, way: 1}",
        "model: {backbone: {name: conv4, width: 2.5}}",
        "inner: {rule: {name: sgd, lr: 0.0}}",
        "inner: {learn: {lr: leyer}}",
        "inner: {learn: {lr: {per: layer, per_stp: true}}}",
        "inner: {others: none}",
        "objective: {name: bootstrapped_kl, delta: -1}",
        "objective: {name: weighted_sum, terms: [bootstrapped_kl, nothing]}",
        "evaluate: {way: [5, one]}",
        "evaluate: {readouts: prototype}",
        "loggers: [nothing]",
        "space: {objective.delta: [1, 2]}",  # a search without a pipeline
    ],
)
def test_a_mistake_in_one_value_does_not(schema, write, change) -> None:
    key = change.partition(":")[0]
    path = write("\n".join(line for line in ("dataset: glyphs", "objective: bootstrapped_kl", change) if not line.startswith(f"{key}:") or line == change))
    with pytest.raises(ConfigError):
        (read_search if key == "space" else read)(path)
    assert faults(schema, path)


def test_it_says_what_settings_mean() -> None:
    definitions = json_schema()["definitions"]
    objective = next(each for each in definitions["objective"]["anyOf"] if each.get("title") == "bootstrapped_kl")
    delta = objective["properties"]["delta"]
    assert (delta["type"], delta["minimum"], delta["default"]) == ("integer", 0, 5)
    assert delta["description"].startswith("steps from the student to its target")
    assert definitions["pipeline"]["properties"]["outer"]["properties"]["steps"]["description"] == "outer steps in all."
