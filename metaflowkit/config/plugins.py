"""Modules of one's own, which a pipeline names: the only code that a YAML file can import."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

from metaflowkit.config.introspection import locate
from metaflowkit.errors import ConfigError, MetaflowkitError


def of_plugin(component: Any, module: str) -> bool:
    """Whether a plugin brings a component: its own, one of its submodules', or one that it imports by name."""
    home = component.__module__
    if home == module or home.startswith(module + "."):
        return True
    return not home.startswith("metaflowkit.") and vars(sys.modules[module]).get(component.__name__) is component


def import_plugin(module: str) -> None:
    """Import a module that registers components.

    Raises:
        ConfigError: with the place, where it cannot be imported for whatever reason.
    """
    locate(module)
    try:
        importlib.import_module(module)
    except MetaflowkitError:
        raise
    except (Exception, SystemExit) as error:  # the module runs its own code
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
        own = [frame for frame in frames if frame.filename == str(locate(module))] or frames
        place = f"{own[-1].filename}:{own[-1].lineno}"
        if isinstance(error, SyntaxError):
            place = f"{error.filename}:{error.lineno}"
        text = " ".join(str(error).split())
        raise ConfigError(f"plugins: {module} cannot be imported, {place}: {type(error).__name__}: {text}; correct it, or install what it needs") from error
