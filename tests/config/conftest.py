"""Plugins of a test's own."""

from __future__ import annotations

import sys

import pytest

from metaflowkit.config.registry import KINDS

OWN = {name: kind for name, kind in KINDS.items() if kind.reader is None}


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a plugin module under a name of the test's own; what it registers is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind in OWN.values():
        __import__(kind.module)
    before = {name: dict(kind.classes) for name, kind in OWN.items()}
    written = []

    def make(name: str, text: str) -> str:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(name)
        return name

    yield make
    for name, kind in OWN.items():
        kind.classes.clear()
        kind.classes.update(before[name])
    for name in written:
        sys.modules.pop(name, None)
