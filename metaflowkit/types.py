"""What travels between the parts: plain immutable values.

Letters in shapes: T tasks, N way, S shot, Q query, n = N*S or N*Q examples, C H W image axes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

Params = dict[str, Tensor]
State = dict[str, Any]


def detached(state: State) -> State:
    """A rule's state (nested dicts of tensors and numbers) without graph."""
    return {k: detached(v) if isinstance(v, dict) else v.detach() if isinstance(v, Tensor) else v for k, v in state.items()}


def tensors_of(state: State) -> list[Tensor]:
    """The tensors of a rule's state, in order."""
    return [x for v in state.values() for x in (tensors_of(v) if isinstance(v, dict) else [v] if isinstance(v, Tensor) else [])]


def refilled(state: State, tensors: Iterator[Tensor]) -> State:
    """A state of the same form with other tensors, those of :func:`tensors_of` one by one."""
    return {k: refilled(v, tensors) if isinstance(v, dict) else next(tensors) if isinstance(v, Tensor) else v for k, v in state.items()}


class Labelled(NamedTuple):
    """Examples with their labels.

    Attributes:
        x: inputs, [..., n, *input]; images are [..., n, C, H, W], float in 0..1.
        y: labels, [..., n]; class labels are int64 in 0..N-1.
    """

    x: Tensor
    y: Tensor


class Episode(NamedTuple):
    """One few-shot task, or a batch of them with a leading axis T on every tensor.

    Attributes:
        support: what the inner loop learns from.
        query: what the outer objective and the accuracy are read on.
        way: number of classes N.
        seed: of what a model draws at random on it, such as dropout's masks.
    """

    support: Labelled
    query: Labelled
    way: int
    seed: int = 0


class Outputs(NamedTuple):
    """What a model says about a set of examples.

    Attributes:
        features: the backbone's embedding, [n, D].
        logits: the head's scores, [n, N].
    """

    features: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Adapted:
    """A task's student: parameters after K inner steps, and how to go on from there.

    Attributes:
        params: adapted parameters by name; they carry the graph to the initialisation.
        state: the rule's state after those steps.
        logits: (params, x) -> [n, N], scores of x by a model with these parameters on this task's support set.
        advance: (params, state, steps) -> (params, state), further inner steps, outside the graph.
        descend: (params, state, loss) -> (params, state), one step of the rule on ``loss(params)``, outside the graph.
    """

    params: Params
    state: State
    logits: Callable[[Params, Tensor], Tensor]
    advance: Callable[[Params, State, int], tuple[Params, State]]
    descend: Callable[[Params, State, Callable[[Params], Tensor]], tuple[Params, State]]


class Adaptation(NamedTuple):
    """Adapted models of a batch of tasks, without graph.

    Attributes:
        params: parameters by name, [T, *shape].
        logits: scores of the query set, [T, n, N].
    """

    params: Params
    logits: Tensor


class Outcome(NamedTuple):
    """The outer objective over a batch of tasks.

    Attributes:
        value: mean over tasks, scalar.
        metrics: named scalars, means over tasks.
        gradients: of ``value`` with respect to every meta-parameter, by name.
    """

    value: Tensor
    metrics: dict[str, Tensor]
    gradients: Params


@dataclass(frozen=True)
class ImageSet:
    """The images of one split in memory.

    Attributes:
        x: images, [n, C, H, W], uint8 in 0..255 or float in 0..1.
        y: class index of each image, int64 [n]; [0] where images have no classes.
        classes: names, in the order of the indices; none where images have no classes.
        note: what a reader must know beside an accuracy on these images, such as that training has seen their classes.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    note: str = ""

    def unlabelled(self) -> Tensor:
        """The images alone: the only form in which a self-supervised task ever gets its training split."""
        return self.x


Splits = Mapping[str, ImageSet]
