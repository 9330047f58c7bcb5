"""Which statistics the images of a set share when features are computed: read from the modules of the model, and checked on noise."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from metaflowkit.composition.learner import Interface
from metaflowkit.evaluation.embedding import embed
from metaflowkit.models.model import Model
from metaflowkit.models.normalisation import StoredNorm
from metaflowkit.seeding import seeded

CURRENT = "the statistics of the current set"
RUNNING = "the running statistics it was built with"
PER_STEP = "statistics of training tasks, a set for every number of inner steps"
FROZEN = "statistics of training tasks under the untrained weights"
IMAGES = 4  # whose features are compared, beside as many others
CHANGE = 1e-4  # relative; far above rounding in float32, far below what batch statistics do


def normalisation(model: Model, interface: Interface) -> str:
    """Which statistics normalise, and whether an image's features depend on the other images of its set (transductive) or not (inductive).

    Args:
        model: in the modes that its modules are in.
        interface: gives the noise on which it is tried.
    """
    kinds = list(dict.fromkeys(kind for kind in map(_kind, model.modules()) if kind))
    transductive = CURRENT in kinds or depends_on_others(model, interface)
    phrases = ["batch normalisation uses " + ", in other layers ".join(kinds)] if kinds else []
    if transductive and CURRENT not in kinds:
        phrases.append("an image's features depend on the other images of its set")
    if not transductive and not kinds:
        phrases.append("no statistics are shared between images")
    return f"{'; '.join(phrases)} ({'transductive' if transductive else 'inductive'})"


def _kind(module: nn.Module) -> str | None:
    if isinstance(module, StoredNorm):
        return FROZEN if module.frozen else PER_STEP
    if not isinstance(module, _BatchNorm):
        return None
    return CURRENT if module.training or module.running_mean is None else RUNNING


def depends_on_others(model: Model, interface: Interface) -> bool:
    """Whether the features of the same images change with the others of their set, tried on noise, and so valid for any module."""
    first = next(iter(model.parameters()))
    noise = interface.noise(3, IMAGES).to(first.device)
    noise = noise.to(first.dtype) if noise.is_floating_point() else noise
    scaled = 0.2 * noise[2] if noise.is_floating_point() else noise[2]
    sets = torch.stack([torch.cat([noise[0], noise[1]]), torch.cat([noise[0], scaled])])  # one set as large as the other, for the same rounding
    features = []
    for examples in sets:
        with seeded(0, first.device):  # the model's own random numbers are the same for both
            features.append(embed(model, examples[None])[0, :IMAGES])
    change = (features[0] - features[1]).abs().nan_to_num().max()
    return bool(change > CHANGE * features[0].abs().nan_to_num().max())
