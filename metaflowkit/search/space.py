"""Reading the space of a search file: every key, bound and choice, with the location of each problem."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from metaflowkit.config.schema import Count, Mismatch, Positive, coerce, nearest
from metaflowkit.config.yaml import Mark, Node, to_yaml
from metaflowkit.errors import key_text, quoted
from metaflowkit.search.distributions import Axis, Number, Option, Options


@dataclass
class Reader:
    """Reads the nodes of a space and collects their problems."""

    problems: list[str] = field(default_factory=list)

    def axes(self, node: Node, above: str = "", condition: str = "") -> tuple[Axis, ...]:
        """The axes of a mapping from path to values.

        Args:
            node: the mapping.
            above: the path that they stand below.
            condition: the option on which they depend, a part of their names.
        """
        if not isinstance(node.value, dict) or not node.value:
            self.problems.append(
                f"{node.mark}: space: must map paths of the pipeline to what varies, got {node.shown()}; write such as objective.delta: [1, 5]"
            )
            return ()
        axes: list[Axis] = []
        for key, child in node.value.items():
            path = f"{above}.{key}" if above else key
            try:
                axes.append(self._axis(child, path, f"{path} ({condition})" if condition else path))
            except Mismatch as mismatch:
                self.problems.append(f"{mismatch.node.mark}: {mismatch.path}: {mismatch.message}")
        return tuple(axes)

    def _axis(self, node: Node, path: str, name: str) -> Axis:
        if not all(path.split(".")):
            raise self._wrong(node, path, f"must be a dotted path of the pipeline, got {quoted(path)}; write such as inner.steps", node.key)
        if isinstance(node.value, list):
            return self._options(node, node, path, name)
        if not isinstance(node.value, dict):
            raise self._wrong(node, path, f"must be a list of choices or {{low, high}}, got {node.shown()}; write such as {{low: 1, high: 10}}")
        keys = node.value
        allowed = ("choices",) if "choices" in keys else ("type", "low", "high", "step", "log")
        for key, child in keys.items():
            if key not in allowed:
                raise self._wrong(child, f"{path}.{key}", f"is no known key; {nearest(key, allowed)}", child.key)
        return self._options(node, keys["choices"], path, name) if "choices" in keys else self._number(node, path, name)

    def _number(self, node: Node, path: str, name: str) -> Number:
        keys = node.value
        for key in ("low", "high"):
            if key not in keys:
                raise self._wrong(node, f"{path}.{key}", "is missing; give both bounds, or a list of choices")
        bounds = [keys["low"].value, keys["high"].value, keys["step"].value if "step" in keys else None]
        default_type = "int" if all(isinstance(b, int) and not isinstance(b, bool) for b in bounds if b is not None) else "float"

        def value_of(key: str, annotation: Any, default: Any) -> Any:
            return coerce(keys[key], annotation, f"space.{key_text(path)}.{key}") if key in keys else default

        kind = value_of("type", Literal["int", "float"], default_type)
        low, high = (value_of(key, int if kind == "int" else float, None) for key in ("low", "high"))
        step, log = value_of("step", Count if kind == "int" else Positive, None), value_of("log", bool, False)
        if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
            raise self._wrong(keys["high"], f"{path}.high", f"must be above low, {low:g}, got {high:g}; swap or widen them")
        if log and low <= 0:
            raise self._wrong(keys["low"], f"{path}.low", f"must be above 0 where log is true, got {low:g}; raise it, or leave log out")
        if log and step is not None:
            raise self._wrong(keys["step"], f"{path}.step", "goes without log; keep one of them")
        if step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
            raise self._wrong(keys["step"], f"{path}.step", f"must divide {high:g} - {low:g}, got {step:g}; change the step or a bound")
        return Number(name, path, kind == "int", low, high, step, log, node.key or node.mark, (keys["low"].mark, keys["high"].mark))

    def _options(self, node: Node, choices: Node, path: str, name: str) -> Options:
        if not isinstance(choices.value, list) or len(choices.value) < 2:
            raise self._wrong(choices, path, "must have at least two choices; list them, or put the one value into set")
        options: list[Option] = []
        for item in choices.value:
            option = self._option(item, path, node.key or node.mark)
            if any(option.label == other.label and type(option.label) is type(other.label) for other in options):
                raise self._wrong(item, path, f"has the choice {quoted(option.label)} twice; drop one, or give it a label of its own")
            options.append(option)
        return Options(name, path, tuple(options), node.key or node.mark)

    def _option(self, item: Node, path: str, key: Mark) -> Option:
        keys = item.value if isinstance(item.value, dict) and "value" in item.value else {"value": item}
        for part, child in keys.items():
            if part not in ("value", "label", "space"):
                raise self._wrong(child, f"{path}.{part}", f"is no known key of a choice; {nearest(part, ('value', 'label', 'space'))}", child.key)
        value = keys["value"]
        label = coerce(keys["label"], str, f"space.{key_text(path)}.label") if "label" in keys else _label(value)
        inside = self.axes(keys["space"], path, str(label)) if "space" in keys else ()
        return Option(label, Node(value.value, value.mark, key), inside)

    def _wrong(self, node: Node, path: str, message: str, mark: Mark | None = None) -> Mismatch:
        return Mismatch(Node(node.value, mark or node.mark), f"space.{key_text(path)}", message)


def _label(value: Node) -> Any:
    plain = value.plain()
    if not isinstance(plain, (dict, list)):
        return plain
    if isinstance(plain, dict) and list(plain) == ["name"]:
        return plain["name"]
    return " ".join(to_yaml(plain, width=10_000).split())
