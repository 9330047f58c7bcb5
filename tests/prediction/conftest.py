"""Runs with each normalisation, and folders of images, for the tests of prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from metaflowkit.config.pipeline import read
from metaflowkit.reporting.train import train
from tests.prediction.drawings import NORMS, drawings
from tests.small import SMALL


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run with each normalisation."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAFLOWKIT_CACHE", str(tmp_path_factory.getbasetemp().parent / "metaflowkit-cache"))
        for norm in NORMS:
            train(read(folder / "small.yaml", ["device=cpu", f"model.backbone.norm={norm}", "model.backbone.width=8"]), folder / norm)
    return {norm: folder / norm for norm in NORMS}


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Labelled images of three classes in folders, and nine others."""
    x, y = drawings(12)
    for i, (pixels, label) in enumerate(zip(x, y)):
        path = tmp_path / "support" / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "new").mkdir()
    for i, pixels in enumerate(drawings(9, seed=1)[0]):
        Image.fromarray(pixels).save(tmp_path / "new" / f"{i}.png")
    return tmp_path / "support", tmp_path / "new"
