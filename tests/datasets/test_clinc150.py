"""CLINC150 in its own form, written small; and the real one where it is at hand."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from metaflowkit.datasets.clinc150 import Clinc150
from metaflowkit.errors import DataError
from tests.conftest import write_clinc150


def test_domains_are_apart_and_the_parts_of_the_original_are_put_together(tmp_path) -> None:
    splits = Clinc150(str(write_clinc150(tmp_path)), train=["money"], val=["home"], test=["travel"]).load()
    assert {split: texts.classes for split, texts in splits.items()} == {
        "train": ("money/balance", "money/transfer"), "val": ("home/lights", "home/heating"), "test": ("travel/flight", "travel/hotel"),
    }  # fmt: skip
    assert {split: texts.y.bincount().tolist() for split, texts in splits.items()} == {split: [30, 30] for split in splits}
    assert {texts.vocabulary for texts in splits.values()} == {8192}
    assert splits["train"].x.shape == (60, 28)


def test_a_zipped_file_is_the_same(tmp_path) -> None:
    plain = Clinc150(str(write_clinc150(tmp_path)), train=["money"], val=["home"], test=["travel"]).load()
    path = tmp_path / "data_full.json"
    (tmp_path / "data_full.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    zipped = Clinc150(str(tmp_path), train=["money"], val=["home"], test=["travel"]).load()
    assert all(torch.equal(plain[split].x, zipped[split].x) for split in plain)


@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        (lambda p: (p / "data_full.json").unlink(), {}, "holds no data_full.json or data_full.json.gz; set dataset.root"),
        (lambda p: (p / "domains.json").unlink(), {}, r"domains\.json: does not exist; it belongs to CLINC150"),
        (lambda p: (p / "data_full.json").write_text("{"), {}, r"data_full\.json: cannot be read"),
        (lambda p: (p / "data_full.json").write_text(json.dumps({"train": [1]})), {}, r"data_full\.json: is not in CLINC150's form"),
        (lambda p: None, {"val": ["hme"]}, r"dataset\.val: there is no domain 'hme'; did you mean 'home'\?"),
        (lambda p: None, {"val": ["money"]}, "is in train and in val; keep it in one"),
    ],
    ids=["no texts", "no domains", "no JSON", "another form", "no such domain", "twice"],
)
def test_refused(tmp_path, spoil, settings, says) -> None:
    spoil(write_clinc150(tmp_path))
    with pytest.raises(DataError, match=says):
        Clinc150(str(tmp_path), **{"train": ["money"], "val": ["home"], "test": ["travel"], **settings}).load()


@pytest.mark.skipif("METAFLOWKIT_DATA" not in os.environ, reason="METAFLOWKIT_DATA does not say where the data sets are")
def test_the_real_one() -> None:
    splits = Clinc150(str(Path(os.environ["METAFLOWKIT_DATA"]) / "clinc150")).load()
    assert {split: (len(texts.x), len(texts.classes)) for split, texts in splits.items()} == {"train": (13_500, 90), "val": (4_500, 30), "test": (4_500, 30)}
    assert all(texts.y.bincount().eq(150).all() for texts in splits.values())
    assert (splits["train"].x != 0).sum(1).max() == 28
