"""Shared set-up: real data by environment variable, a cache of the test session's own, small smooth models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path_factory.getbasetemp().parent / "metaflowkit-cache"))


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("METAFLOWKIT_DATA")
    if not folder:
        pytest.skip("METAFLOWKIT_DATA does not name the folder with omniglot/ and eurosat/")
    return Path(folder)


@pytest.fixture
def write(tmp_path: Path):
    def write_file(text: str, name: str = "p.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file
