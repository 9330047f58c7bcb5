"""Shared set-up: real data by environment variable, a cache of the test session's own, small trees in the form of real data sets."""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaflowkit.config.registry import KINDS

own_threads = torch.get_num_threads  # also where a test replaces it

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


def pytest_collection_finish() -> None:
    """What is imported stays, so no collection of garbage looks through it again; with that, half of the fast tests' time would go."""
    importlib.import_module("torch._dynamo")  # torch's optimisers import it at their first use
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFLOWKIT_CACHE", str(tmp_path_factory.getbasetemp().parent / "metaflowkit-cache"))


@pytest.fixture(autouse=True)
def _no_stage_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test prints does not depend on how fast the machine is."""
    monkeypatch.setattr("metaflowkit.stages.AFTER", 1e6)


@pytest.fixture(autouse=True)
def _no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of a run takes longer to draw than most tests train, so it is left out but where tests are of it (``pytest.mark.pages``)."""
    if request.node.get_closest_marker("pages") is None:
        monkeypatch.setattr("metaflowkit.reporting.run_page.write_run_page", lambda finished, report: None)


@pytest.fixture(autouse=True)
def _objects_forgotten():
    """Components that a test made in Python are unknown to the next."""
    yield
    for kind in KINDS.values():
        kind.objects.clear()


@pytest.fixture(autouse=True)
def _threads_left():
    """A test that left torch with other threads would make those after it slow."""
    threads = own_threads()
    yield
    assert own_threads() == threads


@pytest.fixture
def data() -> Path:
    """The folder with the real Omniglot and EuroSAT, where there is one."""
    folder = os.environ.get("METAFLOWKIT_DATA")
    if not folder:
        pytest.skip("METAFLOWKIT_DATA does not name the folder with omniglot/ and eurosat/")
    return Path(folder)


@pytest.fixture
def write(tmp_path: Path):
    """Write text to a file of the test's own folder and return its path."""

    def write_file(text: str, name: str = "p.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def strokes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Omniglot's form (two zips, ink on paper): 5 + 1 alphabets of 20 characters with 20 drawings each."""
    folder = tmp_path_factory.mktemp("strokes")
    rng = np.random.default_rng(0)
    for part, alphabets in (("images_background", 5), ("images_evaluation", 1)):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for a in range(alphabets):
                for c in range(1, 21):
                    shape = rng.random((7, 7)) < 0.4
                    for i in range(1, 21):
                        ink = np.kron(shape ^ (rng.random((7, 7)) < 0.05), np.ones((4, 4), dtype=bool))
                        name = f"{part}/Alphabet_{part[7]}{a}/character{c:02d}/{c:04d}_{i:02d}.png"
                        archive.writestr(name, png(np.where(ink, 0, 255).astype(np.uint8)))
    return folder


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip in EuroSAT's form: EuroSAT_RGB/<class>/<class>_<n>.png, ten classes with 25 colour images of 32x32 each."""
    path = tmp_path_factory.mktemp("fields") / "EuroSAT_RGB.zip"
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(path, "w") as archive:
        for c in range(10):
            tone = rng.integers(0, 256, 3)
            for i in range(25):
                image = np.clip(tone + rng.normal(0, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
                archive.writestr(f"EuroSAT_RGB/Class{c}/Class{c}_{i}.png", png(image))
    return path


def write_clinc150(folder: Path) -> Path:
    """Texts in CLINC150's form: three domains of two intents with 30 texts each, in which the intent's own words stand among others."""
    intents = {"money": ["balance", "transfer"], "home": ["lights", "heating"], "travel": ["flight", "hotel"]}
    rng = np.random.default_rng(0)
    rows = [
        [" ".join(rng.permutation([intent, intent[::-1], *(f"word{i}" for i in rng.integers(0, 40, 4))])), intent]
        for domain in intents.values()
        for intent in domain
        for _ in range(30)
    ]
    parts = {"train": rows[::3], "val": rows[1::3], "test": rows[2::3], "oos_train": [["nothing of that", "oos"]]}
    (folder / "data_full.json").write_text(json.dumps(parts))
    (folder / "domains.json").write_text(json.dumps(intents))
    return folder


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in CLINC150's form; see :func:`write_clinc150`."""
    return write_clinc150(tmp_path_factory.mktemp("clinc150"))
