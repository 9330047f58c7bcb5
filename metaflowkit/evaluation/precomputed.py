"""Features in place of images where a frozen backbone would compute the same ones again and again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from metaflowkit import __version__
from metaflowkit.composition.flow import FewShotFlow, Flow, training_tasks
from metaflowkit.config.checks import evaluation_views
from metaflowkit.config.registry import READOUTS
from metaflowkit.datasets.cache import cached
from metaflowkit.datasets.mapped import MappedRows
from metaflowkit.engines.safety import exact_convolutions, hooked, without_dropout
from metaflowkit.evaluation.embedding import depend_on_their_set
from metaflowkit.models.normalisation import stored_norms
from metaflowkit.stages import stage
from metaflowkit.types import ExampleSet

F = TypeVar("F", bound=Flow)
BATCH = 64


def with_features(flow: F) -> F:
    """The flow on features that its backbone computes once per image, kept in the cache on disk; the same flow where they could change.

    Held-out images have the same features throughout where neither loop moves the backbone, no readout augments them, and an image's features do not depend on the
    others of its set; training images of labelled tasks where there is no augmentation either. The others are embedded whenever they are used.
    """
    if not (isinstance(flow, FewShotFlow) and is_constant(flow)):
        return flow
    held_out = not any(needs_images(flow))
    splits = {
        name: _embedded(flow, examples) if len(examples.x) and (held_out if name != "train" else not flow.stage.operations) else examples
        for name, examples in flow.splits.items()
    }
    flow.model.takes_features = True
    tasks = flow.tasks
    if tasks is not None and splits.get("train") is not flow.splits.get("train"):
        tasks = training_tasks(flow.pipeline, dict(splits))
    return dataclasses.replace(flow, splits=splits, tasks=tasks)


def needs_images(flow: FewShotFlow) -> Iterator[bool]:
    """For every readout, whether it shows the network augmented images."""
    pipeline = flow.pipeline
    entries, views = READOUTS.entries(pipeline.plugins), bool(flow.stage.operations) and evaluation_views(pipeline) > 0
    for choice in pipeline.evaluate.readouts:
        tags = entries[choice.name].tags
        yield bool(tags["augments"] or (tags["adapts"] and views))


def is_constant(flow: FewShotFlow) -> bool:
    """Whether the backbone gives an image the same features throughout a run, in whatever set it is shown."""
    learner, model = flow.learner, flow.model
    parameters = dict(model.named_parameters())
    moved = {**learner.trained(parameters), **(learner.fast(parameters) if learner.steps else {})}
    if any(name.startswith("backbone.") for name in moved) or model.augment is not None or stored_norms(model) or hooked(model) or len(flow.shape) != 3:
        return False
    if flow.pipeline.precision == "float64":  # features are kept in float32
        return False
    return not depend_on_their_set(model, flow.interface.noise(4).to(flow.device))


def _embedded(flow: FewShotFlow, examples: ExampleSet) -> ExampleSet:
    """The examples with features [n, D] in place of images."""

    def make() -> tuple[Tensor, Tensor, list[str]]:
        with stage(f"computing the features of {len(examples.x):,} images", -(-len(examples.x) // BATCH)) as advance:
            features = torch.cat(list(_in_batches(flow, examples.x, advance)))
        return features.contiguous().view(torch.uint8), torch.zeros(len(features), dtype=torch.int64), []

    backbone = flow.pipeline.model.backbone
    key: dict[str, Any] = {
        "features by": [backbone.plain(), fingerprint(flow.model.backbone.state_dict()), flow.pipeline.precision, torch.__version__, __version__],
        "of": fingerprint({"x": examples.x}),
    }
    stored, _, _ = cached(key, make, f"features of {len(examples.x)} images by the frozen backbone {backbone.name}")
    return dataclasses.replace(examples, x=stored.view(torch.float32))


@torch.no_grad()
def _in_batches(flow: FewShotFlow, x: Tensor, advance: Callable[[], None]) -> Iterator[Tensor]:
    """The features as training would compute them, by the network's own kernels."""
    for batch in torch.split(x, BATCH):
        advance()
        with exact_convolutions(), without_dropout(flow.model):
            yield flow.model.embed(flow.inputs(batch)).float().cpu()


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """A hash of names, shapes and values; of rows that are mapped from a file, what identifies the file and the rows' numbers take the place of the values."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name}{list(value.shape)}{value.dtype}".encode())
        known = value.fingerprint() if isinstance(value, MappedRows) else ""
        digest.update(known.encode() or value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
