"""The metric log: append-only ``metrics.jsonl``, one JSON object per line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from metaflowkit.config.files import reason
from metaflowkit.config.pipeline import read
from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import RunError


def resume_command(folder: Path) -> str:
    """The command that resumes the run of a directory, where its pipeline is stored with all overrides; a call where it has components made in Python."""
    path = folder / "pipeline.yaml"
    if path.is_file() and read(path).from_python:
        return f"metaflowkit.train(pipeline, {str(folder)!r}, resume=True) in Python, where the pipeline was made"
    return f"mfk run --run-dir {shlex.quote(str(folder))} --resume"


class MetricLog:
    """Metrics of a run in the order of its steps.

    Lines hold no clock times, so that a resumed run and an uninterrupted one write the same bytes.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, **metrics: Any) -> None:
        """Append one line.

        Raises:
            RunError: the disk is full or the file cannot be written.
        """
        try:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps({"step": step, **metrics}) + "\n")
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({reason(error)}); free space, then go on with {resume_command(self.path.parent)}") from None

    def read(self) -> list[dict[str, Any]]:
        """Every whole line; an incomplete last line, from a crash, is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def rewind(self, length: int) -> None:
        """Forget what was written after the file had ``length`` bytes."""
        content = self.path.read_bytes() if self.path.exists() else b""
        if len(content) != length:
            write_atomic(self.path, content[:length])

    def length(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0
