"""What the catalog reads from Kornia's source; oracle: the signatures of the imported classes."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing

import kornia.augmentation as K
import pytest

from metaflowkit.augment.catalog import operations
from metaflowkit.registry import AUGMENTATIONS, REQUIRED


@pytest.mark.parametrize("name", list(operations()))
def test_settings_are_those_of_the_signature(name) -> None:
    settings = dict(operations()[name].settings)
    assert typing.get_args(settings.pop("apply_to").annotation) == ("support", "query", "both")
    signature = dict(inspect.signature(getattr(K, name).__init__).parameters)
    signature = {n: p for n, p in signature.items() if n != "self" and p.kind is not p.VAR_KEYWORD}
    assert set(settings) == set(signature)
    assert {n for n, s in settings.items() if s.default is REQUIRED} == {n for n, p in signature.items() if p.default is inspect.Parameter.empty}
    for n, setting in settings.items():
        if isinstance(signature[n].default, (bool, int, float)):
            assert setting.default == signature[n].default


def test_the_registry_lists_the_catalog() -> None:
    assert AUGMENTATIONS.entries() == operations()
    assert all(entry.summary for entry in operations().values())


def test_reading_the_catalog_imports_neither_kornia_nor_torch() -> None:
    code = "import sys; from metaflowkit.augment.catalog import operations; print(len(operations()), 'kornia' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(len(operations())), "False", "False"]
