"""A component that a pipeline chooses: its name and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A component chosen by name, with every setting written out."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The YAML mapping this choice stands for."""
        return {"name": self.name, **{key: mapped(Choice.plain, value) for key, value in self.settings.items()}}

    def nested(self, path: str) -> Iterator[tuple[str, Choice]]:
        """The components in its settings, each by its path below that of this one, with those nested in them."""
        for key, value in self.settings.items():
            inside = (
                [(f"{path}.{key}", value)]
                if isinstance(value, Choice)
                else [(f"{path}.{key}.{i}", v) for i, v in enumerate(value)]
                if isinstance(value, list)
                else []
            )
            for place, choice in inside:
                if isinstance(choice, Choice):
                    yield place, choice
                    yield from choice.nested(place)


def mapped(function: Callable[[Choice], Any], value: Any) -> Any:
    """A setting with ``function(choice)`` for a component, or for each in a list of them."""
    if isinstance(value, list):
        return [mapped(function, item) for item in value]
    return function(value) if isinstance(value, Choice) else value
