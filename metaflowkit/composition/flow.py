"""The composition root: from a pipeline to the objects that run it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from metaflowkit.augment.stage import Stage
from metaflowkit.composition.augmentation import operations
from metaflowkit.composition.calibration import CALIBRATION, calibrate
from metaflowkit.composition.device import chosen_device
from metaflowkit.composition.footprint import require_episodes
from metaflowkit.composition.inputs import as_inputs, channels_last
from metaflowkit.composition.learner import Interface, build_learner, placed
from metaflowkit.config import registry as r
from metaflowkit.config.plugins import import_plugin
from metaflowkit.config.types import Pipeline
from metaflowkit.datasets.contract import check_splits
from metaflowkit.datasets.shapes import as_shape
from metaflowkit.distributed.world import ALONE, World
from metaflowkit.engines.base import MetaLearner
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.models.model import Model
from metaflowkit.objectives.base import Objective
from metaflowkit.seeding import seed_for
from metaflowkit.tasks.base import MeasuredTasks, Tasks
from metaflowkit.tasks.contract import check_episode, check_measured
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.trees import tensors, tree_map
from metaflowkit.types import Episode, ExampleSet, ImageSet, Labelled, task_count


@dataclass(frozen=True)
class Flow:
    """A built pipeline: everything a run needs.

    Attributes:
        pipeline: what it was built from.
        device: where it computes.
        interface: what the tasks require of the learner.
        learner: model, inner loop, objective.
        tasks: outer step -> Episode; None in a few-shot flow that was built for evaluation.
        splits: examples with their classes by split; none where the tasks make their own, and without ``train`` where they read no labels.
        world: the processes that share the tasks to learn from and to measure on.
    """

    pipeline: Pipeline
    device: torch.device
    interface: Interface
    learner: MetaLearner
    tasks: Tasks | None
    splits: dict[str, ExampleSet] = field(default_factory=dict)
    world: World = field(default=ALONE, kw_only=True)

    @property
    def model(self) -> Model:
        """Backbone and head, and what is learned beside them."""
        return cast(Model, self.learner.model)

    @property
    def unit(self) -> str:
        """What :meth:`examples_in` counts."""
        return "examples" if self.interface.sample is None else "tasks"

    @property
    def measured(self) -> bool:
        """Whether the tasks define their own measurement; otherwise it is few-shot accuracy."""
        return not self.interface.few_shot

    def episode(self, step: int) -> Episode:
        """The tasks of an outer step, as the learner is given them, on the device."""
        return self.prepared(self.drawn(step), step)

    def drawn(self, step: int) -> Episode:
        """The tasks of an outer step, before augmentation."""
        if self.tasks is None:
            raise ValueError("this flow was built for evaluation, without tasks to learn from; build it with train=True")
        return self.tasks.episode(step)

    def prepared(self, episode: Episode, step: int) -> Episode:
        """Drawn tasks as the learner is given them, on the device."""
        seed = seed_for(self.pipeline.seed, "inner/train", step)
        return Episode(self._prepared(episode.support, "support", step), self._prepared(episode.query, "query", step), episode.way, seed, step)

    def calibrate(self, start: bool = False) -> None:
        """Compute the statistics that normalisation layers store, from tasks of steps that no training reaches."""
        calibrate(self.learner, (self.episode(-i) for i in range(CALIBRATION)), start)

    def untrained(self) -> dict[str, Any]:
        """The weights before the first outer step, as a state dict."""
        return build_learner(self.pipeline, self.interface, self.device).model.state_dict()

    def examples_in(self, episode: Episode) -> int:
        """How many examples an outer step reads, support and query together; tasks, where examples are drawn with the current parameters."""
        if self.interface.sample is not None:
            return task_count(episode)
        return sum(math.prod(tensors(examples)[0].shape[:2]) for examples in (episode.support, episode.query))

    def has(self, split: str) -> bool:
        """Whether anything can be measured on a split."""
        return self.measured and split != "train"

    def description(self) -> str:
        """The training data, in words."""
        return f"tasks {self.pipeline.tasks.name}"

    def _prepared(self, examples: Any, role: str, step: int) -> Any:
        return self.placed(examples)

    def placed(self, examples: Any) -> Any:
        """Nested tensors on the device, numbers in the precision of the pipeline's parameters."""
        double = self.pipeline.precision == "float64"
        return tree_map(lambda x: x.to(self.device, torch.float64 if double and x.is_floating_point() else x.dtype), examples)


@dataclass(frozen=True)
class FewShotFlow(Flow):
    """A flow of few-shot classification on the examples of a data set.

    Attributes:
        stage: augmentation.
        pool: how many examples the tasks draw on.
    """

    stage: Stage = field(kw_only=True)
    pool: int = field(kw_only=True)

    @property
    def unit(self) -> str:
        """What the examples are: images, texts or other examples."""
        modality = next(iter(self.splits.values())).modality if self.splits else ""
        return {"images": "images", "tokens": "texts"}.get(modality, "examples")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an example, such as (C, H, W)."""
        return self.interface.shape

    def has(self, split: str) -> bool:
        """Whether the split holds examples with classes."""
        return split in self.splits and bool(len(self.splits[split].classes))

    def description(self) -> str:
        """The number of training examples, and of classes in each split."""
        counts = ", ".join(f"{name} {len(examples.classes)} classes" for name, examples in self.splits.items())
        return f"{self.pool} training {self.unit}, {counts}"

    def inputs(self, x: Tensor) -> Tensor:
        """Examples as the model reads them, on the device: images, uint8 or float in 0..1, as floats in 0..1; tokens as they are."""
        return self.placed(as_inputs(x.to(self.device)))  # type: ignore[no-any-return]

    def augmented(self, x: Tensor, role: str, purpose: str, index: int) -> Tensor:
        """Inputs through the augmentation stage; see :class:`metaflowkit.augment.stage.Stage`."""
        return channels_last(self.stage(x, role, purpose, index))

    def _prepared(self, examples: Labelled, role: str, step: int) -> Labelled:
        return Labelled(self.augmented(self.inputs(examples.x), role, "train", step), examples.y.to(self.device))


def build(pipeline: Pipeline, train: bool = True, shape: tuple[int, ...] | None = None, weights: bool = True, world: World = ALONE) -> Flow:
    """Build a pipeline: load its data, build its model, connect its parts.

    The same seed gives the same weights on every device, since they are drawn on the CPU.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        train: whether training tasks are built; without, a data set of test classes alone suffices.
        shape: (C, H, W) that images are converted to; None for the data set's own.
        weights: whether the file ``model.weights`` is read; not, where a checkpoint is loaded afterwards.
        world: the processes that build it, each for itself.

    Raises:
        ConfigError: a component refuses its settings.
        DataError: the data cannot be read, or cannot serve these tasks.
    """
    for plugin in pipeline.plugins:
        import_plugin(plugin)
    device = chosen_device(pipeline, world)
    splits = {} if pipeline.dataset is None else world.one_by_machine(lambda: _loaded(pipeline, train))
    flow = _measured(pipeline, device, splits, weights) if _tags(pipeline)["measured"] else _few_shot(pipeline, device, splits, train, shape, weights)
    flow = replace(flow, world=world)
    if train:
        if not flow.learner.trained(flow.learner.meta()):
            raise ConfigError("model: has no parameter to learn, since all have requires_grad=False; leave some of them trainable")
        flow.calibrate(start=True)
    return flow


def _tags(pipeline: Pipeline) -> Mapping[str, Any]:
    return r.TASKS.entries(pipeline.plugins)[pipeline.tasks.name].tags


def _measured(pipeline: Pipeline, device: torch.device, splits: dict[str, ExampleSet], weights: bool) -> Flow:
    """The flow of tasks that define their own measurement."""
    injected = {"splits": splits, "images": splits.get("train"), "seed": pipeline.seed, "evaluation_seed": pipeline.evaluate.seed}
    tasks: MeasuredTasks = placed(pipeline, "tasks", lambda: r.TASKS.build(pipeline.tasks, **injected))
    examples = placed(pipeline, "tasks", lambda: check_measured(tasks))
    sample = tasks.sample if tasks.samples else None
    interface = Interface(tuple(tasks.shape), tasks.outputs, 0, examples, tasks.criterion, False, sample)
    learner = build_learner(pipeline, interface, device, weights)
    _check_draws(pipeline, tasks, learner)
    return Flow(pipeline, device, interface, learner, tasks, splits)


def _check_draws(pipeline: Pipeline, tasks: MeasuredTasks, learner: MetaLearner) -> None:
    """The tasks have a draw for every inner step of a student, of its target and of a measurement."""
    steps = max(learner.steps + cast(Objective, learner.objective).further_steps, *(pipeline.evaluate.steps or [0]))
    if tasks.samples and tasks.draws is not None and tasks.draws < steps:
        raise ConfigError(
            f"{pipeline.place('tasks')}: draws must be at least {steps}, since so many inner steps are taken, got {tasks.draws}; raise tasks.draws"
        )


def build_without_data(pipeline: Pipeline, shape: tuple[int, ...]) -> FewShotFlow:
    """A few-shot flow for images that are no data set, such as those of a file or of one-shot runs: model, head and augmentation, no split.

    The weights are to be loaded from a checkpoint; the file ``model.weights`` is not read.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        shape: (C, H, W) of the images.

    Raises:
        ConfigError: the pipeline is not one of few-shot classification of images, or a component refuses its settings.
    """
    for plugin in pipeline.plugins:
        import_plugin(plugin)
    if _tags(pipeline)["measured"] or len(shape) != 3:
        raise ConfigError(f"tasks: {pipeline.tasks.name!r} with examples of shape {'x'.join(map(str, shape))} classify no images; take a run that does")
    device, sample = chosen_device(pipeline), ImageSet(torch.zeros(2, *shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), ())
    interface = Interface(shape, int(pipeline.tasks.settings.get("way", 1)))
    stage = Stage(operations(pipeline, sample), pipeline.seed, as_inputs(sample.x))
    return FewShotFlow(pipeline, device, interface, build_learner(pipeline, interface, device, weights=False), None, {}, stage=stage, pool=0)


def _few_shot(
    pipeline: Pipeline, device: torch.device, splits: dict[str, ExampleSet], train: bool, as_images: tuple[int, ...] | None, weights: bool
) -> FewShotFlow:
    """The flow of few-shot classification."""
    if as_images is not None:
        splits = {name: as_shape(examples, as_images) for name, examples in splits.items()}
    sample = next((examples for examples in splits.values() if len(examples.x)), None)
    if sample is None or (train and not ("train" in splits and len(splits["train"].x))):
        raise DataError("dataset: has no training images; give its training split a share of the classes")
    shape = tuple(sample.x.shape[1:])
    require_episodes(pipeline, shape, device)
    tasks, pool, support, way = None, len(splits["train"].x) if train else 0, 0, int(pipeline.tasks.settings.get("way", 1))
    if train:
        _check_settings(pipeline, splits)
        tasks = training_tasks(pipeline, splits)
        first = placed(pipeline, "tasks", lambda: tasks.episode(1))
        support = placed(pipeline, "tasks", lambda: check_episode(first, shape))
        way = first.way
    stage = Stage(operations(pipeline, sample), pipeline.seed, as_inputs(sample.x[:2].expand(2, *shape)))
    interface = Interface(shape, way, getattr(sample, "vocabulary", 0), support)
    return FewShotFlow(pipeline, device, interface, build_learner(pipeline, interface, device, weights), tasks, splits, stage=stage, pool=pool)


def _loaded(pipeline: Pipeline, train: bool) -> dict[str, ExampleSet]:
    choice, tags = pipeline.dataset, _tags(pipeline)
    assert choice is not None, "checked when the pipeline is read"
    unread = ("train",) if train and not tags["measured"] and not tags["reads_labels"] else ()
    return check_splits(choice.name, placed(pipeline, "dataset", lambda: r.DATASETS.build(choice)).load(), unread=unread)


def training_tasks(pipeline: Pipeline, splits: dict[str, ExampleSet]) -> Tasks:
    """The training tasks; those that read no labels are given the examples alone, and the labelled split is removed from the flow."""
    reads_labels = _tags(pipeline)["reads_labels"]
    if reads_labels and not splits["train"].classes:
        raise DataError(
            f"tasks: {pipeline.tasks.name!r} reads labels, and the training images have no classes; choose tasks: views, or give images in a folder per class"
        )
    pool = splits["train"] if reads_labels else splits.pop("train").unlabelled()
    tasks: Tasks = placed(pipeline, "tasks", lambda: r.TASKS.build(pipeline.tasks, images=pool, seed=pipeline.seed))
    return tasks


def _check_settings(pipeline: Pipeline, splits: dict[str, ExampleSet]) -> None:
    """Every episode that will be measured can be drawn, so that a run does not fail at its end."""
    for split in ("val", "test"):
        for way, shot in pipeline.evaluate.settings():
            if split in splits and len(splits[split].classes):
                try:
                    LabelledTasks(splits[split], 0, way, shot, pipeline.evaluate.query)
                except DataError as error:
                    raise DataError(f"evaluate on split {split!r}: {error}") from None
