"""The pipelines and searches that come with the package: listed with a line each, and copied to begin from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from metaflowkit.config.files import write_atomic
from metaflowkit.config.json_schema import json_schema
from metaflowkit.config.schema import nearest
from metaflowkit.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
SCHEMA = "metaflowkit.schema.json"
KINDS = {"pipelines": "run", "search": "search"}  # folders, and the command that takes their files


@dataclass(frozen=True)
class Shipped:
    """A shipped file.

    Attributes:
        name: by which ``mfk init`` copies it, such as ``quickstart`` or ``search/quickstart``.
        path: of the file.
        command: ``run`` for a pipeline, ``search`` for a search.
    """

    name: str
    path: Path
    command: str

    @property
    def summary(self) -> str:
        """The first line of its comment that is neither a command nor an override."""
        comment = (line.removeprefix("# ") for line in self.path.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
        return next((line for line in comment if not line.startswith(("mfk ", "one override to try:"))), "")


def shipped() -> dict[str, Shipped]:
    """Every shipped pipeline and search by name, pipelines first."""
    files: dict[str, Shipped] = {}
    for kind, command in KINDS.items():
        folder = _folder(kind)
        for path in sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            name = stem if kind == "pipelines" else f"{kind}/{stem}"
            files[name] = Shipped(name, path, command)
    return files


def _folder(kind: str) -> Path:
    """Where files of a kind lie: inside the package where it is installed, beside it in a checkout."""
    installed = PACKAGE / "shipped" / kind
    return installed if installed.is_dir() else PACKAGE.parent / kind


def copy_shipped(name: str, folder: Path) -> list[Path]:
    """Copy a shipped pipeline or search, for a search also its pipeline, with a first line by which editors find the schema, which is written beside it.

    Args:
        name: as :func:`shipped` lists it.
        folder: where the copies go; it is made where it is missing.

    Returns:
        The files, that of the name first, the schema last.

    Raises:
        ConfigError: there is no such file, or one would be overwritten.
        RunError: the folder cannot be written.
    """
    files = shipped()
    if name not in files:
        raise ConfigError(f"mfk init: there is no shipped pipeline or search {name!r}; {nearest(name, files)} (mfk ls says what each is)")
    chosen = files[name]
    texts = {folder / chosen.path.name: chosen.path.read_text(encoding="utf-8")}
    if chosen.command == "search":
        text = texts[folder / chosen.path.name]
        pipeline = chosen.path.parent / re.search(r"^pipeline: (\S+)$", text, re.MULTILINE)[1]  # type: ignore[index]
        stem = f"{pipeline.stem}_pipeline" if pipeline.name == chosen.path.name else pipeline.stem
        texts = {folder / chosen.path.name: re.sub(r"^pipeline: \S+$", f"pipeline: {stem}.yaml", text, flags=re.MULTILINE)}
        texts[folder / f"{stem}.yaml"] = pipeline.read_text(encoding="utf-8")
    return write_new({path: with_schema(text, path.name) for path, text in texts.items()})


def with_schema(text: str, name: str) -> str:
    """A pipeline or search with the line by which editors find its schema, and its launch line for the file of this name."""
    return f"# yaml-language-server: $schema={SCHEMA}\n" + re.sub(r"^# mfk (run|search) \S+", rf"# mfk \1 {name}", text, count=1, flags=re.MULTILINE)


def write_new(texts: dict[Path, str]) -> list[Path]:
    """Write new files, and the schema beside the first; see :func:`copy_shipped`."""
    if existing := [path for path in texts if path.exists()]:
        raise ConfigError(f"{existing[0]}: exists already; choose another folder, or remove it")
    for path, text in texts.items():
        write_atomic(path, text.encode())
    schema = next(iter(texts)).parent / SCHEMA
    write_atomic(schema, (json.dumps(json_schema(), indent=1, allow_nan=False) + "\n").encode())
    return [*texts, schema]
