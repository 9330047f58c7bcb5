"""The composition root: from a pipeline to the objects that run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast, get_args

import torch
from torch import Tensor

from metaflowkit.augment.levels import level_operations
from metaflowkit.augment.stage import Stage
from metaflowkit.composition.calibration import calibrate
from metaflowkit.composition.checks import engine_problems, matching
from metaflowkit.composition.few_shot import SupportLoss
from metaflowkit.composition.footprint import require_episodes, require_model
from metaflowkit.config import registry as r
from metaflowkit.config.registry import Choice
from metaflowkit.config.types import Pipeline
from metaflowkit.datasets.contract import check_splits
from metaflowkit.engines.base import MetaLearner
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.memory import out_of_memory
from metaflowkit.models.model import Model
from metaflowkit.models.normalisation import stored_norms
from metaflowkit.rules.higher_optimizer import HigherOptimizer
from metaflowkit.rules.learned import Learned, LearnedSettings
from metaflowkit.rules.per_tensor import PerTensor
from metaflowkit.seeding import seed_for
from metaflowkit.tasks.base import Tasks
from metaflowkit.tasks.contract import check_episode
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.types import Episode, ImageSet, Labelled

V = TypeVar("V")
CALIBRATION = 8  # batches of tasks


@dataclass(frozen=True)
class Flow:
    """A built pipeline: everything a run needs, in data-flow order.

    Attributes:
        pipeline: what it was built from.
        device: where it computes.
        shape: (C, H, W) of the images.
        splits: labelled images by split; without ``train`` where the tasks to learn from read no labels.
        tasks: outer step -> Episode of images as the data set gave them; None in a flow built for evaluation.
        stage: augmentation.
        learner: model, inner loop, objective.
        images_to_learn_from: how many the tasks draw on.
    """

    pipeline: Pipeline
    device: torch.device
    shape: tuple[int, int, int]
    splits: dict[str, ImageSet]
    tasks: Tasks | None
    stage: Stage
    learner: MetaLearner
    images_to_learn_from: int

    @property
    def model(self) -> Model:
        """Backbone and head."""
        return cast(Model, self.learner.model)

    def episode(self, step: int) -> Episode:
        """The augmented tasks of an outer step, on the device."""
        if self.tasks is None:
            raise ValueError("this flow was built for evaluation, without tasks to learn from; build it with train=True")
        support, query, way, _ = self.tasks.episode(step)
        seed = seed_for(self.pipeline.seed, "inner/train", step)
        return Episode(self._prepared(support, "support", step), self._prepared(query, "query", step), way, seed)

    def calibrate(self, start: bool = False) -> None:
        """See :func:`metaflowkit.composition.calibration.calibrate`; the tasks are of steps that no training reaches."""
        calibrate(self.learner, (self.episode(-i) for i in range(CALIBRATION)), start)

    def _prepared(self, examples: Labelled, role: str, step: int) -> Labelled:
        return Labelled(self.augmented(self.images(examples.x), role, "train", step), examples.y.to(self.device))

    def images(self, x: Tensor) -> Tensor:
        """Images [..., C, H, W], uint8 or float in 0..1, as float32 in 0..1 on the device."""
        x = x.to(self.device)
        return channels_last(x.float() / 255 if x.dtype == torch.uint8 else x.float())

    def augmented(self, x: Tensor, role: str, purpose: str, index: int) -> Tensor:
        """Float images through the augmentation stage; see :class:`metaflowkit.augment.stage.Stage`."""
        return channels_last(self.stage(x, role, purpose, index))


def channels_last(x: Tensor) -> Tensor:
    """On a CPU the same images with channels last in memory, in which convolution and pooling run two to three times faster.

    Strides are given outright: with one channel ``memory_format`` changes nothing, and the slow kernels are chosen.
    """
    if x.device.type != "cpu":
        return x
    pixels_first = x.movedim(-3, -1).contiguous()
    return pixels_first.as_strided(x.shape, (*pixels_first.stride()[:-3], 1, *pixels_first.stride()[-3:-1]))


def build(pipeline: Pipeline, train: bool = True) -> Flow:
    """Build a pipeline: load its data, make its model, connect its parts.

    The same seed gives the same weights on every device, since they are drawn on the CPU.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        train: whether there must be tasks to learn from; without, a data set of test classes alone will do.

    Raises:
        ConfigError: a component refuses its settings.
        DataError: the data cannot be read, or cannot serve these tasks.
    """
    for plugin in pipeline.plugins:
        r.import_plugin(plugin)
    device = _device(pipeline.device)
    loaded = placed(pipeline, "dataset", lambda: r.DATASETS.build(pipeline.dataset)).load()
    splits = check_splits(pipeline.dataset.name, loaded, unread=("train",) if train and not _reads_labels(pipeline) else ())
    some = next((images for images in splits.values() if len(images.x)), None)
    if some is None or (train and not ("train" in splits and len(splits["train"].x))):
        raise DataError("dataset: has no training images; give its training split a share of the classes")
    shape = (int(some.x.shape[1]), int(some.x.shape[2]), int(some.x.shape[3]))
    require_episodes(pipeline, shape, device)
    tasks, pool = None, len(splits["train"].x) if train else 0
    if train:
        _check_settings(pipeline, splits)
        tasks = _training_tasks(pipeline, splits)
        placed(pipeline, "tasks", lambda: check_episode(tasks.episode(1), shape))
    stage = Stage(operations(pipeline, shape[0]), pipeline.seed, shape)
    flow = Flow(pipeline, device, shape, splits, tasks, stage, build_learner(pipeline, shape, device), pool)
    if train:
        if not flow.learner.trained(flow.learner.meta()):
            raise ConfigError("model: has no parameter to learn, since all have requires_grad=False; leave some of them trainable")
        flow.calibrate(start=True)
    return flow


def _reads_labels(pipeline: Pipeline) -> bool:
    return bool(r.TASKS.entries(pipeline.plugins)[pipeline.tasks.name].tags["reads_labels"])


def _training_tasks(pipeline: Pipeline, splits: dict[str, ImageSet]) -> Tasks:
    """The tasks to learn from; those without labels get the images alone, and the labelled split leaves the flow."""
    reads_labels = _reads_labels(pipeline)
    if reads_labels and not splits["train"].classes:
        raise DataError(
            f"tasks: {pipeline.tasks.name!r} reads labels, and the training images have no classes; choose tasks: views, or give images in a folder per class"
        )
    pool = splits["train"] if reads_labels else splits.pop("train").unlabelled()
    tasks: Tasks = placed(pipeline, "tasks", lambda: r.TASKS.build(pipeline.tasks, images=pool, seed=pipeline.seed))
    return tasks


def build_learner(pipeline: Pipeline, shape: tuple[int, int, int], device: torch.device) -> MetaLearner:
    """The learner of a pipeline for examples of a shape, without its data.

    Raises:
        ConfigError: a component refuses its settings, or a name pattern matches no parameter.
    """
    inner = pipeline.inner

    def made(path: str, kind: r.Kind, choice: Choice, **given: Any) -> Any:
        return placed(pipeline, path, lambda: kind.build(choice, **given))

    with torch.random.fork_rng(devices=[]):
        require_model(pipeline, shape, device)
        torch.manual_seed(seed_for(pipeline.seed, "model"))
        backbone = made("model.backbone", r.BACKBONES, pipeline.model.backbone, shape=shape)
        head = made("model.head", r.HEADS, pipeline.model.head, features=backbone.features, way=pipeline.tasks.settings.get("way", 1))
    for norm in stored_norms(backbone):
        norm.set_steps(inner.steps)
    rule = made("inner.rule", r.RULES, inner.rule)
    named = dict(Model(backbone, head).named_parameters())
    adapts = _adapting(pipeline, {name: p.requires_grad for name, p in named.items()})
    learned = _learned(pipeline, rule, {name: p.shape for name, p in named.items() if name in adapts and p.requires_grad})
    model = Model(backbone, head, learned).to(device)
    learner = MetaLearner(
        model,
        rule,
        loss=SupportLoss(made("inner.loss", r.LOSSES, inner.loss)),
        objective=made("objective", r.OBJECTIVES, pipeline.objective),
        steps=inner.steps,
        engine=made("inner.engine", r.ENGINES, inner.engine, model=model, rule=rule),
        order=made("inner.order", r.ORDERS, inner.order),
        adapts=adapts,
        frozen=frozenset(named) - adapts if inner.others == "frozen" else frozenset(),
        proximal=inner.proximal,
        remat=inner.remat,
        arguments=Model.arguments,
    )
    if problems := engine_problems(learner):
        raise ConfigError([f"{pipeline.place('inner.engine')}: {problem}" for problem in problems])
    if isinstance(rule, HigherOptimizer):
        placed(pipeline, "inner.rule", lambda: rule.over(list(model.parameters())))
    return learner


def _adapting(pipeline: Pipeline, trained: dict[str, bool]) -> frozenset[str]:
    """The parameters that the patterns of ``inner.adapt`` match; all of them without patterns.

    Args:
        pipeline: the pipeline.
        trained: for each parameter of the model by name, whether it requires a gradient.

    Raises:
        ConfigError: a pattern matches nothing, or inner steps would move nothing.
    """
    names, patterns = list(trained), pipeline.inner.adapt
    adapts = frozenset(names)
    if patterns is not None:
        adapts = matching(names, patterns, lambda i: pipeline.place(f"inner.adapt.{i}"))
        if not adapts:
            raise ConfigError(f"{pipeline.place('inner.adapt')}: must name at least one pattern, got none; write such as ['head.*'], or null for all")
    if pipeline.inner.steps and not any(trained[name] for name in adapts):
        raise ConfigError(
            f"{pipeline.place('inner.adapt')}: the inner steps move nothing, since every parameter that it names has requires_grad=False, "
            f"got {patterns or 'all'}; name others, leave some of them trainable, or set inner.steps: 0"
        )
    return adapts


def _learned(pipeline: Pipeline, rule: Any, shapes: dict[str, torch.Size]) -> LearnedSettings | None:
    """What is learned of the rule."""
    inner = pipeline.inner
    if not inner.learn:
        return None
    place = "inner.learn"
    if not isinstance(rule, PerTensor):
        raise ConfigError(f"{pipeline.place(place)}: the rule {inner.rule.name!r} has no settings that can be learned; derive it from PerTensor")
    settings = r.RULES.entries(pipeline.plugins)[inner.rule.name].settings
    learned = [Learned(key, rule.settings[key], get_args(settings[key].annotation)[1], how.per, how.per_step) for key, how in inner.learn.items()]
    return placed(pipeline, place, lambda: LearnedSettings(learned, shapes, inner.steps))


def operations(pipeline: Pipeline, channels: int) -> list[Choice]:
    """The augmentation operations: those listed, or those of the level for these images."""
    if pipeline.augment.level is None:
        return list(pipeline.augment.operations)
    nodes = level_operations(pipeline.augment.level, channels)
    return [Choice(node.pop("name"), node) for node in nodes]


def _check_settings(pipeline: Pipeline, splits: dict[str, ImageSet]) -> None:
    """Every episode that will be measured can be drawn, so that a run does not fail at its end."""
    for split in ("val", "test"):
        for way, shot in pipeline.evaluate.settings():
            if split in splits and len(splits[split].classes):
                try:
                    LabelledTasks(splits[split], 0, way, shot, pipeline.evaluate.query)
                except DataError as error:
                    raise DataError(f"evaluate on split {split!r}: {error}") from None


def placed(pipeline: Pipeline, path: str, make: Callable[[], V]) -> V:
    """Run a constructor and put the place in the pipeline before what it complains of."""
    try:
        return make()
    except ValueError as error:
        raise ConfigError(f"{pipeline.place(path)}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ConfigError(f"{pipeline.place(path)}: needs more memory than can be had ({str(error).splitlines()[0]}); make it smaller") from None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device: torch sees no GPU, got {name!r}; use device=cpu or auto")
    return torch.device(name)
