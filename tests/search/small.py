"""A search that takes a second per trial."""

from __future__ import annotations

from pathlib import Path

from tests.small import SMALL

PIPELINE = SMALL.replace("val_episodes: 4", "val_episodes: 40, readouts: [prototype]")
SPACE = "inner.rule.lr: {low: 0.01, high: 0.5, log: true}\n  objective.delta: {low: 1, high: 6}"


def search_file(folder: Path, space: str = SPACE, more: str = "", name: str = "s.yaml") -> Path:
    """A search file beside its pipeline; the space starts on line 5."""
    (folder / "p.yaml").write_text(PIPELINE)
    path = folder / name
    path.write_text(f"# mfk search {name}\npipeline: p.yaml\n\nspace:\n  {space}\n{more}\n")
    return path
