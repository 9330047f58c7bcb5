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

    def within(self, path: str) -> Iterator[tuple[str, Choice]]:
        """This component and those in its settings, each by its path, of which that of this one is given."""
        yield path, self
        for key, value in self.settings.items():
            items = [(f"{path}.{key}.{i}", item) for i, item in enumerate(value)] if isinstance(value, list) else [(f"{path}.{key}", value)]
            for place, item in items:
                if isinstance(item, Choice):
                    yield from item.within(place)


def mapped(function: Callable[[Choice], Any], value: Any) -> Any:
    """A setting with ``function(choice)`` for a component, or for each in a list of them."""
    if isinstance(value, list):
        return [mapped(function, item) for item in value]
    return function(value) if isinstance(value, Choice) else value
