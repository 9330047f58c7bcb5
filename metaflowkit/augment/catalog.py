"""Which Kornia operations exist and what they take, read from Kornia's source without importing it."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from metaflowkit.registry import Entry, Setting, read_entry

APPLY_TO = Setting("apply_to", Literal["support", "query", "both"], "both", "which views the operation changes")


@lru_cache(maxsize=1)
def operations() -> dict[str, Entry]:
    """Every two-dimensional ``kornia.augmentation.Random*``, and ColorJitter, with its settings and ``apply_to``."""
    spec = importlib.util.find_spec("kornia")
    folder = Path(spec.origin or "").parent / "augmentation" if spec else Path()
    inherited: dict[str, Setting] = {}
    found: dict[str, Entry] = {}
    for source in [folder / "base.py", *sorted((folder / "_2d").rglob("*.py"))]:
        for statement in ast.parse(source.read_text(encoding="utf-8")).body if source.is_file() else []:
            if not isinstance(statement, ast.ClassDef):
                continue
            if statement.name == "_BasicAugmentationBase":
                inherited = read_entry(statement.name, statement, str(source)).settings
            elif statement.name.startswith(("Random", "ColorJ")):
                entry = read_entry(statement.name, statement, str(source))
                settings = {name: Setting(name, Any, s.default, s.help) for name, s in (entry.settings or inherited).items()}
                found[entry.name] = Entry(entry.name, entry.summary, {"apply_to": APPLY_TO, **settings}, entry.origin)
    return found
