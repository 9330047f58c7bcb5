"""The one family of exceptions a user may meet; anything else is a bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Sequence


class MetaflowkitError(Exception):
    """A problem the user can act on: where, what is wrong, what to do.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code = 1


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
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(MetaflowkitError):
    """Images or class lists cannot be read, or cannot serve the tasks asked for."""


class RunError(MetaflowkitError):
    """A run directory is in use, cannot be written, or is not one."""


class CheckpointError(MetaflowkitError):
    """A checkpoint cannot be read, or belongs to another pipeline."""


class DivergenceError(MetaflowkitError):
    """A value or gradient stopped being finite."""


class Interrupted(MetaflowkitError):
    """The user or the system asked the run to stop; it was saved first."""

    exit_code = 130
