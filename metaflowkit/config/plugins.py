"""Plugins, the modules that a pipeline names: the only code that a YAML file can import."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

from metaflowkit.config.introspection import locate
from metaflowkit.errors import ConfigError, MetaflowkitError


def of_plugin(component: Any, module: str) -> bool:
    """Whether a component belongs to a plugin: it is defined in it or a submodule, or imported by name."""
    source = component.__module__
    if source == module or source.startswith(module + "."):
        return True
    return not source.startswith("metaflowkit.") and vars(sys.modules[module]).get(component.__name__) is component


def import_plugin(module: str) -> None:
    """Import a module that registers components.

    Raises:
        ConfigError: it cannot be imported, for whatever reason; with the location of the error.
    """
    locate(module)
    try:
        importlib.import_module(module)
    except MetaflowkitError:
        raise
    except (Exception, SystemExit) as error:  # the module runs its own code
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
        frame = ([frame for frame in frames if frame.filename == str(locate(module))] or frames)[-1]
        location = f"{frame.filename}:{frame.lineno}"
        if isinstance(error, SyntaxError):
            location = f"{error.filename}:{error.lineno}"
        text = " ".join(str(error).split())
        raise ConfigError(f"plugins: {module} cannot be imported, {location}: {type(error).__name__}: {text}; correct it, or install what it needs") from error
