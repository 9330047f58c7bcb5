"""What the catalog reads from Kornia's source; oracle: the signatures of the imported classes."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import typing
from typing import Any

import kornia.augmentation as K
import pytest

from metaflowkit.augment.catalog import operations
from metaflowkit.config.introspection import REQUIRED
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import AUGMENTATIONS
from metaflowkit.config.schema import coerce
from metaflowkit.config.yaml import parse_yaml, to_yaml
from metaflowkit.errors import ConfigError


@pytest.mark.parametrize("name", list(operations()))
def test_settings_are_those_of_the_signature(name) -> None:
    settings = dict(operations()[name].settings)
    assert typing.get_args(settings.pop("apply_to").annotation) == ("support", "query", "both")
    signature = dict(inspect.signature(getattr(K, name).__init__).parameters)
    signature = {n: p for n, p in signature.items() if n != "self" and p.kind is not p.VAR_KEYWORD}
    assert set(settings) == set(signature)
    assert {n for n, s in settings.items() if s.default is REQUIRED} == {n for n, p in signature.items() if p.default is inspect.Parameter.empty} - {"size"}
    for n, setting in settings.items():
        if isinstance(signature[n].default, (bool, int, float)):
            assert setting.default == signature[n].default


def test_the_registry_lists_the_catalog() -> None:
    foreign = {name: entry for name, entry in AUGMENTATIONS.entries().items() if name in operations()}
    assert foreign == {name: dataclasses.replace(entry, tags={"modality": "images"}) for name, entry in operations().items()}
    assert all(entry.summary for entry in operations().values())


def test_reading_the_catalog_imports_neither_kornia_nor_torch() -> None:
    code = "import sys; from metaflowkit.augment.catalog import operations; print(len(operations()), 'kornia' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(len(operations())), "False", "False"]


def test_settings_are_checked_without_kornia(write) -> None:
    listed = (
        "[{name: RandomAffine, degrees: far, p: 2}, {name: RandomHorizontalFlip, p: yes}, {name: RandomFisheye, center_x: 1, center_y: [0, 1], gamma: [1, 2]}]"
    )
    with pytest.raises(ConfigError) as caught:
        read(write(f"dataset: glyphs\naugment: {listed}"))
    assert [problem.split(": ", 1)[1].split("; ")[0] for problem in caught.value.problems] == [
        "augment.0.degrees: must be a list (a number each) or a number, got 'far'",
        "augment.0.p: must be a number from 0 to 1, got 2.0",
        "augment.1.p: must be a number from 0 to 1, got 'yes'",
        "augment.2.center_x: must be a list (a number each), got 1",
    ]


def test_every_setting_has_a_type_and_a_default_that_yaml_can_hold() -> None:
    for entry in operations().values():
        for setting in entry.settings.values():
            assert setting.annotation is not Any, (entry.name, setting.name)
            if setting.default is not REQUIRED:
                node = parse_yaml(to_yaml({"x": setting.default}), "default").value["x"]
                coerce(node, setting.annotation, f"{entry.name}.{setting.name}")
    assert operations()["RandomAffine"].settings["resample"].default == "bilinear"
