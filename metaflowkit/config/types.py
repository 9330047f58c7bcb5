"""The pipeline as a value: one field per YAML key in data-flow order."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.metric import Metric
from metaflowkit.config.registry import Kind
from metaflowkit.config.schema import Examples, InnerSteps, Level, Natural, NonNegative, Positive, Range, Ways
from metaflowkit.config.yaml import to_yaml

Episodes = Annotated[int, Range(2, most=10_000_000)]
OuterSteps = Annotated[int, Range(1, most=1_000_000_000)]
Per = Literal["all", "layer", "parameter", "element"]
V = TypeVar("V")


@dataclass(frozen=True)
class Augment:
    """A level of the presets, or a list of operations (an empty list leaves images as they are).

    Attributes:
        level: how strong, 1 (mild) to 4 (strong).
        operations: Kornia's, with their settings, in their order.
    """

    level: Level | None = None
    operations: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class ModelNode:
    """What is learned: backbone and head.

    Attributes:
        backbone: the network from an image to its features.
        weights: local file of the backbone's weights, .pt, .pth or .safetensors; null to begin with random ones.
        ignore_weights: patterns of names in that file that are not read, such as ['projection.*'].
        adapter: small trainable parts put into the backbone, whose own weights are then frozen; null for none.
        head: from features, and for some heads the support set, to the scores of the classes.
        frozen: what nothing moves, neither inner nor outer steps: backbone, or patterns such as ['backbone.blocks.0']; null for nothing.
    """

    backbone: Annotated[Choice, r.BACKBONES] = Choice("conv4")
    weights: str | None = None
    ignore_weights: list[str] = field(default_factory=list)
    adapter: Annotated[Choice | None, r.ADAPTERS] = None
    head: Annotated[Choice, r.HEADS] = Choice("prototype")
    frozen: list[str] | str | None = None


@dataclass(frozen=True)
class Learn:
    """How a setting of the rule is meta-learned; a bare word stands for ``per``.

    Attributes:
        per: what has a value of its own: all of the model, each layer, each parameter tensor, or each of its elements.
        per_step: whether every inner step has its own.
    """

    per: Per = "all"
    per_step: bool = False


@dataclass(frozen=True)
class Inner:
    """How the model adapts to a task.

    Attributes:
        rule: the update of an inner step.
        loss: what the inner steps lower, on the support set.
        augment: what is done to the support set in every inner step, with strengths that the outer loop learns; null for nothing.
        steps: inner steps (K).
        engine: how the inner loop is computed; all give the same gradient.
        order: how the inner loop enters the outer gradient.
        learn: settings of the rule that are meta-learned, each with how, such as {lr: layer}.
        adapt: what the inner loop moves: head, backbone, or patterns of parameters or modules, such as ['head', 'backbone.blocks.3']; null for all.
        others: whether the outer loop learns the parameters that the inner loop leaves alone, or they are frozen.
        proximal: weight lambda of a further inner loss, lambda / 2 |w - theta|^2.
        remat: compute each inner step again in the backward pass instead of storing it.
    """

    rule: Annotated[Choice, r.RULES] = Choice("sgd")
    loss: Annotated[Choice, r.LOSSES] = Choice("contrastive")
    augment: Annotated[Choice | None, r.LEARNED_AUGMENTATIONS] = None
    steps: InnerSteps = 3
    engine: Annotated[Choice, r.ENGINES] = Choice("auto")
    order: Annotated[Choice, r.ORDERS] = Choice("exact")
    learn: dict[str, Learn] = field(default_factory=dict)
    adapt: list[str] | str | None = None
    others: Literal["shared", "frozen"] = "shared"
    proximal: NonNegative = 0.0
    remat: bool = False


@dataclass(frozen=True)
class Outer:
    """How the initialisation is improved.

    Attributes:
        optimizer: of the outer steps.
        steps: outer steps in all.
        learn: what the outer loop moves: patterns of parameters or modules, such as ['loss']; null for all. The others start every task as
            they are.
        schedule: of the optimizer's learning rate over these steps.
        reduction: how the gradients of an outer step's tasks are added: in the order of the tasks (ordered), each computed by itself and on one thread, so that a
            run is the same to the bit with every number of processes; or in any order, which is faster.
        prefetch: how many episodes another process has ready, drawn, and on a CPU augmented, while the current step computes; 0 draws each when it is
            needed. The bits are the same.
        clip: largest norm of the meta-gradient, which is scaled down above it; null for no limit.
        save_every: outer steps between two checkpoints; null saves whenever it validates.
    """

    optimizer: Annotated[Choice, r.OPTIMIZERS] = Choice("adam")
    steps: OuterSteps = 1000
    learn: list[str] | str | None = None
    schedule: Annotated[Choice, r.SCHEDULES] = Choice("cosine")
    reduction: Literal["any", "ordered"] = "any"
    prefetch: Annotated[int, Range(0, most=1000)] = 0
    clip: Positive | None = 10.0
    save_every: OuterSteps | None = None


@dataclass(frozen=True)
class Evaluate:
    """What is measured. Validation uses the first way, shot and readout.

    Attributes:
        every: outer steps between two validations.
        way: classes per episode. Where way and shot are both lists they go in pairs: way [5, 20] with shot [5, 1] is 5-way 5-shot and
            20-way 1-shot.
        shot: support examples per class, or per task where there are no classes; null for 1, or for tasks.shot where there are none.
        query: query examples per class.
        steps: numbers of inner steps after which tasks without classes are measured; null for 0 and inner.steps. Validation is after inner.steps.
        episodes: test episodes.
        val_episodes: validation episodes.
        readouts: how a query example is classified, such as by the nearest class mean, by the head after the inner steps, or by logistic regression.
        statistics: where batch normalisation stores statistics of training tasks (norm per_step): stored ones, by which an image's class does not
            depend on the other query images (inductive), those of the current set (transductive), or both, one after the other.
        views: augmented copies of each support image that the adapted readout adapts on; 0 for the images themselves, null for as
            many as tasks.shot for self-supervised tasks and 0 for labelled ones.
        seed: of the episodes.
    """

    every: OuterSteps = 100
    way: Ways | list[Ways] = 5
    shot: Examples | list[Examples] | None = None
    query: Examples = 15
    steps: list[InnerSteps] | None = None
    episodes: Episodes = 600
    val_episodes: Episodes = 200
    readouts: list[Annotated[Choice, r.READOUTS]] = field(default_factory=lambda: [Choice("prototype"), Choice("adapted")])
    statistics: Literal["stored", "current", "both"] = "stored"
    views: Annotated[int, Range(0, most=10_000)] | None = None
    seed: Natural = 0

    def settings(self) -> list[tuple[int, int]]:
        """Every (way, shot) to be measured, once."""
        ways, shots = listed(self.way), self.shots()
        if len(ways) == 1 or len(shots) == 1:
            return list(dict.fromkeys((way, shot) for way in ways for shot in shots))
        return list(dict.fromkeys(zip(ways, shots)))

    def statistics_in_turn(self) -> list[Literal["stored", "current"]]:
        """The statistics to be measured with, in turn; validation uses the first."""
        return ["stored", "current"] if self.statistics == "both" else [self.statistics]

    def shots(self) -> list[int]:
        """Every shot."""
        return [1] if self.shot is None else listed(self.shot)


@dataclass(frozen=True)
class Pipeline:
    """A whole run.

    Attributes:
        name: of the file.
        seed: weights, tasks and augmentation follow from it.
        device: auto (a GPU where there is one), cpu, cuda or cuda:N.
        precision: of the backbone's convolutions and products: float32, bf16 (their operands and results rounded to 8 bits), tf32 (a GPU's convolutions and products on operands of
            11 bits), or float64, in which everything is computed. Parameters, the rule's state, statistics, head and losses stay float32 with the first three.
        plugins: modules with components of your own.
        dataset: where examples come from; left out where the tasks make their own.
        augment: what happens to the examples of training tasks: {level: 1 to 4} or a list of operations.
        tasks: what is learned from: how training tasks are made of the examples, or a family of tasks that makes its own.
        model: what is learned.
        inner: how the model adapts to a task.
        objective: what the outer loop minimises.
        outer: how the initialisation is improved.
        evaluate: what is measured.
        loggers: further receivers of the metrics, besides the run's metrics.jsonl.
        places: the location of every key, for messages.
    """

    name: str
    dataset: Annotated[Choice | None, r.DATASETS] = None
    tasks: Annotated[Choice, r.TASKS] = Choice("views")
    seed: Natural = 0
    device: str = "auto"
    precision: Literal["float32", "bf16", "tf32", "float64"] = "float32"
    plugins: list[str] = field(default_factory=list)
    augment: Augment = Augment(level=3)
    model: ModelNode = ModelNode()
    inner: Inner = Inner()
    objective: Annotated[Choice, r.OBJECTIVES] = Choice("bootstrapped_kl")
    outer: Outer = Outer()
    evaluate: Evaluate = Evaluate()
    loggers: list[Annotated[Choice, r.METRIC_LOGGERS]] = field(default_factory=list)
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def place(self, path: str) -> str:
        """The location of a key, such as ``p.yaml:3:1: model.backbone``, for messages about problems that only building finds."""
        ancestor = path
        while ancestor and ancestor not in self.places:
            ancestor = ancestor.rpartition(".")[0]
        return f"{self.places[ancestor]}: {path}" if ancestor else path

    @property
    def metric(self) -> Metric:
        """What validation and tests measure."""
        tags = r.TASKS.entries(self.plugins)[self.tasks.name].tags
        return Metric(tags["metric"], tags["higher_is_better"], tags["percent"])

    @property
    def from_python(self) -> bool:
        """Whether a component is an object from Python, which is known in the process alone that made it."""
        return any(choice.name.startswith(r.PYTHON) for _, _, choice in choices(self))

    def plain(self) -> dict[str, Any]:
        """The YAML mapping of the whole pipeline, in data-flow order."""
        return {key: plain(getattr(self, key)) for key in KEYS}

    def to_yaml(self) -> str:
        """The resolved pipeline as YAML, which reads back to an equal pipeline."""
        return to_yaml(self.plain())


KEYS = ("seed", "device", "precision", "plugins", "dataset", "augment", "tasks", "model", "inner", "objective", "outer", "evaluate", "loggers")


def listed(value: V | list[V]) -> list[V]:
    """A value or a list of them as a list."""
    return value if isinstance(value, list) else [value]


def plain(value: Any) -> Any:
    """A section of a pipeline, or a value in one, as plain values."""
    if isinstance(value, Augment):
        return {"level": value.level} if value.level is not None else [c.plain() for c in value.operations]
    if isinstance(value, Choice):
        return value.plain()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item.name if isinstance(item, Choice) and not item.settings else plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def leaves(value: Any, path: str = "") -> dict[str, str]:
    """The leaves of nested mappings and lists as texts, by their dotted paths."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path: str(value)}
    return {key: text for name, item in items for key, text in leaves(item, f"{path}.{name}" if path else str(name)).items()}


def choices(section: Any, above: str = "") -> Iterator[tuple[str, Kind, Choice]]:
    """Every component of a section of a pipeline, by its path."""
    hints = typing.get_type_hints(type(section), include_extras=True)
    for f in dataclasses.fields(section):
        hint, value, path = hints[f.name], getattr(section, f.name), f"{above}{f.name}"
        if isinstance(value, Choice):
            yield from ((place, typing.get_args(hint)[1], choice) for place, choice in value.within(path))
        elif isinstance(value, Augment):
            yield from ((f"{path}.{i}", r.AUGMENTATIONS, choice) for i, choice in enumerate(value.operations))
        elif isinstance(value, list) and value and isinstance(value[0], Choice):
            kind = typing.get_args(typing.get_args(hint)[0])[1]
            yield from ((place, kind, choice) for i, item in enumerate(value) for place, choice in item.within(f"{path}.{i}"))
        elif dataclasses.is_dataclass(value):
            yield from choices(value, f"{path}.")
