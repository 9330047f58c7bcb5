"""Lower bounds of the memory that a pipeline needs, compared with the machine's before anything is built."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from metaflowkit.config import registry as r
from metaflowkit.config.checks import evaluation_views
from metaflowkit.config.types import Pipeline
from metaflowkit.memory import require_memory


def require_episodes(pipeline: Pipeline, shape: tuple[int, ...], device: torch.device) -> None:
    """The images of an episode fit into memory: T N (S + Q) of them in training, each as C H W bytes and as many 4-byte floats.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        shape: of an example, such as (C, H, W) of an image.
        device: where they are stored.

    Raises:
        DataError: naming the settings that the number of images follows from.
    """
    image, settings, evaluate = 5 * math.prod(shape), pipeline.tasks.settings, pipeline.evaluate
    sizes = [settings[key] for key in ("meta_batch", "way", "shot", "query") if isinstance(settings.get(key), int)]
    if len(sizes) == 4:
        tasks, way, shot, query = sizes
        keys = "tasks.meta_batch, tasks.way, tasks.shot, tasks.query or dataset.image_size"
        count = tasks * way * (shot + query)
        require_memory(count * image, f"{pipeline.place('tasks')}: the {count:,} images of an outer step", f"lower {keys}", device)
    for way, shot in evaluate.settings():
        count = way * (shot * max(1, evaluation_views(pipeline)) + evaluate.query)
        keys = "evaluate.way, evaluate.shot, evaluate.query, evaluate.views or dataset.image_size"
        require_memory(count * image, f"{pipeline.place('evaluate')}: the {count:,} images of an episode", f"lower {keys}", device)


def require_model(pipeline: Pipeline, interface: dict[str, Any], way: int, device: torch.device) -> None:
    """The model fits into memory: its parameters, their meta-gradient and the adapted parameters of one task, 4 bytes a number.

    It is built on torch's device ``meta`` for that, which holds no values. What cannot be built there is not checked.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        interface: what a backbone's constructor may ask for.
        way: classes per task.
        device: where it will be.

    Raises:
        DataError: naming the settings that the number of parameters follows from.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as that nothing can be copied into a tensor without values
            backbone = r.BACKBONES.build(pipeline.model.backbone, **interface)
            head = r.HEADS.build(pipeline.model.head, features=backbone.features, way=way)
            count = sum(p.numel() for part in (backbone, head) for p in part.parameters())
    except Exception:
        return
    what = f"{pipeline.place('model')}: its {count:,} parameters, their gradient and the adapted ones"
    require_memory(3 * 4.0 * count, what, "make model.backbone smaller, or lower dataset.image_size", device)
