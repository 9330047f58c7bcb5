"""Registries: what is read from source equals inspect's view of the imported classes, and plugins extend both sides."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap
import typing
from typing import Any

import pytest

from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.choosing import choose
from metaflowkit.config.introspection import REQUIRED, Setting, argument_docs
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import KINDS
from metaflowkit.config.yaml import parse_yaml
from metaflowkit.errors import ConfigError

OWN = {name: kind for name, kind in KINDS.items() if kind.reader is None}
COMPONENTS = [(kind, name) for kind in OWN.values() for name in kind.entries()]


def class_of(kind, name: str):
    __import__(kind.module)
    return kind.classes[name]


@pytest.mark.parametrize("kind", OWN.values(), ids=lambda kind: kind.name)
def test_source_and_imports_list_the_same_components(kind) -> None:
    __import__(kind.module)
    own = {name for name, component in kind.classes.items() if component.__module__.startswith("metaflowkit.")}
    assert own == set(kind.entries())
    assert own


@pytest.mark.parametrize(("kind", "name"), COMPONENTS, ids=lambda v: v if isinstance(v, str) else v.name)
def test_source_equals_signature(kind, name) -> None:
    component = class_of(kind, name)
    takes = {k: p for k, p in inspect.signature(component).parameters.items() if k not in kind.injected}
    hints = typing.get_type_hints(component.__init__ if inspect.isclass(component) else component, include_extras=True) if takes else {}
    settings = kind.entries()[name].settings
    assert list(settings) == list(takes)
    for key, setting in settings.items():
        assert setting.name == key
        assert setting.default == takes[key].default
        assert type(setting.default) is type(takes[key].default)
        assert setting.annotation == hints[key]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS, ids=lambda v: v if isinstance(v, str) else v.name)
def test_every_component_and_setting_is_explained(kind, name) -> None:
    entry = kind.entries()[name]
    assert entry.summary == " ".join(inspect.getdoc(class_of(kind, name)).split("\n\n")[0].split())
    assert entry.summary.endswith(".")
    assert [key for key, setting in entry.settings.items() if not setting.help] == []
    documented = argument_docs(inspect.getdoc(class_of(kind, name)))
    assert set(documented) <= {*entry.settings, *kind.injected}, "the docstring explains an argument that is not there"


@pytest.mark.parametrize(("kind", "name"), [c for c in COMPONENTS if c[0].injected], ids=lambda v: v if isinstance(v, str) else v.name)
def test_what_the_builder_gives_is_no_legal_key(kind, name) -> None:
    for key in kind.injected:
        problems: list[str] = []
        assert choose(parse_yaml(f"{{name: {name}, {key}: 1}}", "f"), kind, "here", (), problems) is None
        assert f"here.{key}: {kind.name} {name!r} has no such setting" in "\n".join(problems)


def test_tags_are_the_classes_own() -> None:
    for kind, name in COMPONENTS:
        for trait, value in kind.entries()[name].tags.items():
            assert getattr(class_of(kind, name), trait, kind.tags.get(trait)) == value


def test_reading_entries_imports_nothing_heavy_and_no_component() -> None:
    code = """
        import sys
        from metaflowkit.config.registry import KINDS
        assert all(kind.entries() for kind in KINDS.values())
        loaded = {name for kind in KINDS.values() if kind.reader is None for name in sys.modules if name == kind.module or name.startswith(kind.module + ".")}
        heavy = {"torch", "kornia", "higher", "numpy", "torchvision", "sklearn"} & set(sys.modules)
        assert not loaded | heavy, loaded | heavy
        assert not any(kind.classes for kind in KINDS.values())
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


# ---- checking a node


def chosen(text: str, kind=r.RULES) -> tuple[Choice | None, list[str]]:
    problems: list[str] = []
    return choose(parse_yaml(text, "f"), kind, "rule", (), problems), problems


def test_an_object_that_can_carry_no_tag_is_refused() -> None:
    class Slotted:
        __slots__ = ()

        def init(self, params): ...

        def update(self, grads, state, params): ...

    with pytest.raises(
        ValueError, match="^Slotted allows no further attribute, and lacks learnable; write learnable = False into the class, or leave out slots$"
    ):
        r.RULES.checked(Slotted(), "slotted")


def test_a_bare_name_gets_every_default() -> None:
    choice, problems = chosen("sgd")
    assert problems == []
    assert choice == Choice("sgd", {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0})
    assert choice.plain() == {"name": "sgd", "lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
    assert chosen("{name: sgd, lr: 1}")[0].settings["lr"] == 1.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{lr: 1}", ["f:1:1: rule: has no name, got only settings; add 'name:', one of adadelta, adagrad, adam"]),
        ("sdg", ["f:1:1: rule: there is no rule 'sdg'; did you mean 'sgd'?"]),
        ("{name: [sgd]}", ["f:1:8: rule: there is no rule a list;"]),
        ("3", ["f:1:1: rule: there is no rule 3;"]),
        ("{name: sgd, lrr: 1, lr: x}", ["f:1:13: rule.lrr: rule 'sgd' has no such setting; did you mean 'lr'?", "f:1:25: rule.lr: must be a number above 0, got 'x'"]),
    ],
)  # fmt: skip
def test_every_problem_of_a_node_is_named(text, says) -> None:
    choice, problems = chosen(text)
    assert choice is None
    assert len(problems) == len(says)
    for problem, start in zip(problems, says):
        assert problem.startswith(start)


def test_a_setting_without_default_is_asked_for() -> None:
    choice, problems = chosen("folder", r.DATASETS)
    assert choice is None
    assert "f:1:1: rule.root: is missing and has no default; add it (text)" in problems


# ---- plugins


PLUGIN = '''
"""A plugin."""

from __future__ import annotations

from metaflowkit.config.registry import HEADS, RULES
from metaflowkit.config.schema import Count, Positive


@RULES.register("@NAME")
class Mine:
    """Steps of fixed length.

    Args:
        length: of a step.
        every: how often.
    """

    def __init__(self, length: Positive, every: Count = 2) -> None:
        self.length, self.every = length, every

    def init(self, params):
        return {}

    def update(self, grads, state, params):
        return params, state


@HEADS.register("@NAME_head")
class MyHead:
    """Looks only."""

    reads_support = False

    def __init__(self, way: int) -> None:
        self.way = way

    def forward(self, features, support, way):
        return features
'''


def test_a_plugin_is_imported_read_and_built(plugin, write) -> None:
    name = plugin("mfk_plugin_whole", PLUGIN.replace("@NAME", "mine"))
    path = write(
        f"dataset: glyphs\nplugins: [{name}]\ninner: {{rule: {{name: mine, length: 0.5}}}}\nmodel: {{head: mine_head}}\nevaluate: {{readouts: [prototype]}}"
    )
    pipeline = read(path)
    assert pipeline.inner.rule == Choice("mine", {"length": 0.5, "every": 2})
    rule = r.RULES.build(pipeline.inner.rule)
    assert (rule.length, rule.every) == (0.5, 2)
    head = r.HEADS.build(pipeline.model.head, features=7, way=3)
    assert head.way == 3  # features is offered and not taken
    assert r.RULES.entries([name])["mine"].settings["every"].help == "how often."
    assert "mine" not in r.RULES.entries()


def test_problems_in_a_plugins_settings_are_named(plugin, write) -> None:
    name = plugin("mfk_plugin_problems", PLUGIN.replace("@NAME", "mine"))
    with pytest.raises(ConfigError) as caught:
        read(write(f"dataset: glyphs\nplugins: [{name}]\ninner: {{rule: {{name: mine, evry: 1}}}}"))
    assert "did you mean 'every'?" in str(caught.value)
    assert "inner.rule.length: is missing and has no default; add it (a number above 0)" in str(caught.value)


def test_a_plugin_cannot_take_a_known_name(plugin, write) -> None:
    name = plugin("mfk_plugin_clash", PLUGIN.replace("@NAME", "sgd"))
    with pytest.raises(ConfigError, match=rf"mfk_plugin_clash.py:10: ValueError: rule 'sgd' is registered by metaflowkit\.rules\.sgd and {name}; rename one"):
        read(write(f"dataset: glyphs\nplugins: [{name}]"))


def test_two_plugins_cannot_share_a_name(plugin) -> None:
    names = [plugin(f"mfk_plugin_{i}", PLUGIN.replace("@NAME", "mine")) for i in "ab"]
    with pytest.raises(ConfigError, match="mfk_plugin_b.py:10: ValueError: rule 'mine' is registered by mfk_plugin_a and mfk_plugin_b; rename one"):
        r.RULES.entries(names)
    assert "mine" in r.RULES.entries([names[0], names[0]])


def test_the_modules_that_a_plugin_package_imports_from_itself_count(plugin) -> None:
    plugin("mfk_parts.__init__", "from mfk_parts.part import Mine")
    plugin("mfk_parts.part", PLUGIN.replace("@NAME", "mine"))
    assert "mine" in r.RULES.entries(["mfk_parts"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mfk_no_such_plugin", "there is no module 'mfk_no_such_plugin'; install it or run from the folder that holds it"),
        ("json.nope", "there is no module 'json.nope'"),
        ("''", "there is no module ''"),
        (".x", "there is no module '.x'"),
        ("sys", "module 'sys' has no Python source to read; name the module that holds the component"),
        ("__main__", "module '__main__'"),
    ],
)
def test_a_missing_plugin_is_a_problem_with_its_place(write, monkeypatch, name, says) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as in a script
    with pytest.raises(ConfigError) as caught:
        read(write(f"dataset: glyphs\nplugins: [{name}]"))
    (problem,) = caught.value.problems
    assert "p.yaml:2:10: plugins: " in problem
    assert says in problem


def test_a_plugin_that_is_no_python_is_a_problem(plugin, write) -> None:
    name = plugin("mfk_plugin_broken", "def (")
    with pytest.raises(ConfigError, match=name):
        read(write(f"dataset: glyphs\nplugins: [{name}]"))


def test_an_annotation_of_the_plugins_own_is_any_value(plugin) -> None:
    text = PLUGIN.replace("@NAME", "mine").replace("length: Positive", "length: Mine | None")
    assert r.RULES.entries([plugin("mfk_plugin_any", text)])["mine"].settings["length"] == Setting("length", Any, REQUIRED, "of a step.")


CONTRACTS = [
    (r.TASKS, "class Mine:\n    def draw(self, step): ...", "tasks 'mine' must define episode(step), and {module}.Mine does not; add it"),
    (r.TASKS, "class Mine:\n    def episode(self): ...", "tasks 'mine' must define episode(step), and that of {module}.Mine takes (); change it"),
    (
        r.LOSSES,
        "class Mine:\n    def __call__(self, outputs): ...",
        "loss 'mine' must define __call__(outputs, y), and that of {module}.Mine takes (outputs); change it",
    ),
    (r.OBJECTIVES, "class Mine: ...", "objective 'mine' must define __call__(adapted, task), and {module}.Mine does not; add it"),
    (r.BACKBONES, "class Mine:\n    def forward(self, x): ...", "backbone 'mine' must define the attribute features, and {module}.Mine does not; add it"),
    (r.RULES, "class Mine:\n    def init(self, params): ...", "rule 'mine' must define update(grads, state, params), and {module}.Mine does not; add it"),
    (
        r.DATASETS,
        "class Mine:\n    load = 3",
        "dataset 'mine' must define load(), and {module}.Mine does not; add it, or write metaflowkit.image_sets(train, val, test) of torch's data sets",
    ),
]


@pytest.mark.parametrize(("kind", "code", "says"), CONTRACTS, ids=[says.partition(",")[0] for _, _, says in CONTRACTS])
def test_a_component_that_lacks_a_method_of_its_kind_is_refused_by_name(kind, code, says, tmp_path, monkeypatch) -> None:
    variable = next(key for key, value in r.KINDS.items() if value is kind)
    module = f"contract_{abs(hash(code))}"
    (tmp_path / f"{module}.py").write_text(f"from metaflowkit.config.registry import {variable}\n\n\n@{variable}.register('mine')\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        r.import_plugin(module)
        with pytest.raises(ValueError) as caught:
            kind.build(Choice("mine", {}))
        assert str(caught.value) == says.format(module=module)
    finally:
        kind.classes.pop("mine", None)


STRANGER = """
import dataclasses
from typing import Annotated

import torch
from metaflowkit.config.registry import LOSSES, ORDERS, RULES
from metaflowkit.config.schema import Positive, Range
from metaflowkit.orders import Exact
from metaflowkit.rules import SGD

DEFAULT = 0.5 * 2


@LOSSES.register("outside_dataclass")
@dataclasses.dataclass
class Scaled:
    '''Scaled.

    Attributes:
        factor: multiplies.
        weights: of classes.
    '''

    factor: Positive = DEFAULT
    weights: list[float] = dataclasses.field(default_factory=lambda: [1.0, 2.0])
    dtype: torch.dtype = torch.float32

    def __call__(self, outputs, y):
        return outputs.logits.mean()


@RULES.register("outside_inherited")
class Inherited(SGD):
    '''No constructor of its own.'''


@RULES.register("outside_keywords")
class Keywords(SGD):
    '''One more keyword.

    Args:
        floor: least size of a step.
    '''

    def __init__(self, floor: Annotated[float, Range(0)] = 0.0, **kwargs) -> None:
        if floor > 1:
            raise ValueError(f"floor must be at most 1, got {floor}; lower it")
        super().__init__(**kwargs)


@ORDERS.register("outside_derived")
class Derived(Exact):
    second = False
"""


def test_inherited_constructors_dataclass_fields_and_computed_defaults_of_a_plugin(plugin, write) -> None:
    name = plugin("mfk_stranger", STRANGER)
    loss = r.LOSSES.entries([name])["outside_dataclass"]
    assert {key: (s.default, s.help) for key, s in loss.settings.items()} == {"factor": (1.0, "multiplies."), "weights": ([1.0, 2.0], "of classes.")}
    own, inherited, keywords = (r.RULES.entries([name])[rule] for rule in ("sgd", "outside_inherited", "outside_keywords"))
    assert {k: (s.annotation, s.default, s.help) for k, s in inherited.settings.items()} == {
        k: (s.annotation, s.default, s.help) for k, s in own.settings.items()
    }
    assert list(keywords.settings) == ["floor", *own.settings]
    order = r.ORDERS.entries([name])["outside_derived"]
    assert order.tags == {"unrolled": True, "exact": True, "converges": False, "second": False, "needs_proximal": False, "steps_in": None}

    text = f"dataset: glyphs\nplugins: [{name}]\n"
    pipeline = read(write(text + "inner: {loss: outside_dataclass, rule: {name: outside_inherited, lr: 0.7}, order: outside_derived}"))
    assert r.RULES.build(pipeline.inner.rule).settings["lr"] == 0.7
    assert r.LOSSES.build(pipeline.inner.loss).factor == 1.0
    for settings, says in (
        ("{name: outside_inherited, lr: -1}", "inner.rule.lr: must be a number above 0, got -1"),
        ("{name: outside_inherited, nesterov: true}", "nesterov needs momentum"),
        ("{name: outside_keywords, floor: 2.0}", "floor must be at most 1, got 2.0; lower it"),
        ("{name: outside_keywords, flor: 0.5}", "did you mean 'floor'?"),
    ):
        with pytest.raises(ConfigError) as caught:
            read(write(text + f"inner: {{rule: {settings}}}"))
        assert says in str(caught.value)
