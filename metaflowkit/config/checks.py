"""Conflicts between keys of a pipeline that are each valid alone."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.introspection import Setting
from metaflowkit.config.registry import Kind
from metaflowkit.config.schema import nearest
from metaflowkit.config.types import Augment, Evaluate, Pipeline, listed
from metaflowkit.config.yaml import Node
from metaflowkit.errors import key_text, quoted


def cross_checks(pipeline: Pipeline, root: Node, plugins: Sequence[str]) -> list[str]:
    """Conflicts between keys that are each valid alone."""
    problems = []
    tasks = r.TASKS.entries(plugins)[pipeline.tasks.name].tags
    loss = pipeline.inner.loss.name
    if _tags(r.LOSSES, pipeline.inner.loss, plugins)["needs_fixed_support"] and not tasks["fixed_support"]:
        names = [name for name, entry in r.TASKS.entries(plugins).items() if entry.tags["fixed_support"]]
        problems.append(
            f"{_mark(root, 'inner', 'loss')}: inner.loss: {loss!r} needs a support set that is the same at every step, and that of the tasks {pipeline.tasks.name!r} is not; "
            f"choose another, or tasks such as {', '.join(names)}"
        )
    if tasks["measured"]:
        problems += _measured_checks(pipeline, root, bool(tasks["reads_data"]), plugins)
    else:
        problems += _few_shot_checks(pipeline, root, plugins)
    problems += _inner_checks(pipeline, root, _tags(r.ORDERS, pipeline.inner.order, plugins), r.RULES.entries(plugins)[pipeline.inner.rule.name].settings)
    if not (pipeline.device in ("auto", "cpu", "cuda") or (pipeline.device.startswith("cuda:") and pipeline.device[5:].isdigit())):
        problems.append(
            f"{_mark(root, 'device')}: device: must be auto, cpu, cuda or cuda:N, got {quoted(pipeline.device)}; {_nearest_device(pipeline.device)}"
        )
    return problems


def _tags(kind: Kind, choice: Choice, plugins: Sequence[str]) -> dict[str, Any]:
    return kind.entries(plugins)[choice.name].tags


def _measured_checks(pipeline: Pipeline, root: Node, reads_data: bool, plugins: Sequence[str]) -> list[str]:
    """Keys that tasks with their own measurement do not support or never read."""
    problems, name = [], pipeline.tasks.name
    if _tags(r.HEADS, pipeline.model.head, plugins)["reads_support"]:
        problems.append(
            f"{_mark(root, 'model', 'head')}: model.head: {pipeline.model.head.name!r} reads a support set of classes, which the tasks {name!r} have not; choose another, such as linear"
        )
    entries = r.OBJECTIVES.entries(plugins)
    for path, objective in pipeline.objective.within("objective"):
        if entries[objective.name].tags["needs_classes"]:
            problems.append(
                f"{_mark(root, *path.split('.'))}: {path}: {objective.name!r} compares classes, which the tasks {name!r} have not; choose another, such as bootstrapped_kl"
            )
    if pipeline.inner.augment is not None:
        problems.append(
            f"{_mark(root, 'inner', 'augment')}: inner.augment: is of few-shot tasks, got {pipeline.inner.augment.name!r} with {name!r}; leave it out"
        )
    if pipeline.dataset is not None and not reads_data:
        problems.append(f"{_mark(root, 'dataset')}: dataset: is not read, since the tasks {name!r} make their own examples; leave it out")
    if pipeline.augment != Augment():
        problems.append(f"{_mark(root, 'augment')}: augment: is not read by the tasks {name!r}; leave it out")
    for key in ("way", "query", "readouts", "views"):
        if getattr(pipeline.evaluate, key) != getattr(Evaluate(), key):
            problems.append(
                f"{_mark(root, 'evaluate', key)}: evaluate.{key}: is of few-shot classification, and the tasks {name!r} are measured after inner steps; "
                "leave it out, and choose evaluate.shot and evaluate.steps"
            )
    for key, numbers in {"shot": pipeline.evaluate.shots(), "steps": pipeline.evaluate.steps}.items():
        if not numbers:
            problems.append(f"{_mark(root, 'evaluate', key)}: evaluate.{key}: must name at least one, got none; write such as [1, 5]")
    return problems


def _few_shot_checks(pipeline: Pipeline, root: Node, plugins: Sequence[str]) -> list[str]:
    problems = []
    if pipeline.evaluate.steps is not None:
        problems.append(
            f"{_mark(root, 'evaluate', 'steps')}: evaluate.steps: is read by tasks without classes alone, got {pipeline.evaluate.steps}; leave it out, and choose inner.steps"
        )
    problems += _modality_checks(pipeline, root, plugins)
    ways, shots = listed(pipeline.evaluate.way), pipeline.evaluate.shots()
    if not pipeline.evaluate.readouts:
        problems.append(f"{_mark(root, 'evaluate', 'readouts')}: evaluate.readouts: must name at least one, got none; write such as [prototype]")
    if 1 != len(ways) != len(shots) != 1 or not ways or not shots:
        problems.append(
            f"{_mark(root, 'evaluate', 'shot')}: evaluate.shot: must pair with evaluate.way, got {len(ways)} ways and {len(shots)} shots; give both the same length, or one number"
        )
        return problems

    needs_pairs = pipeline.inner.steps > 0 and _tags(r.LOSSES, pipeline.inner.loss, plugins)["needs_pairs"]
    shot = pipeline.tasks.settings.get("shot")
    loss = pipeline.inner.loss.name
    if needs_pairs and shot == 1:
        problems.append(
            f"{_mark(root, 'tasks', 'shot')}: tasks.shot: must be at least 2, since the loss {loss!r} compares members of a class, got 1; raise it or choose inner.loss: cross_entropy"
        )
    adapting = [choice.name for choice in pipeline.evaluate.readouts if _tags(r.READOUTS, choice, plugins)["adapts"]]
    if adapting:
        way = pipeline.tasks.settings.get("way")
        if _tags(r.HEADS, pipeline.model.head, plugins)["fixed_way"] and way is not None and any(w != way for w, _ in pipeline.evaluate.settings()):
            problems.append(
                f"{_mark(root, 'evaluate', 'way')}: evaluate.way: must be {way} as in training, since the head {pipeline.model.head.name!r} has a row per class, got {pipeline.evaluate.way}; set it, or leave {adapting[0]!r} out of evaluate.readouts"
            )
        if needs_pairs and 1 in shots and evaluation_views(pipeline, plugins) < 2:
            problems.append(
                f"{_mark(root, 'evaluate', 'views')}: evaluate.views: must be at least 2, since the loss {loss!r} compares members of a class and one shot has one, got {evaluation_views(pipeline, plugins)}; set it to 2 or more"
            )
    return problems


def _modality_checks(pipeline: Pipeline, root: Node, plugins: Sequence[str]) -> list[str]:
    """Whether the backbone and the augmentations read what the data set gives."""
    if pipeline.dataset is None:
        return []
    problems = []
    modality = _tags(r.DATASETS, pipeline.dataset, plugins)["modality"]
    reads = _tags(r.BACKBONES, pipeline.model.backbone, plugins)["reads"]
    if "any" not in (modality, reads) and reads != modality:
        names = [name for name, entry in r.BACKBONES.entries(plugins).items() if entry.tags["reads"] in ("any", modality)]
        problems.append(
            f"{_mark(root, 'model', 'backbone')}: model.backbone: {pipeline.model.backbone.name!r} reads {reads}, and the data set "
            f"{pipeline.dataset.name!r} holds {modality}; choose one of {', '.join(names)}"
        )
    for i, operation in enumerate(pipeline.augment.operations):
        changes = _tags(r.AUGMENTATIONS, operation, plugins)["modality"]
        if "any" not in (modality, changes) and changes != modality:
            problems.append(
                f"{_mark(root, 'augment')}: augment.{i}: {operation.name!r} changes {changes}, and the data set {pipeline.dataset.name!r} holds {modality}; choose another"
            )
    return problems


def _inner_checks(pipeline: Pipeline, root: Node, order: dict[str, Any], settings: dict[str, Setting]) -> list[str]:
    inner, problems = pipeline.inner, []
    key = order["steps_in"]
    if key is not None and inner.order.settings[key] > inner.steps:
        problems.append(
            f"{_mark(root, 'inner', 'order', key)}: inner.order.{key}: must be at most inner.steps, {inner.steps}, got {inner.order.settings[key]}; "
            "lower it, or choose the order exact"
        )
    if order["needs_proximal"] and not inner.proximal:
        problems.append(
            f"{_mark(root, 'inner', 'order')}: inner.proximal: must be above 0, since the order {inner.order.name!r} solves with it, got 0; set it, such as 2.0"
        )
    if inner.remat and not order["unrolled"]:
        problems.append(f"{_mark(root, 'inner', 'remat')}: inner.remat: does nothing in the order {inner.order.name!r}, which stores no steps; leave it out")
    numbers = [name for name, setting in settings.items() if get_origin(setting.annotation) is Annotated and get_args(setting.annotation)[0] is float]
    for name in inner.learn:
        where = f"{_mark(root, 'inner', 'learn', name)}: inner.learn.{key_text(name)}"
        if name not in numbers:
            problems.append(f"{where}: the rule {inner.rule.name!r} has no such number to learn; {nearest(name, numbers)}")
        elif not order["unrolled"]:
            problems.append(f"{where}: cannot be learned in the order {inner.order.name!r}, whose gradient does not go through the steps; choose exact")
        elif not inner.steps:
            problems.append(f"{where}: cannot be learned without inner steps; raise inner.steps")
        elif problem := get_args(settings[name].annotation)[1].start_problem(name, inner.rule.settings.get(name, settings[name].default)):
            problems.append(f"{where}: {problem}")
    return problems


def _nearest_device(name: str) -> str:
    """The device that was probably meant; an unknown name, such as gpu, is read as an accelerator."""
    close = difflib.get_close_matches(name.lower(), ["auto", "cpu", "cuda"], n=1, cutoff=0.75)  # gpu and cpu agree by two thirds
    return f"did you mean {close[0]!r}?" if close else "write cuda for a GPU"


def evaluation_views(pipeline: Pipeline, plugins: Sequence[str] | None = None) -> int:
    """How many augmented copies of each support image the ``adapted`` readout adapts on; see :class:`Evaluate`."""
    if pipeline.evaluate.views is not None:
        return pipeline.evaluate.views
    entry = r.TASKS.entries(pipeline.plugins if plugins is None else plugins)[pipeline.tasks.name]
    return 0 if entry.tags["reads_labels"] else int(pipeline.tasks.settings.get("shot", 1))


def _mark(root: Node, *keys: str) -> Any:
    node = root
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            break
        node = node.value[key]
    return node.mark
