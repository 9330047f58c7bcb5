"""What ``mfk components`` prints, held against the registries and read back as YAML."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.config.describe import describe_components
from metaflowkit.config.introspection import REQUIRED
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import KINDS
from metaflowkit.config.schema import describe
from metaflowkit.config.yaml import parse_yaml
from metaflowkit.errors import ConfigError
from metaflowkit.search.specification import read_search

NAMES = {kind.name: kind for kind in KINDS.values()}


def test_everything_names_every_kind_and_component() -> None:
    lines = describe_components()
    for name, kind in NAMES.items():
        start = lines.index(name)
        section = lines[start + 1 : lines.index("", start)]
        assert [line.split()[0] for line in section] == list(kind.entries())
        assert section == describe_components(name)[1:]
    assert [line.split()[0] for line in lines[lines.index("level") + 1 :]] == [f"{sort}{i}" for sort in ("grey", "color", "tokens") for i in range(1, 5)]


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


def keys(section: str) -> dict[str, tuple[str, str]]:
    """What is printed of each key of a section: type and default, meaning."""
    _, *lines = describe_components(section)
    assert len(lines) % 2 == 0
    return {line.split(":")[0].strip(): (line.partition(": ")[2], meaning) for line, meaning in zip(lines[::2], lines[1::2])}


@pytest.mark.parametrize("section", ["model", "inner", "outer", "evaluate"])
def test_a_section_of_a_pipeline_shows_every_key_with_its_default_and_meaning(write, section) -> None:
    written_out = read(write("dataset: glyphs\n")).plain()[section]
    shown = keys(section)
    assert list(shown) == list(written_out)
    for key, value in {**written_out, **({"shot": None} if section == "evaluate" else {})}.items():  # what follows from the tasks is written out
        line, meaning = shown[key]
        default = value["name"] if isinstance(value, dict) and "name" in value else value
        assert parse_yaml(line.partition(", default ")[2], "f").plain() == default
        assert len(meaning.strip()) > 5
        assert describe_components(section, key)[1:] == [f"  {key}: {line}", meaning]


def test_the_whole_pipeline_and_a_search_show_the_keys_that_can_be_written(write) -> None:
    assert set(keys("pipeline")) == set(read(write("dataset: glyphs\n")).plain())
    assert keys("pipeline")["dataset"] == (
        "a component (see mfk components dataset), default null",
        "      where examples come from; left out where the tasks make their own.",
    )
    assert keys("pipeline")["inner"][0] == "a section (see mfk components inner)"
    assert keys("pipeline")["augment"][0] == "a section (see mfk components augment), default {level: 3}"
    write("dataset: glyphs\n", "p.yaml")
    search = read_search(write("pipeline: p.yaml\nspace: {objective.delta: [1, 5]}\n", "s.yaml")).settings
    assert set(keys("search")) == set(vars(search))
    assert keys("search")["trials"][0] == "a whole number of at least 1, default 20"
    assert keys("search")["name"][0] == "text, default the name of the file"
    assert set(keys("limits")) == set(vars(search.limits))
    assert set(keys("final")) == set(vars(search.final))
    assert set(keys("learn")) == {"per", "per_step"}
    assert "see mfk components level" in describe_components("augment")[1]


def test_everything_names_every_section() -> None:
    lines = describe_components()
    assert lines[0] == "section"
    names = [line.split()[0] for line in lines[1 : lines.index("")]]
    assert {"pipeline", "model", "inner", "outer", "evaluate", "search"} <= set(names)
    for name in names:
        assert describe_components(name)[0] == f"{name}: {next(line for line in lines if line.startswith(f'  {name} ')).split(maxsplit=1)[1]}"


LAB = '''
from metaflowkit.config.registry import OBJECTIVES


@OBJECTIVES.register("quiet")
class Quiet:
    """Says nothing.

    Args:
        loudness: of the silence.
    """

    def __init__(self, loudness: float = 0.5) -> None:
        self.loudness = loudness
'''


@pytest.mark.parametrize("options", [["--plugin", "quiet_lab"], ["--pipeline", "p.yaml"]], ids=" ".join)
def test_components_of_a_plugin(write, tmp_path, monkeypatch, options) -> None:
    write(LAB, "quiet_lab.py")
    write("dataset: glyphs\nplugins: [quiet_lab]\n", "p.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def components(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["components", *arguments, *options], catch_exceptions=False)
        return done.exit_code, done.output

    assert components("objective", "quiet") == (0, "objective quiet: Says nothing.\n  loudness: a number, default 0.5\n      of the silence.\n")
    assert "  quiet                        Says nothing.\n" in components("objective")[1]
    assert "  quiet                        Says nothing.\n" in components()[1]
    with pytest.raises(ConfigError, match="there is no objective 'quiet'"):
        describe_components("objective", "quiet")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--plugin", "no_lab"], "plugins: there is no module 'no_lab'; install it or run from the folder that holds it"),
        (["--pipeline", "p.yaml"], "p.yaml:2:10: plugins: there is no module 'no_lab'; install it or run from the folder that holds it"),
        (["--pipeline", "q.yaml"], "q.yaml: no such file; that folder holds p.yaml"),
    ],
    ids=str,
)
def test_a_plugin_that_is_not_there(write, tmp_path, monkeypatch, options, says) -> None:
    write("dataset: glyphs\nplugins: [no_lab]\n", "p.yaml")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["components", *options])
    assert (done.exit_code, done.output.strip()) == (2, says)


@pytest.mark.parametrize("level", [f"{sort}{i}" for sort in ("grey", "color", "tokens") for i in range(1, 5)])
def test_a_printed_level_can_be_pasted_into_a_pipeline(write, level) -> None:
    texts = "clinc150\nmodel: {backbone: text}"
    pipeline = read(write(f"dataset: {texts if level.startswith('tokens') else 'glyphs'}\n" + "\n".join(describe_components("level", level))))
    (line,) = [line for line in describe_components("level") if line.startswith(f"  {level} ")]
    assert [choice.name for choice in pipeline.augment.operations] == line.removeprefix(f"  {level}").strip().split(", ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("objectiv",), "components: there is no kind or section 'objectiv'; did you mean 'objective'?"),
        (("outr",), "components: there is no kind or section 'outr'; did you mean 'outer'?"),
        (("outer", "stepz"), "components: the section 'outer' has no key 'stepz'; did you mean 'steps'?"),
        (("pipeline", "places"), "components: the section 'pipeline' has no key 'places'; "),
        (("levl",), "did you mean 'level'?"),
        (("rule", "sdg"), "components: there is no rule 'sdg'; did you mean 'sgd'?"),
        (("level", "grey5"), "components: there is no level 'grey5'; use grey1 to grey4, color1 to color4, tokens1 to tokens4"),
        (("level", "blue1"), "there is no level 'blue1'"),
        (("level", "grey"), "there is no level 'grey'"),
        (("level", ""), "there is no level ''"),
    ],
)
def test_unknown_names(arguments, says) -> None:
    with pytest.raises(ConfigError) as caught:
        describe_components(*arguments)
    assert says in str(caught.value)
