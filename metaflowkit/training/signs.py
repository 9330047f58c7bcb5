"""Signs that a run fails: what is measured beside the objective, and what it means.

Every outer step of few-shot tasks: how far the embeddings of the step's query examples lie apart. Where a validation follows: the inner loss before
and after the inner steps, and the cosine of the meta-gradient with the one that plain meta-learning has on the same tasks. Signs are read
from the metric log alone, so that a resumed run sees the same ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from metaflowkit.composition.flow import Flow
from metaflowkit.config.types import Pipeline
from metaflowkit.distances import unit
from metaflowkit.engines.base import MetaLearner
from metaflowkit.evaluation.embedding import embed
from metaflowkit.objectives.base import Objective
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.training.shared_outcome import shared_outcome
from metaflowkit.trees import Call, Tree
from metaflowkit.types import Episode, Outcome, first_tasks

WINDOW = 10  # outer steps that a sign is averaged over
EXAMPLES = 40  # of a task, at most, whose spread is measured: more would take a noticeable share of a step without inner loop
FOLLOWED = 10  # inner steps up to which the loss is measured after each one: every measurement starts from the initialisation
COLLAPSED = 0.05  # of the deviation that spread-out embeddings have
RANKED = 5  # the largest possible effective rank from which on it says something
FLAT = 1.5  # effective rank below which all embeddings lie on a line
STILL = 1e-9  # a bootstrapped objective below which student and target are equal
EXPLODED = 100  # times the meta-gradient's norm in the first steps
LEARNT = 0.15  # rise of the pseudo-tasks' accuracy that a shortcut can be read from
SIGN = "sign"


@dataclass(frozen=True)
class Sign:
    """A sign of failure.

    Attributes:
        name: a word or two.
        text: what was seen, the usual cause, and the key to change.
    """

    name: str
    text: str


def spread(features: Tensor) -> dict[str, float]:
    """How far embeddings lie apart.

    ``embedding_deviation`` is the deviation of the embeddings scaled to length one, sqrt(sum_d var_d): 0 where all are one direction, and near 1
    where they point everywhere. ``effective_rank`` is exp(-sum_i p_i log p_i) with p_i the singular values of the centred
    embeddings divided by their sum: 1 where they lie on a line, at most D and n - 1; left out where that is below 5.

    Args:
        features: [n, D].

    Reference:
        O. Roy, M. Vetterli, The effective rank, EUSIPCO 2007, definition 1.
    """
    features = features.double().cpu()  # in one transfer: singular values of so few numbers take a GPU longer, and it would be waited for at each
    z = unit(features)
    centred = z - z.mean(0)
    values = torch.linalg.svdvals(features - features.mean(0))
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    rank = torch.special.entr(shares).sum().exp()
    metrics = dict(zip(("embedding_deviation", "effective_rank"), torch.stack([centred.square().mean(0).sum().sqrt(), rank]).tolist()))
    if min(len(features) - 1, features.shape[1]) < RANKED:
        del metrics["effective_rank"]
    return metrics


def embedding_metrics(flow: Flow, episode: Episode) -> dict[str, float]:
    """:func:`spread` of query examples of an outer step's first task, embedded by the meta-parameters; nothing where tasks have no embedding, nor but in the first process."""
    if flow.measured or not flow.world.first:
        return {}
    x = first_tasks(episode, 1).query[0]
    return spread(embed(flow.model, x[:, :: math.ceil(x.shape[1] / EXAMPLES)])[0])


def costly_metrics(flow: Flow, episode: Episode, outcome: Outcome) -> dict[str, float]:
    """What takes about as long as the meta-gradient, on the tasks of an outer step.

    Args:
        flow: a built pipeline.
        episode: the tasks.
        outcome: of these tasks with the current weights.

    Returns:
        ``inner_loss_before`` and ``inner_loss_after`` the inner steps, ``inner_loss_after_k`` for each k between where there are at most ten, and
        ``cosine_to_query_loss``, of the meta-gradient with that of the loss on the query, where the objective is a bootstrapped one. The inner
        loss is measured by the first process alone.
    """
    learner, metrics = flow.learner, {}
    if learner.steps and learner.sample is None and flow.world.first:
        between = range(1, learner.steps) if learner.steps <= FOLLOWED else ()
        steps_of = {"inner_loss_before": 0, **{f"inner_loss_after_{k}": k for k in between}, "inner_loss_after": learner.steps}
        metrics = {name: _inner_loss(learner, episode, steps) for name, steps in steps_of.items()}
    if cast(Objective, learner.objective).further_steps:
        plain = shared_outcome(flow, dataclasses.replace(learner, objective=QueryLoss()), episode)[0].gradients
        a, b = (torch.cat([g.flatten().double() for g in gradients.values()]) for gradients in (outcome.gradients, plain))
        metrics["cosine_to_query_loss"] = (unit(a) @ unit(b)).item()
    return metrics


def _inner_loss(learner: MetaLearner, episode: Episode, steps: int) -> float:
    """The inner loss on the first task's support after so many inner steps."""

    def read(call: Call, task: Episode) -> Tree:
        return learner.loss(call, task.support).detach()

    first = first_tasks(episode, 1)
    value: Tensor = dataclasses.replace(learner, steps=steps).adapt(first.support, first, read).read
    return value.mean().item()


@dataclass
class Watch:
    """Reads the lines of a metric log one after the other, and says each sign once.

    Attributes:
        pipeline: of the run.
        said: names of the signs that were said.
        steps: the last lines of outer steps.
        measured: the last two of them that have :func:`costly_metrics`.
        first: means over the first steps, by metric.
        validations: the lines of validations; the first is the untrained network's.
    """

    pipeline: Pipeline
    said: set[str] = field(default_factory=set)
    steps: list[Mapping[str, Any]] = field(default_factory=list)
    measured: list[Mapping[str, Any]] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)
    validations: list[Mapping[str, Any]] = field(default_factory=list)

    def replay(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Read what an interrupted run has written, signs included."""
        for line in lines:
            if SIGN in line:
                self.said.add(line[SIGN])
            else:
                self._keep(line)

    def add(self, line: Mapping[str, Any]) -> list[Sign]:
        """The signs that a further line shows for the first time."""
        self._keep(line)
        read = (*self._of_steps(), *self._of_measured()) if "train/objective" in line else self._of_validations()
        signs = [sign for sign in read if sign.name not in self.said]
        self.said |= {sign.name for sign in signs}
        return signs

    def _keep(self, line: Mapping[str, Any]) -> None:
        if "train/objective" in line:
            self.steps = [*self.steps, line][-WINDOW:]
            if "train/inner_loss_after" in line or "train/cosine_to_query_loss" in line:
                self.measured = [*self.measured, line][-2:]
            if not self.first and len(self.steps) == WINDOW:
                names = set.intersection(*({name for name, value in each.items() if isinstance(value, float)} for each in self.steps))
                self.first = {name: sum(each[name] for each in self.steps) / WINDOW for name in names}
        else:
            self.validations.append(line)

    def _mean(self, name: str) -> float | None:
        """Of a metric over the last steps; None before there are enough."""
        values = [line[name] for line in self.steps if name in line]
        return sum(values) / WINDOW if len(values) == WINDOW else None

    def _of_steps(self) -> Iterable[Sign]:
        deviation, rank = self._mean("train/embedding_deviation"), self._mean("train/effective_rank")
        if (deviation is not None and deviation < COLLAPSED) or (rank is not None and rank < FLAT):
            rank_text = "" if rank is None else f", effective rank {rank:.1f}"
            yield Sign(
                "collapse",
                f"the embeddings of different examples are nearly the same (deviation {deviation:.3f} of about 1{rank_text}); usual causes are a target that is not "
                "grounded, and too large a rate; set objective.grounded: true, or lower outer.optimizer.lr or inner.rule.lr",
            )
        objective = self._mean("train/objective")
        if objective is not None and 0 <= objective < STILL:
            cause = (
                "student and target are equal where embeddings have collapsed or the inner steps move nothing; raise objective.delta or inner.rule.lr, and set objective.grounded: true"
                if "delta" in self.pipeline.objective.settings
                else "the training tasks are solved completely; make them harder, such as with a higher augment.level or tasks.way"
            )
            yield Sign("standstill", f"the objective is 0 ({objective:.1e} over {WINDOW} steps), so nothing is learnt; {cause}")
        norm, first = self._mean("train/gradient_norm"), self.first.get("train/gradient_norm")
        if norm is not None and first and norm > EXPLODED * first:
            yield Sign(
                "explosion",
                f"the meta-gradient has grown from a norm of {first:.3g} in the first {WINDOW} steps to {norm:.3g}; usual causes are too large an inner rate, and parameters that grow without "
                "bound; lower inner.rule.lr or outer.optimizer.lr",
            )

    def _of_measured(self) -> Iterable[Sign]:
        cosines = [line["train/cosine_to_query_loss"] for line in self.measured if "train/cosine_to_query_loss" in line]
        if len(cosines) == 2 and max(cosines) < 0:
            yield Sign(
                "conflict",
                f"the bootstrapped meta-gradient points away from that of the loss on the query (cosine {cosines[0]:.2f}, then {cosines[1]:.2f}); the target has moved too far to be a guide; "
                "lower objective.delta or inner.rule.lr",
            )
        inner = [(line["train/inner_loss_before"], line["train/inner_loss_after"]) for line in self.measured if "train/inner_loss_after" in line]
        if len(inner) == 2 and all(after >= before for before, after in inner):
            before, after = inner[1]
            yield Sign(
                "inner loop",
                f"the inner steps do not lower the inner loss ({before:.4g} before, {after:.4g} after them); usual causes are too large a rate, which overshoots, and one near 0; change inner.rule.lr",
            )

    def _of_validations(self) -> Iterable[Sign]:
        name = f"val/{self.pipeline.metric.name}"
        accuracy, scores = self._mean("train/accuracy"), [line for line in self.validations if name in line]
        start = self.first.get("train/accuracy")
        if accuracy is None or start is None or len(scores) < 3:
            return
        best = max(line[name] for line in scores[1:])
        if accuracy - start > LEARNT and best <= scores[0][name] + scores[0]["val/ci95"]:
            yield Sign(
                "shortcut",
                f"the tasks are learnt (accuracy {100 * start:.0f} -> {100 * accuracy:.0f} %) while validation stands still ({100 * scores[0][name]:.1f} -> {100 * scores[-1][name]:.1f} %); "
                "views of an image can be told apart by something that says nothing about new classes, such as its colours; raise augment.level or tasks.way, or use images of more classes",
            )
