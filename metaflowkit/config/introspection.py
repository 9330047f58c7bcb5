"""Entries of components, read from source text without importing it: name, settings with types and defaults, documentation."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import sys
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from metaflowkit.config import schema
from metaflowkit.config.expressions import FAILURES, evaluate
from metaflowkit.config.guards import Definition, Guard, guards_of
from metaflowkit.errors import ConfigError, quoted

REQUIRED = inspect.Parameter.empty
_NAMES: dict[str, Any] = {**vars(typing), **vars(schema), **{t.__name__: t for t in (int, float, bool, str, list, dict, tuple)}}


@dataclass(frozen=True)
class Setting:
    """One keyword of a component's constructor."""

    name: str
    annotation: Any
    default: Any
    help: str


@dataclass(frozen=True)
class Entry:
    """A component as its source text describes it.

    Attributes:
        name: as a pipeline names it.
        summary: first paragraph of its documentation.
        settings: the keywords of its constructor.
        origin: the file that it was read from.
        tags: the class-level constants of it and of the classes that it derives from.
        guards: the conditions under which its constructor refuses settings.
    """

    name: str
    summary: str
    settings: dict[str, Setting]
    origin: str
    tags: dict[str, Any] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()


def sources(module: str) -> Iterator[Path]:
    """The source file of a module, then those of the modules that it imports from its own package."""
    path = locate(module)
    yield path
    for statement in read_python(path).body:
        if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.startswith(module + "."):
            yield locate(statement.module)


@cache
def own_sources(module: str) -> tuple[Path, ...]:
    """:func:`sources` of one of this package's modules, which do not change while it runs."""
    return tuple(sources(module))


def locate(module: str) -> Path:
    """The source file of a module, found without importing it (its parent packages are looked up the same way).

    Raises:
        ConfigError: there is no such module, or it has no Python source.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    top, *submodules = module.split(".")
    valid = module != "__main__" and all(part.isidentifier() for part in (top, *submodules))
    spec = importlib.util.find_spec(top) if valid else None
    name = top
    for part in submodules:
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec and spec.submodule_search_locations else None
    if spec is None:
        raise ConfigError(f"plugins: there is no module {quoted(module)}; install it or run from the folder that holds it")
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise ConfigError(f"plugins: module {quoted(module)} has no Python source to read; name the module that holds the component")
    return Path(spec.origin)


@cache
def registrations(source: Path) -> tuple[tuple[str, Entry], ...]:
    """(variable, entry) of every ``@VARIABLE.register("name")`` at the top level of a source file."""
    entries = []
    module = read_python(source)
    constants = _constants(module)
    for statement in module.body:
        if not isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            continue
        for decorator in statement.decorator_list:
            match decorator:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=variable), attr="register"), args=[ast.Constant(value=str(name))]):
                    find = partial(_function, module=module)
                    entries.append((variable, read_entry(name, statement, str(source), tags=_tags(statement, module), constants=constants, find=find)))
    return tuple(entries)


def read_entry(
    name: str,
    statement: ast.ClassDef | ast.FunctionDef,
    origin: str,
    types: Mapping[str, Any] = _NAMES,
    tags: Mapping[str, Any] | None = None,
    constants: Mapping[str, Any] | None = None,
    find: Callable[[str], Definition | None] = lambda name: None,
) -> Entry:
    """The entry of one class or function definition.

    Args:
        name: as a pipeline names it.
        statement: the definition.
        origin: the file that it stands in.
        types: the names that its annotations may use.
        tags: see :class:`Entry`.
        constants: the names that its defaults may use; None gives defaults that cannot be read as their text.
        find: see :func:`metaflowkit.config.guards.guards_of`.

    Raises:
        ConfigError: a default cannot be read, and ``constants`` is not None.
    """
    functions = statement.body if isinstance(statement, ast.ClassDef) else [statement]
    inits = [f for f in functions if isinstance(f, ast.FunctionDef) and (f.name == "__init__" or f is statement)]
    arguments = inits[0].args if inits else None
    doc = ast.get_docstring(statement) or ""
    helps = argument_docs(doc)
    settings: dict[str, Setting] = {}
    if arguments is not None:
        positional = [a for a in arguments.args if a.arg != "self"]
        defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
        for argument, default in [*zip(positional, defaults), *zip(arguments.kwonlyargs, arguments.kw_defaults)]:
            settings[argument.arg] = Setting(
                argument.arg,
                _annotation(argument.annotation, types),
                REQUIRED if default is None else _default(default, origin, constants),
                helps.get(argument.arg, ""),
            )
    guards = guards_of(inits[0], constants, find) if inits else ()
    return Entry(name, doc.split("\n\n")[0].replace("\n", " "), settings, origin, dict(tags or {}), guards)


def _tags(statement: ast.ClassDef | ast.FunctionDef, module: ast.Module) -> dict[str, Any]:
    """The class-level constants of a class and of its bases, the nearest first, as far as their source can be found."""
    if not isinstance(statement, ast.ClassDef):
        return {}
    tags: dict[str, Any] = {}
    for base in reversed(statement.bases):
        if isinstance(base, ast.Name) and (definition := _definition(base.id, module)) is not None:
            tags |= _tags(*definition)
    for name, value in _bindings(statement.body):
        with contextlib.suppress(*FAILURES):
            tags[name] = evaluate(value, {})
    return tags


def _definition(name: str, module: ast.Module) -> tuple[ast.ClassDef | ast.FunctionDef, ast.Module] | None:
    """The class or function that a module defines or imports by this name, with the module that defines it; None where its source cannot be found."""
    for statement in module.body:
        match statement:
            case ast.ClassDef(name=defined) | ast.FunctionDef(name=defined) if defined == name:
                return statement, module
            case ast.ImportFrom(module=str(source), names=names, level=0):
                original = next((alias.name for alias in names if (alias.asname or alias.name) == name), None)
                if original is not None and source.split(".")[0] not in sys.stdlib_module_names:
                    try:
                        return _definition(original, read_python(locate(source)))
                    except ConfigError:
                        return None
    return None


def _function(name: str, module: ast.Module) -> Definition | None:
    """The function of a name that a module defines or imports, with the constants of the module that defines it."""
    definition = _definition(name, module)
    return (definition[0], _constants(definition[1])) if definition is not None and isinstance(definition[0], ast.FunctionDef) else None


def _annotation(node: ast.expr | None, types: Mapping[str, Any]) -> Any:
    """The annotation's value where it uses the names in ``types`` alone, else Any (as for an argument that the builder gives)."""
    if node is None:
        return Any
    try:
        return evaluate(node, types, {"Range": schema.Range})
    except FAILURES:
        return Any


def _constants(module: ast.Module) -> dict[str, Any]:
    """The names that a module binds once, at its top level, to values that can be read."""
    constants: dict[str, Any] = {}
    bindings = list(_bindings(module.body))
    counts = Counter(name for name, _ in bindings)
    for name, value in bindings:
        with contextlib.suppress(*FAILURES):
            if counts[name] == 1:
                constants[name] = evaluate(value, constants)
    return constants


def _bindings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of each plain assignment among statements."""
    for statement in body:
        match statement:
            case ast.Assign(targets=targets, value=value):
                yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


def _default(node: ast.expr, origin: str, constants: Mapping[str, Any] | None) -> Any:
    """The value of a default; without ``constants`` what cannot be read is given as its text.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return evaluate(node, constants or {})
    except FAILURES:
        if constants is None:
            return ast.unparse(node)
        raise ConfigError(
            f"{origin}:{node.lineno}: the default {ast.unparse(node)} cannot be read from the source; write a number, a text or a constant of that module"
        ) from None


def argument_docs(doc: str) -> dict[str, str]:
    """The lines of a Google docstring's ``Args:`` section, or of a dataclass's ``Attributes:``, by name."""
    _, heading, section = doc.partition("Args:\n" if "Args:\n" in doc else "Attributes:\n")
    helps: dict[str, str] = {}
    current = ""
    for line in section.splitlines() if heading else []:
        if line and not line.startswith("    "):
            break
        if line.startswith("    ") and not line.startswith("     ") and ":" in line:
            current, _, text = line.strip().partition(":")
            helps[current] = text.strip()
        elif current:
            helps[current] += " " + line.strip()
    return {name: text.strip() for name, text in helps.items()}


def read_python(path: Path) -> ast.Module:
    """Parse a Python source file without running it.

    Raises:
        ConfigError: it cannot be read, or is no Python.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.offset}: is no valid Python, {error.msg}; correct it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as Python ({error}); it must be UTF-8 text that you may read") from None
