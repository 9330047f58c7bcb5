"""From a pipeline to its learner: the model, what is learned beside it, and how it adapts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from metaflowkit.composition.checks import engine_problems, matching
from metaflowkit.composition.few_shot import BatchLoss, ModelLoss, SupportLoss
from metaflowkit.composition.footprint import require_model
from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.config.types import Pipeline, listed
from metaflowkit.criteria import Classification
from metaflowkit.engines.base import MetaLearner
from metaflowkit.errors import ConfigError
from metaflowkit.memory import out_of_memory
from metaflowkit.models.model import Model
from metaflowkit.models.normalisation import stored_norms
from metaflowkit.models.weights import load_weights
from metaflowkit.rules.base import is_learnable, is_native
from metaflowkit.rules.learned import Learned, LearnedSettings
from metaflowkit.seeding import generator_for, seed_for
from metaflowkit.stages import stage
from metaflowkit.trees import Call, Tree
from metaflowkit.types import Criterion

V = TypeVar("V")


@dataclass(frozen=True)
class Interface:
    """What the tasks of a pipeline require of its learner.

    Attributes:
        shape: of an example, such as (C, H, W).
        way: classes per task, or how many outputs the head gives.
        vocabulary: number of tokens where examples are texts.
        examples: in a task's support; 0 where the number is unknown before they are drawn.
        criterion: what outputs mean.
        few_shot: whether tasks are few-shot classification, whose head may read the support set.
        sample: see :class:`metaflowkit.engines.base.MetaLearner`.
    """

    shape: tuple[int, ...]
    way: int
    vocabulary: int = 0
    examples: int = 0
    criterion: Criterion = field(default_factory=Classification)
    few_shot: bool = True
    sample: Callable[[Call, Tree, int], Tree] | None = None

    def of_backbone(self, pipeline: Pipeline) -> dict[str, Any]:
        """What a backbone's constructor may ask for."""
        return {"shape": self.shape, "vocabulary": self.vocabulary, "pretrained": pipeline.model.weights is not None}

    def noise(self, *sizes: int) -> Tensor:
        """Examples [*sizes, *shape] of noise, the same at every call: uniform in 0..1, or any tokens."""
        generator = generator_for(0, "noise")
        if self.vocabulary:
            return torch.randint(1, self.vocabulary, (*sizes, *self.shape), generator=generator)
        return torch.rand(*sizes, *self.shape, generator=generator)


def build_learner(pipeline: Pipeline, interface: Interface, device: torch.device, weights: bool = True) -> MetaLearner:
    """The learner of a pipeline for tasks, without its data.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        interface: what the tasks require.
        device: where it computes.
        weights: whether the file ``model.weights`` is read; not, where a checkpoint is loaded afterwards.

    Raises:
        ConfigError: a component refuses its settings, or a name pattern matches no parameter.
    """
    inner = pipeline.inner

    def build(path: str, kind: r.Kind, choice: Choice, **injected: Any) -> Any:
        return placed(pipeline, path, lambda: kind.build(choice, **injected))

    with torch.random.fork_rng(devices=[]), stage("building the model"):
        require_model(pipeline, interface.of_backbone(pipeline), interface.way, device)
        torch.manual_seed(seed_for(pipeline.seed, "model"))
        backbone = _module(pipeline, "model.backbone", build("model.backbone", r.BACKBONES, pipeline.model.backbone, **interface.of_backbone(pipeline)))
        if pipeline.model.weights is not None and weights:
            placed(pipeline, "model.weights", lambda: load_weights(backbone, Path(str(pipeline.model.weights)), pipeline.model.ignore_weights))
        if pipeline.model.adapter is not None:
            adapter = build("model.adapter", r.ADAPTERS, pipeline.model.adapter)
            placed(pipeline, "model.adapter", lambda: adapter(backbone))
        head = _module(pipeline, "model.head", build("model.head", r.HEADS, pipeline.model.head, features=backbone.features, way=interface.way))
        parameters = _frozen(pipeline, dict(Model(backbone, head).named_parameters()))
        loss = build("inner.loss", r.LOSSES, inner.loss, criterion=interface.criterion, examples=interface.examples)
        augment = None if inner.augment is None else build("inner.augment", r.LEARNED_AUGMENTATIONS, inner.augment, shape=interface.shape)
    for norm in stored_norms(backbone):
        norm.set_steps(inner.steps)
    rule = build("inner.rule", r.RULES, inner.rule)
    adapts = _adapting(pipeline, {name: p.requires_grad for name, p in parameters.items()})
    learned = _learned(pipeline, rule, {name: p.shape for name, p in parameters.items() if name in adapts and p.requires_grad})
    in_model = augment is not None or isinstance(loss, nn.Module)
    model = Model(backbone, head, learned, loss if in_model else None, augment, pipeline.precision).to(device)
    learner = MetaLearner(
        model,
        rule,
        loss=ModelLoss(interface.few_shot) if in_model else (SupportLoss if interface.few_shot else BatchLoss)(loss),
        objective=build("objective", r.OBJECTIVES, pipeline.objective, outer_steps=pipeline.outer.steps),
        steps=inner.steps,
        engine=build("inner.engine", r.ENGINES, inner.engine, model=model, rule=rule),
        order=build("inner.order", r.ORDERS, inner.order),
        adapts=adapts,
        learns=_learning(pipeline, [name for name, _ in model.named_parameters()]),
        frozen=frozenset(parameters) - adapts if inner.others == "frozen" else frozenset(),
        proximal=inner.proximal,
        remat=inner.remat,
        arguments=Model.arguments if interface.few_shot else Model.arguments_alone,
        feature_arguments=Model.feature_arguments,
        sample=interface.sample,
        criterion=interface.criterion,
    )
    if problems := engine_problems(learner):
        raise ConfigError([f"{pipeline.place('inner.engine')}: {problem}" for problem in problems])
    if is_native(rule):
        placed(pipeline, "inner.rule", lambda: rule.over(list(model.parameters())))
    return learner


def _module(pipeline: Pipeline, path: str, component: Any) -> Any:
    if not isinstance(component, nn.Module):
        raise ConfigError(f"{pipeline.place(path)}: must be a torch.nn.Module, got {type(component).__name__}; derive it from one")
    return component


def _frozen(pipeline: Pipeline, parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The parameters, of which those that ``model.frozen`` names are frozen now."""
    if pipeline.model.frozen is not None:
        for name in _matched(pipeline, "model.frozen", list(parameters), listed(pipeline.model.frozen), "[backbone]"):
            parameters[name].requires_grad_(False)
    return parameters


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
        adapts = _matched(pipeline, "inner.adapt", names, listed(patterns), "[head]")
    if pipeline.inner.steps and not any(trained[name] for name in adapts):
        raise ConfigError(
            f"{pipeline.place('inner.adapt')}: the inner steps move nothing, since every parameter that it names has requires_grad=False, "
            f"got {patterns or 'all'}; name others, leave some of them trainable, or set inner.steps: 0"
        )
    return adapts


def _learning(pipeline: Pipeline, names: list[str]) -> frozenset[str] | None:
    """The parameters that the patterns of ``outer.learn`` match; None without patterns.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    patterns = pipeline.outer.learn
    return None if patterns is None else _matched(pipeline, "outer.learn", names, listed(patterns), "[loss]")


def _matched(pipeline: Pipeline, path: str, names: list[str], patterns: Iterable[str], example: str) -> frozenset[str]:
    matches = matching(names, patterns, lambda i: pipeline.place(f"{path}.{i}"))
    if not matches:
        raise ConfigError(f"{pipeline.place(path)}: must name at least one pattern, got none; write such as {example}, or null for all")
    return matches


def _learned(pipeline: Pipeline, rule: Any, shapes: dict[str, torch.Size]) -> LearnedSettings | None:
    """The settings of the rule that are meta-learned; None without any."""
    inner = pipeline.inner
    if not inner.learn:
        return None
    path = "inner.learn"
    if not is_learnable(rule):
        raise ConfigError(f"{pipeline.place(path)}: the rule {inner.rule.name!r} has no settings that can be learned; derive it from PerTensor")
    settings = r.RULES.entries(pipeline.plugins)[inner.rule.name].settings
    learned = [Learned(key, rule.settings[key], get_args(settings[key].annotation)[1], learn.per, learn.per_step) for key, learn in inner.learn.items()]
    return placed(pipeline, path, lambda: LearnedSettings(learned, shapes, inner.steps))


def placed(pipeline: Pipeline, path: str, make: Callable[[], V]) -> V:
    """Run a constructor; its error messages begin with the location in the pipeline file."""
    try:
        return make()
    except ValueError as error:
        raise ConfigError(f"{pipeline.place(path)}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ConfigError(f"{pipeline.place(path)}: needs more memory than can be had ({str(error).splitlines()[0]}); make it smaller") from None
