"""The exceptions that a user may meet; any other exception is a bug and keeps its traceback."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import Any

QUOTE = 60  # characters of a value that a message shows
LINE = 1000  # characters of a message


def printable(text: str) -> str:
    """Text that is safe on a terminal: every character that is not printable (control, bidirectional, zero width, line break) is escaped.

    Example:
        >>> print(printable("a\\x1b[31m\\u202eb\\n"))
        a\\x1b[31m\\u202eb\\n
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: Any) -> str:
    """A value as a message quotes it, on one line; of a long one the start and its length."""
    if isinstance(value, str):
        return repr(value) if len(value) <= QUOTE else f"{value[:QUOTE]!r}... ({len(value):,} characters)"
    text = printable(repr(value))
    return text if len(text) <= QUOTE else f"{text[:QUOTE]}... ({len(text):,} characters)"


def key_text(key: str) -> str:
    """A key, or a dotted path, as a message gives it: quoted where it is long or could be mistaken for a part of the message.

    Example:
        >>> key_text("inner.steps"), key_text("a: b")
        ('inner.steps', "'a: b'")
    """
    return key if len(key) <= QUOTE and re.fullmatch(r"[^\W]([\w. /+()-]*[\w)])?", key) else quoted(key)


def _line(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LINE else f"{text[: LINE // 2]} ... ({len(text) - LINE * 3 // 4:,} characters left out) ... {text[-LINE // 4 :]}"


def require_extra(module: str) -> None:
    """Refuse a component whose package, which the extra of the same name brings, is not there.

    Raises:
        ValueError: the module is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"needs {module}, which is not installed; pip install 'metaflowkit[{module}]'")


class MetaflowkitError(Exception):
    """A problem that the user can solve: where, what is wrong, what to do.

    Args:
        message: one line; what is not printable is escaped, and the middle of a very long one left out.
        details: further lines, shown indented below it and escaped in the same way.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code = 1

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__("\n".join([_line(message), *(f"  {_line(detail)}" for detail in details)]))


class ConfigError(MetaflowkitError):
    """A pipeline, an override or a command-line argument is wrong.

    Args:
        problems: one message per problem, each ``where: what is wrong, got ...; what to do``.

    Example:
        >>> print(ConfigError(["a.yaml:1:1: seed: is missing", "a.yaml:2:1: way: is missing"]))
        a.yaml:1:1: seed: is missing
        a.yaml:2:1: way: is missing
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [_line(problem) for problem in ([problems] if isinstance(problems, str) else problems)]
        Exception.__init__(self, "\n".join(self.problems))


class BrokenContract(ConfigError):
    """A component returned something that the contract of its kind excludes.

    Args:
        role: of the component, such as ``inner loss``.
        component: its name.
        text: what is wrong, got ...; what to do.
    """

    def __init__(self, role: str, component: str, text: str) -> None:
        super().__init__(f"{role}: {component} {text}")
        self.role, self.text = role, f"{component} {text}"


class DataError(MetaflowkitError):
    """Images or class lists cannot be read, or do not suffice for the requested tasks."""


class RunError(MetaflowkitError):
    """A run directory is in use, cannot be written, or is not one."""


class CheckpointError(MetaflowkitError):
    """A checkpoint cannot be read, or belongs to another pipeline."""


class DivergenceError(MetaflowkitError):
    """A value or gradient stopped being finite."""


class Interrupted(MetaflowkitError):
    """The user or the system stopped the run; it was saved first.

    Args:
        message: see :class:`MetaflowkitError`.
        signal: the name of the signal; the exit code is 128 plus the signal's number, as a shell gives it (143 for SIGTERM).
    """

    exit_code = 130

    def __init__(self, message: str, signal: str | None = None) -> None:
        super().__init__(message)
        self.exit_code = 143 if signal == "SIGTERM" else 130
