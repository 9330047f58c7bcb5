"""What ``mfk components`` prints, held against the registries and read back as YAML."""

from __future__ import annotations

import pytest

from metaflowkit.catalog import describe_components
from metaflowkit.errors import ConfigError
from metaflowkit.files import parse_yaml
from metaflowkit.pipeline import read
from metaflowkit.registry import KINDS
from metaflowkit.schema import describe
from metaflowkit.signatures import REQUIRED

NAMES = {kind.name: kind for kind in KINDS.values()}


def test_everything_names_every_kind_and_component() -> None:
    lines = describe_components()
    for name, kind in NAMES.items():
        start = lines.index(name)
        section = lines[start + 1 : lines.index("", start)]
        assert [line.split()[0] for line in section] == list(kind.entries())
        assert section == describe_components(name)[1:]
    assert [line.split()[0] for line in lines[lines.index("level") + 1 :]] == [f"{color}{i}" for color in ("grey", "color") for i in range(1, 5)]


@pytest.mark.parametrize(("kind", "name"), [(k.name, name) for k in NAMES.values() for name in k.entries()])
def test_a_component_shows_every_setting_with_type_default_and_help(kind, name) -> None:
    entry = NAMES[kind].entries()[name]
    first, *lines = describe_components(kind, name)
    assert first == f"{kind} {name}: {entry.summary}"
    if not entry.settings:
        assert lines == ["  takes no settings"]
        return
    for setting in entry.settings.values():
        (line,) = [line for line in lines if line.startswith(f"  {setting.name}: ")]
        assert line.startswith(f"  {setting.name}: {describe(setting.annotation)}, ")
        if setting.help:
            assert lines[lines.index(line) + 1] == f"      {setting.help}"
        shown = line.removeprefix(f"  {setting.name}: {describe(setting.annotation)}, ")
        if setting.default is REQUIRED:
            assert shown == "required"
        else:
            default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
            assert parse_yaml(shown.removeprefix("default "), "f").plain() == _lists(default)


def _lists(value):
    return [_lists(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("level", [f"{color}{i}" for color in ("grey", "color") for i in range(1, 5)])
def test_a_printed_level_can_be_pasted_into_a_pipeline(write, level) -> None:
    pipeline = read(write("dataset: glyphs\n" + "\n".join(describe_components("level", level))))
    (line,) = [line for line in describe_components("level") if line.startswith(f"  {level} ")]
    assert [choice.name for choice in pipeline.augment.operations] == line.removeprefix(f"  {level}").strip().split(", ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("objectiv",), "components: there is no kind 'objectiv'; did you mean 'objective'?"),
        (("levl",), "did you mean 'level'?"),
        (("rule", "sdg"), "components: there is no rule 'sdg'; did you mean 'sgd'?"),
        (("level", "grey5"), "components: there is no level 'grey5'; use grey1 to grey4 or color1 to color4"),
        (("level", "blue1"), "there is no level 'blue1'"),
        (("level", "grey"), "there is no level 'grey'"),
        (("level", ""), "there is no level ''"),
    ],
)
def test_unknown_names(arguments, says) -> None:
    with pytest.raises(ConfigError) as caught:
        describe_components(*arguments)
    assert says in str(caught.value)
