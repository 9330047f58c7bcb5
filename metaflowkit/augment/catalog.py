"""Which Kornia operations exist and what they take, read from Kornia's source without importing it."""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Optional, Union

from metaflowkit.config.introspection import REQUIRED, Entry, Setting, read_entry
from metaflowkit.config.schema import Fraction

APPLY_TO = Setting("apply_to", Literal["support", "query", "both"], "both", "which views the operation changes")


class _Row:
    """Kornia's tuples, lists and sequences are lists in YAML; their length is for Kornia to check."""

    def __class_getitem__(cls, item: Any) -> Any:
        return list[item[0] if isinstance(item, tuple) else item]  # type: ignore[misc]


_ROW = list[float]
_TYPES: dict[str, Any] = {
    **{plain.__name__: plain for plain in (bool, int, float, str)},
    **dict.fromkeys(("Tuple", "tuple", "List", "list", "Sequence"), _Row),
    **dict.fromkeys(("Resample", "SamplePadding", "BorderType", "DataKey"), str),  # enums that Kornia also takes by name
    "Union": Union, "Optional": Optional, "Tensor": _ROW, "torch.Tensor": _ROW,
}  # fmt: skip


@lru_cache(maxsize=1)
def operations() -> dict[str, Entry]:
    """Every two-dimensional ``kornia.augmentation.Random*``, and ColorJitter, with its settings and ``apply_to``."""
    spec = importlib.util.find_spec("kornia")
    folder = Path(spec.origin or "").parent / "augmentation" if spec else Path()
    inherited: dict[str, Setting] = {}
    entries: dict[str, Entry] = {}
    for source in [folder / "base.py", *sorted((folder / "_2d").rglob("*.py"))]:
        for statement in ast.parse(source.read_text(encoding="utf-8")).body if source.is_file() else []:
            if not isinstance(statement, ast.ClassDef):
                continue
            if statement.name == "_BasicAugmentationBase":
                inherited = read_entry(statement.name, statement, str(source), _TYPES).settings
            elif statement.name.startswith(("Random", "ColorJ")):
                entry = read_entry(statement.name, statement, str(source), _TYPES)
                settings = {name: _setting(s) for name, s in (entry.settings or inherited).items()}
                entries[entry.name] = Entry(entry.name, entry.summary, {"apply_to": APPLY_TO, **settings}, entry.origin)
    return entries


def _setting(setting: Setting) -> Setting:
    """A setting as YAML sees it: chances lie in 0..1, the default ``Resample.BILINEAR.name`` is ``bilinear``, and images keep their size."""
    if setting.name == "size" and setting.default is REQUIRED:
        return replace(setting, annotation=setting.annotation | None, default=None, help=f"{setting.help} null for that of the images".strip())
    annotation = Fraction if setting.name in ("p", "p_batch") and setting.annotation is float else setting.annotation
    enum = re.fullmatch(r"[A-Z]\w+\.([A-Z_]+)\.name", setting.default) if isinstance(setting.default, str) else None
    return replace(setting, annotation=annotation, default=enum[1].lower() if enum else setting.default)
