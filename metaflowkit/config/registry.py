"""Registries: a component's constructor signature and docstring are its schema and its help.

Built-in components are read from source text (:mod:`metaflowkit.config.introspection`), so that checking a pipeline or listing
components imports neither torch nor the component. Plugins are imported and inspected (:mod:`metaflowkit.config.inspection`).
"""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from metaflowkit.config.choice import Choice, mapped
from metaflowkit.config.contract import lacks, require_member
from metaflowkit.config.inspection import constructor_parameters, inspected
from metaflowkit.config.introspection import Entry, Setting, own_sources, registrations
from metaflowkit.config.plugins import import_plugin, of_plugin
from metaflowkit.errors import ConfigError

C = TypeVar("C", bound=Callable[..., Any])

PYTHON = "python."  # prefix of the names of components that are objects from Python


@dataclass(frozen=True)
class Kind:
    """One sort of component.

    Args:
        name: for messages, such as ``backbone``.
        module: the package (or module) whose import lines list the components.
        injected: constructor arguments that the builder passes and a YAML file cannot.
        methods: that a component must have, each with its arguments, such as ``episode(step)``.
        attributes: that an instance must have, such as a backbone's number of ``features``.
        copied: whether an object from Python is copied when it is built, since it is then trained.
        remedy: what to do about a component that lacks a method or attribute.
        renamed: current names of renamed settings, by the earlier name.
        tags: class attributes that describe a component, with their defaults.
        tag_members: further methods and attributes of components in which a tag is true, by the tag.
        reader: further entries besides those of ``module``: classes of another library, which keeps their defaults.
        common: settings that every component has, which the builder reads.
    """

    name: str
    module: str
    injected: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    copied: bool = False
    remedy: str = "add it"
    renamed: Mapping[str, str] = field(default_factory=dict, hash=False)
    tags: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tag_members: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    reader: Callable[[], dict[str, Entry]] | None = None
    common: Callable[[], dict[str, Setting]] = dict
    classes: dict[str, Callable[..., Any]] = field(default_factory=dict, compare=False, repr=False)
    objects: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def register(self, name: str) -> Callable[[C], C]:
        """Class or function decorator that makes a component nameable in YAML."""

        def keep(component: C) -> C:
            existing = self.classes.get(name)
            if existing is not None and existing.__module__ != component.__module__:
                raise ValueError(f"{self.name} {name!r} is registered by {existing.__module__} and {component.__module__}; rename one")
            self.classes[name] = component
            return component

        return keep

    def name_of(self, component: Any) -> str:
        """A name for a component that is an object from Python, the same for all calls in this process."""
        for name, other in self.objects.items():
            if other is component:
                return name
        stem = f"{PYTHON}{getattr(component, '__name__', type(component).__name__)}"
        name = next(name for name in itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2))) if name not in self.objects)
        self.objects[name] = component
        return name

    def entries(self, plugins: Sequence[str] = ()) -> dict[str, Entry]:
        """Every component of this kind by name: built-in ones read from source without importing them, those of plugins imported.

        Raises:
            ConfigError: a plugin cannot be imported, or takes a name that exists.
        """
        built_in = [entry for source in own_sources(self.module) for variable, entry in registrations(source) if KINDS.get(variable) is self]
        entries = {**self.foreign(), **{entry.name: self._injected(entry) for entry in built_in}}
        entries |= {name: Entry(name, "made in Python", {}, "", {tag: getattr(c, tag, v) for tag, v in self.tags.items()}) for name, c in self.objects.items()}
        for module in plugins:
            import_plugin(module)
            for name, component in self.classes.items():
                if not of_plugin(component, module):
                    continue
                entry = inspected(name, component, self.tags)
                if name in entries and entries[name].origin != entry.origin:
                    raise ConfigError(f"plugins: {self.name} {name!r} of {module} exists already; rename it there")
                entries[name] = self._injected(entry)
        return entries

    def foreign(self) -> dict[str, Entry]:
        """The components of another library."""
        entries = self.reader() if self.reader is not None else {}
        return {name: replace(entry, tags={**self.tags, **entry.tags}) for name, entry in entries.items()}

    def _injected(self, entry: Entry) -> Entry:
        """The entry without the settings that the builder passes, and with those that it reads."""
        settings = {s.name: s for s in (*self.common().values(), *entry.settings.values()) if s.name not in self.injected}
        guards = tuple(guard for guard in entry.guards if settings.keys() >= set(guard.names))
        return replace(entry, settings=settings, guards=guards, tags={**self.tags, **entry.tags})

    def build(self, choice: Choice, **injected: Any) -> Any:
        """The component itself.

        Args:
            choice: name and settings.
            injected: arguments that the program passes; those that this component does not take are left out.

        Raises:
            ValueError: from the component, about its settings; or it lacks one of the kind's methods or attributes.
        """
        importlib.import_module(self.module)
        if choice.name in self.objects:
            return self.checked(copy.deepcopy(self.objects[choice.name]) if self.copied else self.objects[choice.name], choice.name)
        make = self.classes[choice.name]
        if abstract := sorted(getattr(make, "__abstractmethods__", ())):
            texts = [method for method in self.methods if method.partition("(")[0] in abstract]
            raise lacks(f"{self.name} {choice.name!r}", ", ".join(texts or abstract), make, self.remedy)
        parameters = {name: parameter for name, (parameter, _) in constructor_parameters(make).items()}
        settings = {key: mapped(lambda nested: self.build(nested, **injected), value) for key, value in choice.settings.items()}
        arguments = {**{k: v for k, v in injected.items() if k in parameters}, **settings}
        positional = [arguments.pop(k, p.default) for k, p in parameters.items() if p.kind is p.POSITIONAL_ONLY]
        return self.checked(make(*positional, **arguments), choice.name)

    def checked(self, component: Any, name: str) -> Any:
        """The component with the kind's tags, once it is known to have the kind's methods and attributes.

        Raises:
            ValueError: it lacks one, or a method takes other arguments.
        """
        title = f"{self.name} {name!r}"
        for member in (*self.methods, *self.attributes):
            require_member(title, component, member, self.remedy)
        self.tagged(component)
        for tag, members in self.tag_members.items():
            for member in members if getattr(component, tag) else ():
                require_member(title, component, member, self.remedy)
        return component

    def tagged(self, component: C) -> C:
        """The component, with the kind's default for every tag that it does not have: set here alone, so that a missing tag means the same everywhere."""
        for tag, default in self.tags.items():
            if not hasattr(component, tag):
                try:
                    object.__setattr__(component, tag, default)  # a frozen dataclass allows no plain assignment
                except AttributeError:
                    text = (
                        f"{type(component).__name__} allows no further attribute, and lacks {tag}; write {tag} = {default!r} into the class, or leave out slots"
                    )
                    raise ValueError(text) from None
        return component


def _kornia() -> dict[str, Entry]:
    from metaflowkit.augment.catalog import operations

    return operations()


def _apply_to() -> dict[str, Setting]:
    from metaflowkit.augment.catalog import APPLY_TO

    return {"apply_to": APPLY_TO}


DATASETS = Kind(
    "dataset",
    "metaflowkit.datasets",
    methods=("load()",),
    remedy="add it, or write metaflowkit.image_sets(train, val, test) of torch's data sets",
    tags={"modality": "any"},
)
AUGMENTATIONS = Kind("augmentation", "metaflowkit.augment.tokens", methods=("__call__(x)",), tags={"modality": "images"}, reader=_kornia, common=_apply_to)
LEARNED_AUGMENTATIONS = Kind("learned augmentation", "metaflowkit.augment.learned", injected=("shape",), methods=("forward(x, y)",), copied=True)
TASKS = Kind(
    "tasks",
    "metaflowkit.tasks",
    injected=("images", "splits", "seed", "evaluation_seed"),
    methods=("episode(step)",),
    tags={
        "reads_data": True,
        "fixed_support": False,
        "reads_labels": True,
        "measured": False,
        "samples": False,
        "draws": None,
        "metric": "accuracy",
        "higher_is_better": True,
        "percent": True,
    },
    tag_members={
        "measured": ("held_out(split, index, count, shot)", "measure(call, task)", "criterion", "shape", "outputs"),
        "samples": ("sample(call, batch, draw)",),
    },
)
BACKBONES = Kind(
    "backbone",
    "metaflowkit.models.backbones",
    injected=("shape", "vocabulary", "pretrained"),
    methods=("forward(x)",),
    attributes=("features",),
    copied=True,
    tags={"reads": "any", "network": "", "classifier": ()},
)
ADAPTERS = Kind("adapter", "metaflowkit.models.adapters", methods=("__call__(backbone)",))
HEADS = Kind(
    "head",
    "metaflowkit.models.heads",
    injected=("features", "way"),
    methods=("forward(features, support, way)",),
    copied=True,
    tags={"reads_support": True, "fixed_way": False, "metric": "cosine"},
)
RULES = Kind(
    "rule",
    "metaflowkit.rules",
    methods=("init(params)", "update(grads, state, params)"),
    tags={"learnable": False, "native": False},
    tag_members={"learnable": ("settings",), "native": ("over(params)",)},
)
LOSSES = Kind(
    "loss",
    "metaflowkit.losses",
    injected=("criterion", "examples"),
    methods=("__call__(outputs, y)",),
    copied=True,
    tags={"needs_pairs": False, "needs_fixed_support": False},
)
ENGINES = Kind(
    "engine",
    "metaflowkit.engines",
    injected=("model", "rule"),
    methods=("outcome(learner, episode)", "adapt(learner, support, episode, read)"),
    attributes=("description", "batches", "workers"),
    tags={"takes_native": False, "calls_hooks": True},
)
ORDERS = Kind(
    "order",
    "metaflowkit.orders",
    methods=("gradient(loop, meta)",),
    tags={"unrolled": False, "exact": False, "converges": False, "second": True, "needs_proximal": False, "steps_in": None},
)
OBJECTIVES = Kind(
    "objective",
    "metaflowkit.objectives",
    injected=("outer_steps",),
    methods=("__call__(adapted, task)",),
    tags={"further_steps": 0, "needs_classes": False, "average_decay": None},
)
READOUTS = Kind("readout", "metaflowkit.evaluation.readouts", methods=("__call__(shown)",), tags={"adapts": False, "augments": False, "similarity": False})
SCHEDULES = Kind("schedule", "metaflowkit.training.schedules", injected=("steps",), methods=("__call__(step)",))
METRIC_LOGGERS = Kind("metric logger", "metaflowkit.training.metric_loggers", methods=("log(event)",))
OPTIMIZERS = Kind("optimizer", "metaflowkit.training.optimizers", injected=("parameters", "params"))  # the second is what torch's own are called with
SAMPLERS = Kind(
    "sampler",
    "metaflowkit.search.samplers",
    injected=("seed",),
    renamed={"startup": "n_startup_trials", "population": "population_size"},
    tags={"exhaustive": False},
)
PRUNERS = Kind(
    "pruner",
    "metaflowkit.search.pruners",
    injected=("outer_steps",),
    renamed={"warmup": "n_warmup_steps", "least": "min_resource", "factor": "reduction_factor", "p": "p_threshold", "startup": "n_startup_trials"},
    tags={"prunes": True, "reads_episodes": False},
)
KINDS = {
    "DATASETS": DATASETS, "AUGMENTATIONS": AUGMENTATIONS, "LEARNED_AUGMENTATIONS": LEARNED_AUGMENTATIONS, "TASKS": TASKS, "BACKBONES": BACKBONES,
    "ADAPTERS": ADAPTERS, "HEADS": HEADS,
    "RULES": RULES, "LOSSES": LOSSES, "ENGINES": ENGINES, "ORDERS": ORDERS, "OBJECTIVES": OBJECTIVES, "OPTIMIZERS": OPTIMIZERS,
    "SCHEDULES": SCHEDULES, "READOUTS": READOUTS, "METRIC_LOGGERS": METRIC_LOGGERS,
    "SAMPLERS": SAMPLERS, "PRUNERS": PRUNERS,
}  # fmt: skip
