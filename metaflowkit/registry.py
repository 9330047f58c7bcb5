"""Registries: a component's constructor signature and docstring are its schema and its help.

The static side (:meth:`Kind.entries`) reads names, settings, defaults and docstrings from source text, so that checking a
pipeline or listing components imports neither torch nor the component. The dynamic side (:meth:`Kind.build`) imports.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TypeVar

from metaflowkit import schema
from metaflowkit.errors import ConfigError
from metaflowkit.files import Node, read_python
from metaflowkit.schema import Mismatch, coerce, nearest

C = TypeVar("C", bound=Callable[..., Any])
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One keyword of a component's constructor."""

    name: str
    annotation: Any
    default: Any
    help: str


@dataclass(frozen=True)
class Entry:
    """What the source text says about a component; ``traits`` are its class-level constants."""

    name: str
    summary: str
    settings: dict[str, Setting]
    origin: str
    traits: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A component chosen by name, with every setting written out."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The YAML mapping this choice stands for."""
        return {"name": self.name, **self.settings}


@dataclass(frozen=True)
class Kind:
    """One sort of component.

    Args:
        name: as it is spoken of, such as ``backbone``.
        module: the package (or module) whose import lines list the components.
        given: constructor arguments that the builder passes and a YAML file cannot.
        reader: where entries come from when not from ``module``.
    """

    name: str
    module: str
    given: tuple[str, ...] = ()
    reader: Callable[[], dict[str, Entry]] | None = None
    classes: dict[str, Callable[..., Any]] = field(default_factory=dict, compare=False, repr=False)

    def register(self, name: str) -> Callable[[C], C]:
        """Class or function decorator that makes a component nameable in YAML."""

        def keep(component: C) -> C:
            known = self.classes.get(name)
            if known is not None and known.__module__ != component.__module__:
                raise ValueError(f"{self.name} {name!r} is registered by {known.__module__} and {component.__module__}; rename one")
            self.classes[name] = component
            return component

        return keep

    def entries(self, plugins: Sequence[str] = ()) -> dict[str, Entry]:
        """Every component of this kind by name, read from source without importing it."""
        if self.reader is not None:
            return self.reader()
        found: dict[str, Entry] = {}
        for module in (self.module, *plugins):
            for source in _sources(module):
                for kind, entry in _components(source):
                    if kind != self.name:
                        continue
                    if entry.name in found and found[entry.name].origin != entry.origin:
                        raise ConfigError(f"plugins: {self.name} {entry.name!r} of {module} exists already; rename it there")
                    settings = {s.name: s for s in entry.settings.values() if s.name not in self.given}
                    found[entry.name] = replace(entry, settings=settings)
        return found

    def build(self, choice: Choice, **given: Any) -> Any:
        """The component itself.

        Args:
            choice: name and settings.
            given: what only code can know; arguments that this component does not take are left out.

        Raises:
            ValueError: from the component, about its settings.
        """
        importlib.import_module(self.module)
        component = self.classes[choice.name]
        taken = inspect.signature(component).parameters
        return component(**{k: v for k, v in given.items() if k in taken}, **choice.settings)


def choose(node: Node, kind: Kind, path: str, plugins: Sequence[str], problems: list[str]) -> Choice | None:
    """Check a component node (``{name: ..., settings...}`` or a bare name) against its kind.

    Args:
        node: the YAML node.
        kind: what sort of component is wanted here.
        path: dotted path, for messages.
        plugins: modules that may register further components.
        problems: every problem found is appended here.

    Returns:
        The choice with defaults filled in, or None where there were problems.
    """
    entries = kind.entries(plugins)
    nodes = dict(node.value) if isinstance(node.value, dict) else {"name": node}
    named = nodes.pop("name", None)
    if named is None:
        problems.append(f"{node.mark}: {path}: has no name, got only settings; add 'name:', one of {', '.join(entries)}")
        return None
    if not isinstance(named.value, str) or named.value not in entries:
        problems.append(f"{named.mark}: {path}: there is no {kind.name} {named.shown()}; {nearest(str(named.plain()), entries)}")
        return None
    entry = entries[named.value]
    before = len(problems)
    values: dict[str, Any] = {}
    for key, child in nodes.items():
        if key not in entry.settings:
            hint = nearest(key, entry.settings) if entry.settings else "it takes no settings"
            problems.append(f"{child.key or child.mark}: {path}.{key}: {kind.name} {entry.name!r} has no such setting; {hint}")
            continue
        try:
            values[key] = coerce(child, entry.settings[key].annotation, f"{path}.{key}")
        except Mismatch as mismatch:
            problems.append(f"{mismatch.node.mark}: {mismatch.path}: {mismatch.message}")
    for key, setting in entry.settings.items():
        if key not in nodes and setting.default is REQUIRED:
            problems.append(f"{node.mark}: {path}.{key}: is missing and has no default; add it ({schema.describe(setting.annotation)})")
    if len(problems) > before:
        return None
    settings = {key: values.get(key, s.default) for key, s in entry.settings.items() if key in values or kind.reader is None}
    return Choice(entry.name, settings)


def _sources(module: str) -> Iterator[Path]:
    """The source file of a module, then those of the modules that it imports from its own package."""
    path = locate(module)
    yield path
    for statement in read_python(path).body:
        if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.startswith(module + "."):
            yield locate(statement.module)


def locate(module: str) -> Path:
    """The source file of a module, found without importing it (its parent packages are looked up the same way).

    Raises:
        ConfigError: there is no such module, or it has no Python source.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    top, *below = module.split(".")
    named = module != "__main__" and all(part.isidentifier() for part in (top, *below))
    spec = importlib.util.find_spec(top) if named else None
    name = top
    for part in below:
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec and spec.submodule_search_locations else None
    if spec is None:
        raise ConfigError(f"plugins: there is no module {module!r}; install it or run from the folder that holds it")
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise ConfigError(f"plugins: module {module!r} has no Python source to read; name the module that holds the component")
    return Path(spec.origin)


_NAMES: dict[str, Any] = {**vars(typing), **vars(schema), **{t.__name__: t for t in (int, float, bool, str, list, dict, tuple)}}


@cache
def _components(source: Path) -> tuple[tuple[str, Entry], ...]:
    """(kind name, entry) of every ``@KIND.register("name")`` at the top level of a source file."""
    found = []
    for statement in read_python(source).body:
        if not isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            continue
        for decorator in statement.decorator_list:
            match decorator:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=variable), attr="register"), args=[ast.Constant(value=str(name))]):
                    kind = next((kind.name for known, kind in KINDS.items() if known == variable), None)
                    if kind is not None:
                        found.append((kind, read_entry(name, statement, str(source))))
    return tuple(found)


def read_entry(name: str, statement: ast.ClassDef | ast.FunctionDef, origin: str) -> Entry:
    """The entry of one class or function definition; see :class:`Entry`."""
    if isinstance(statement, ast.ClassDef):
        inits = [s for s in statement.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"]
        arguments = inits[0].args if inits else None
    else:
        arguments = statement.args
    doc = ast.get_docstring(statement) or ""
    helps = argument_docs(doc)
    settings: dict[str, Setting] = {}
    if arguments is not None:
        positional = [a for a in arguments.args if a.arg != "self"]
        defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
        for argument, default in [*zip(positional, defaults), *zip(arguments.kwonlyargs, arguments.kw_defaults)]:
            settings[argument.arg] = Setting(
                argument.arg,
                _annotation(argument.annotation, origin),
                REQUIRED if default is None else _literal(default),
                helps.get(argument.arg, ""),
            )
    traits = {
        target.id: _literal(line.value)
        for line in (statement.body if isinstance(statement, ast.ClassDef) else [])
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }
    return Entry(name, doc.split("\n\n")[0].replace("\n", " "), settings, origin, traits)


def _annotation(node: ast.expr | None, place: str) -> Any:
    """The annotation's value where it is made of known names; Any where it is not (an argument given by the builder)."""
    if node is None:
        return Any
    try:
        return eval(compile(ast.Expression(node), place, "eval"), {"__builtins__": {}}, _NAMES)
    except (NameError, AttributeError, TypeError):
        return Any


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def argument_docs(doc: str) -> dict[str, str]:
    """The lines of a Google docstring's ``Args:`` section by argument name."""
    _, found, section = doc.partition("Args:\n")
    helps: dict[str, str] = {}
    current = ""
    for line in section.splitlines() if found else []:
        if line and not line.startswith("    "):
            break
        if line.startswith("    ") and not line.startswith("     ") and ":" in line:
            current, _, text = line.strip().partition(":")
            helps[current] = text.strip()
        elif current:
            helps[current] += " " + line.strip()
    return {name: text.strip() for name, text in helps.items()}


def _augmentations() -> dict[str, Entry]:
    from metaflowkit.augment.catalog import operations

    return operations()


DATASETS = Kind("dataset", "metaflowkit.datasets")
AUGMENTATIONS = Kind("augmentation", "metaflowkit.augment", reader=_augmentations)
TASKS = Kind("tasks", "metaflowkit.tasks", given=("images", "seed"))
BACKBONES = Kind("backbone", "metaflowkit.models", given=("shape",))
HEADS = Kind("head", "metaflowkit.models", given=("features", "way"))
RULES = Kind("rule", "metaflowkit.inner")
LOSSES = Kind("loss", "metaflowkit.inner")
ENGINES = Kind("engine", "metaflowkit.engines", given=("model",))
OBJECTIVES = Kind("objective", "metaflowkit.objectives")
OPTIMIZERS = Kind("optimizer", "metaflowkit.outer", given=("parameters",))
KINDS = {
    "DATASETS": DATASETS, "AUGMENTATIONS": AUGMENTATIONS, "TASKS": TASKS, "BACKBONES": BACKBONES, "HEADS": HEADS,
    "RULES": RULES, "LOSSES": LOSSES, "ENGINES": ENGINES, "OBJECTIVES": OBJECTIVES, "OPTIMIZERS": OPTIMIZERS,
}  # fmt: skip
