"""What any mutant of a shipped file may do: be read, or be refused with a place; what is valid is trained for a step.

``METAFLOWKIT_FUZZ=100000 pytest -m slow tests/fuzz`` reads so many, ``METAFLOWKIT_FUZZ_SEED`` says from which seed on; a failure names its seed, and
``METAFLOWKIT_FUZZ=1 METAFLOWKIT_FUZZ_SEED=<seed>`` replays it.
"""

from __future__ import annotations

import os
import traceback
import warnings
from pathlib import Path

import pytest
import torch

from metaflowkit.config import registry
from metaflowkit.errors import MetaflowkitError
from metaflowkit.reporting.train import train
from metaflowkit.types import ImageSet
from tests.fuzz.mutants import lay_out, mutant, read_mutant, small

READ, BUILT = 200, 4
MANY, FIRST = int(os.environ.get("METAFLOWKIT_FUZZ", "100000")), int(os.environ.get("METAFLOWKIT_FUZZ_SEED", "0"))


class MadeUp:
    """Random images of 16x16 pixels: nine classes of eight, three in each split."""

    def __init__(self, channels: int) -> None:
        self.x = torch.randint(0, 256, (24, channels, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def load(self) -> dict[str, ImageSet]:
        y = torch.arange(3).repeat_interleave(8)
        return {split: ImageSet(self.x, y, tuple(f"{split}{c}" for c in range(3))) for split in ("train", "val", "test")}


@pytest.fixture(autouse=True)
def _data(monkeypatch) -> None:
    monkeypatch.setitem(registry.DATASETS.classes, "made-up", MadeUp)


def faults(seeds: range, folder: Path, built: int) -> tuple[list[str], int, int]:
    """What goes wrong among these mutants, how many are valid, and how many of those were trained for a step (at most ``built``)."""
    found, valid, trained = [], 0, 0
    for seed in seeds:
        try:
            pipeline = read_mutant(seed, folder)
            if pipeline is None:
                continue
            valid += 1
            if trained < built and valid % max(1, len(seeds) // (8 * built)) == 0:
                trained += 1
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    train(small(pipeline), folder / f"run-{seed}", overwrite=True)
        except MetaflowkitError:  # of training alone: the data, or values that are not finite
            continue
        except Exception:
            path, overrides = mutant(seed, folder)
            found.append(f"seed {seed}: {path.parent.name}, overrides {overrides!r:.200}\n{traceback.format_exc(limit=-4)[-1500:]}")
    return found, valid, trained


def test_hundreds_of_mutants_are_read_or_refused_and_some_of_the_valid_ones_trained(tmp_path) -> None:
    found, valid, trained = faults(range(FIRST, FIRST + READ), lay_out(tmp_path / "files"), BUILT)
    assert not found, "\n".join(found)
    assert valid > READ // 20
    assert trained == BUILT


@pytest.mark.parametrize(("place", "without", "count"), [("metaflowkit.config.yaml.DEPTH", 10**6, 60), ("metaflowkit.errors.printable", str, 120)])
def test_mutants_show_a_guard_that_is_missing(place, without, count, tmp_path, monkeypatch) -> None:
    """Nesting without bound, control characters in messages."""
    monkeypatch.setattr(place, without)
    found, _, _ = faults(range(count), lay_out(tmp_path / "files"), 0)
    assert found


@pytest.mark.slow
def test_many_mutants(tmp_path) -> None:
    found, valid, trained = faults(range(FIRST, FIRST + MANY), lay_out(tmp_path / "files"), max(1, MANY // 50))
    print(f"{MANY} mutants from seed {FIRST}: {valid} valid, {trained} of them trained for a step, {len(found)} faults")
    assert not found, "\n".join(found)


def test_a_mutant_is_a_function_of_its_seed(tmp_path) -> None:
    folder = lay_out(tmp_path / "files")
    path, overrides = mutant(7, folder)
    content = path.read_bytes()
    assert mutant(8, folder)[0].read_bytes() != content or mutant(8, folder)[1] != overrides
    assert mutant(7, folder) == (path, overrides)
    assert path.read_bytes() == content
