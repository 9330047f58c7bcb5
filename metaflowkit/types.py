"""The values that are passed between the packages, plain and immutable.

Letters in shapes: T tasks, N way, S shot, Q query, n = N*S or N*Q examples, C H W image axes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from metaflowkit.trees import Params, State, Tree, tensors, tree_map


class Labelled(NamedTuple):
    """A batch ``(inputs, targets)``, the examples of a task.

    Attributes:
        x: inputs, [..., n, *input]; images are [..., n, C, H, W], float in 0..1.
        y: targets, [..., n]; class labels are int64 in 0..N-1. For policies: :class:`metaflowkit.criteria.Decisions`.
    """

    x: Tensor
    y: Any


class Episode(NamedTuple):
    """One task, or a batch of them with a leading axis T on every tensor.

    Attributes:
        support: what the inner loop learns from: any nested tuples, dicts or named tuples of tensors.
        query: what the outer objective is computed on, nested in the same way; :class:`Labelled` in few-shot tasks.
        way: number of classes N of a few-shot task; 0 where there are no classes.
        seed: of the model's random numbers on it, such as dropout's masks.
        step: the outer step that they are of, from 1; 0 outside a run.
    """

    support: Tree
    query: Tree
    way: int = 0
    seed: int = 0
    step: int = 0


def task_of(episode: Episode, t: int) -> Episode:
    """Task ``t`` of a batch."""
    support, query = tree_map(lambda x: x[t], (episode.support, episode.query))
    return episode._replace(support=support, query=query)


def first_tasks(episode: Episode, count: int) -> Episode:
    """The first tasks of a batch, as a batch."""
    support, query = tree_map(lambda x: x[:count], (episode.support, episode.query))
    return episode._replace(support=support, query=query)


def task_count(episode: Episode) -> int:
    """How many tasks a batch holds.

    Raises:
        ValueError: it is no episode, holds no task, or a tensor is without the leading axis of the tasks.
    """
    if not isinstance(episode, Episode):
        raise ValueError(f"episode: must be an Episode, got {type(episode).__name__}; write Episode(support, query)")
    axes = []
    for name in ("support", "query"):
        try:
            axes += [(f"{name} [{', '.join(map(str, x.shape))}]", x.shape[0] if x.dim() else None) for x in tensors(getattr(episode, name))]
        except TypeError as error:
            raise ValueError(f"episode.{name}: {error}") from None
    if not axes:
        raise ValueError("episode: holds no tensor; give the tasks' examples as tensors with a leading axis of tasks")
    counts = {count for _, count in axes}
    if len(counts) > 1 or None in counts:
        shapes = ", ".join(shape for shape, _ in axes)
        raise ValueError(f"episode: every tensor needs the same leading axis of tasks, got {shapes}; stack the tasks along a first axis")
    if not (count := axes[0][1]):
        raise ValueError("episode: holds no task, since the leading axis of its tensors is 0; give at least one")
    return count


class Outputs(NamedTuple):
    """The outputs of a model for a set of examples.

    Attributes:
        features: the backbone's embedding, [n, D].
        logits: the head's scores, [n, N].
    """

    features: Tensor
    logits: Tensor


def features_of(outputs: Outputs | Tensor) -> Tensor:
    """The features [n, D] in what a model returns.

    Raises:
        ValueError: the model returns no :class:`Outputs`.
    """
    if not isinstance(outputs, Outputs):
        raise ValueError(f"objective: compares embeddings, so the model must return Outputs(features, logits), got {type(outputs).__name__}")
    return outputs.features


def scores_of(outputs: Outputs | Tensor) -> Tensor:
    """The scores [n, N] in what a model returns: those of its :class:`Outputs`, or the tensor itself."""
    return outputs.logits if isinstance(outputs, Outputs) else outputs


class Criterion(Protocol):
    """The meaning of outputs [n, N], given the targets of their examples."""

    def loss(self, outputs: Tensor, y: Tree) -> Tensor:
        """The loss of the tasks, a mean over the examples, scalar."""

    def divergence(self, p: Tensor, q: Tensor, temperature: float = 1.0) -> Tensor:
        """KL(p || q) of the distributions that two outputs stand for, the mean over the examples, scalar.

        Args:
            p: outputs [n, N].
            q: outputs [n, N].
            temperature: above 1 softens both.
        """

    def metrics(self, outputs: Tensor, y: Tree) -> dict[str, Tensor]:
        """Named scalars for a run's metric log."""


@dataclass(frozen=True)
class Adapted:
    """A task's student: parameters after K inner steps, and the functions for further steps.

    Attributes:
        params: adapted parameters by name; they carry the graph to the initialisation.
        state: the rule's state after those steps.
        call: (params, inputs) -> what a model with these parameters returns on this task; few-shot models return
            :class:`Outputs` of the inputs, given the task's support set.
        advance: (params, state, steps) -> (params, state), further inner steps, outside the graph.
        descend: (params, state, loss) -> (params, state), one step of the rule on ``loss(params)``, outside the graph.
        sample: (params, draw) -> the task's query; where examples are drawn with the current parameters, those of the draw
            with this number, without graph.
        criterion: what the model's outputs mean; see :class:`Criterion`.
        restart: () -> (params, state), K inner steps from the moving average of the meta-parameters, outside the graph.
        call_for_features: the same as ``call`` where only features are read, so that no scores need be computed; None for ``call``.
    """

    params: Params
    state: State
    call: Callable[..., Any]
    advance: Callable[[Params, State, int], tuple[Params, State]]
    descend: Callable[[Params, State, Callable[[Params], Tensor]], tuple[Params, State]]
    sample: Callable[[Params, int], Tree]
    criterion: Criterion
    restart: Callable[[], tuple[Params, State]]
    call_for_features: Callable[..., Any] | None = None

    def features(self, params: Params, x: Tensor) -> Tensor:
        """Features [n, D] of examples [n, *input] by a model with these parameters; ValueError where it returns no :class:`Outputs`."""
        return features_of((self.call_for_features or self.call)(params, x))


class Adaptation(NamedTuple):
    """Adapted models of a batch of tasks, without graph.

    Attributes:
        params: parameters by name, [T, *shape].
        read: what was read from each adapted model, with a leading axis T.
    """

    params: Params
    read: Tree


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

    def to_grad(self, model: nn.Module) -> None:
        """Write the gradients to ``.grad`` of the parameters, for any optimiser of torch; those without a gradient get None.

        Args:
            model: the learner's model.
        """
        for name, parameter in model.named_parameters():
            gradient = self.gradients.get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter.dtype)


@dataclass(frozen=True)
class ExampleSet:
    """The examples of one split in memory, of any modality.

    Attributes:
        x: examples, [n, *shape].
        y: class index of each example, int64 [n]; [0] where examples have no classes.
        classes: names, in the order of the indices; none where examples have no classes.
        note: a remark for readers of an accuracy on these examples, such as that training has seen their classes.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    note: str = ""
    modality: ClassVar[str] = "vectors"

    def unlabelled(self) -> Tensor:
        """The examples alone: the only form in which a self-supervised task is given its training split."""
        return self.x


class ImageSet(ExampleSet):
    """Images: ``x`` is [n, C, H, W], uint8 in 0..255 or float in 0..1."""

    modality = "images"


@dataclass(frozen=True)
class TokenSet(ExampleSet):
    """Texts: ``x`` is int64 [n, L], the token at each position, padded with 0.

    Attributes:
        vocabulary: number of tokens, 0 included.
    """

    vocabulary: int = 0
    modality: ClassVar[str] = "tokens"


Splits = Mapping[str, ExampleSet]
