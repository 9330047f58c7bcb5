"""The checks of the doctor, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from metaflowkit.composition.cost import step_cost
from metaflowkit.composition.flow import Flow, build
from metaflowkit.config.types import Pipeline
from metaflowkit.doctor.faults import checkpoints_noted, first_line, location, meaning
from metaflowkit.doctor.findings import Finding, Tell, Verdict, fact, judged, wrong
from metaflowkit.doctor.gradients import compare_engines, compare_slopes
from metaflowkit.doctor.oracle import Oracle, apart, length, slopes
from metaflowkit.doctor.plain_loop import plain_outcome, plain_value
from metaflowkit.doctor.precision import precision
from metaflowkit.doctor.reduced import LARGE, built, doubled
from metaflowkit.engines.auto import simplest
from metaflowkit.engines.base import Engine, MetaLearner
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.safety import exact_kernels, unsafe
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError, MetaflowkitError
from metaflowkit.orders import Exact
from metaflowkit.rules.base import is_native
from metaflowkit.trees import Params
from metaflowkit.types import Episode, Outcome, first_tasks, task_count

CONVERGED = 0.05  # of an implicit gradient, against the one after more inner steps


def diagnose(pipeline: Pipeline, tell: Tell = lambda text: None, directions: int = 3) -> Iterator[Finding]:
    """Check the meta-gradient of a pipeline, built small and in float64, then its float32 gradients and cost at its own size.

    A plain loop of ``torch.autograd`` gives value and gradient; finite differences of the plain loop's value check that gradient, and every engine is
    compared with it. This finds an engine that leaves out a part of the model, and an operation whose derivative is wrong in all engines.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        tell: called with what is being computed.
        directions: of finite differences, for networks that are not large.

    Yields:
        Findings, as soon as they are known.

    Raises:
        ConfigError: the pipeline cannot be built, or its model raises in a plain forward call.
    """
    tell("building the pipeline small")
    flow, problems = built(pipeline)
    yield from problems
    learner, episode, notes = doubled(flow)
    yield from notes
    yield from _modules(learner)
    if not flow.measured:
        yield from _forward(learner, episode)
    exact = dataclasses.replace(learner, order=Exact(), remat=False)
    if sum(p.numel() for p in learner.model.parameters()) > LARGE:
        directions = 1
    engines, pipeline_engine = _engines(flow)
    name, recompute, evaluate = "a plain loop of torch.autograd", plain_outcome, plain_value
    if is_native(learner.rule):
        name, recompute, evaluate = "engine higher", HigherEngine().outcome, _higher_value
    tell("the meta-gradient by a plain loop")
    reference = yield from _reference(exact, episode)
    if reference is None or not (yield from _finite(reference)):
        return
    if learner.sample is not None:
        yield fact("examples are drawn with the current parameters, so that gradients are estimates, to which finite differences do not apply")
    elif length(reference.gradients) > 0:
        oracle = Oracle(exact, episode, evaluate)
        estimates = list(slopes(oracle, reference.gradients, directions, tell))
        yield compare_slopes(exact, reference, name, oracle, estimates)
    yield from _guarded("the engines cannot be compared", compare_engines(engines, pipeline_engine, exact, episode, reference, name, recompute, tell))
    yield from _guarded("the order cannot be checked", _order(learner, episode, reference.gradients, tell))
    yield from _guarded("the inner loop cannot be run", _movement(learner, episode, reference.gradients))
    if not problems:
        yield from _guarded("the pipeline fails at its own size", _own_size(pipeline, pipeline_engine, length(reference.gradients) > 0, tell))


def _higher_value(learner: MetaLearner, episode: Episode) -> Tensor:
    """The objective by the engine on ``higher``."""
    return HigherEngine().outcome(learner, episode).value


def _reference(exact: MetaLearner, episode: Episode) -> Generator[Finding, None, Outcome | None]:
    """Value and meta-gradient that the engines are compared with; a finding and None where they cannot be computed."""
    try:
        if is_native(exact.rule):
            yield fact("an optimiser of higher runs in its engine alone: finite differences are of that engine's own values")
            return HigherEngine().outcome(exact, episode)
        return plain_outcome(exact, episode)
    except ConfigError as error:
        yield from (wrong(f"the meta-gradient cannot be computed: {problem}") for problem in error.problems)
    except RuntimeError as error:
        yield wrong(f"the meta-gradient cannot be computed: {meaning(error)}")
    except Exception as error:
        raise ConfigError(f"the inner loop or the objective raises {type(error).__name__}: {first_line(error)}{location(error)}; repair it there") from error
    return None


def _guarded(failure: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of a check; an error in the check itself is one more."""
    try:
        yield from findings
    except ConfigError as error:
        yield from (wrong(f"{failure}: {problem}") for problem in error.problems)
    except RuntimeError as error:
        yield wrong(f"{failure}: {meaning(error)}")


def _engines(flow: Flow) -> tuple[dict[str, Engine], str]:
    """The pipeline's engine and the others by name, and the name of the first."""
    name = f"{flow.pipeline.inner.engine.name} (the pipeline's)"
    engines: dict[str, Engine] = {name: flow.learner.engine, "higher": HigherEngine()}
    if not is_native(flow.learner.rule):
        engines |= {"vectorized, chunk 1": VectorizedEngine(chunk=1), "vectorized": VectorizedEngine()}
    return engines, name


def _modules(learner: MetaLearner) -> Iterator[Finding]:
    problems = unsafe(learner.model, vmap=False, second=True)
    yield from (wrong(problem) for problem in problems)
    if not problems:
        yield Finding(Verdict.PASSED, "no module is known to lack a right second derivative")
    yield from (fact(f"for the vectorized engine on a batch of tasks: {problem}") for problem in unsafe(learner.model, vmap=True, second=False))


def _forward(learner: MetaLearner, episode: Episode) -> Iterator[Finding]:
    """One plain call of the model: its exceptions are errors of the model, and its features must differ between images."""
    support = first_tasks(episode, 1).support
    try:
        with torch.no_grad(), checkpoints_noted() as checkpoints, exact_kernels(learner.model):
            features = learner.model(type(support)(support.x[0], support.y[0]), None, episode.way).features
    except MetaflowkitError:
        raise
    except Exception as error:
        raise ConfigError(
            f"model: a plain forward call raises {type(error).__name__}: {first_line(error)}{location(error)}; repair the module there"
        ) from error
    if checkpoints and learner.steps:
        yield wrong(
            f"the model uses activation checkpointing at {checkpoints[0]}, which computes activations again from the weights of another inner step; "
            "take it out of the model and set inner.remat: true, which computes whole steps again"
        )
    spread = (features - features[:1]).abs().max()
    if not features.isfinite().all():
        yield wrong("the features are not finite already before the first inner step; see the initialisation and divisions of the backbone")
    elif spread <= 1e-12 * features.abs().max().clamp_min(1e-300):
        yield wrong("the features are the same for all images, so nothing can be learned; see that the backbone's output depends on its input")


def _finite(outcome: Outcome) -> Generator[Finding, None, bool]:
    """Whether value and gradient are finite; a finding where they are not."""
    names = [name for name, g in outcome.gradients.items() if not g.isfinite().all()]
    if outcome.value.isfinite() and not names:
        return True
    subject = f"the meta-gradient, first in {names[0]}" if names else "the objective"
    yield wrong(f"{subject}, is not finite; lower inner.rule.lr, and see roots, logarithms and quotients at zero in the model, the loss and the objective")
    return False


def _order(learner: MetaLearner, episode: Episode, exact: Params, tell: Tell) -> Iterator[Finding]:
    if learner.order.exact:
        return
    name = type(learner.order).__name__.lower()
    tell(f"the meta-gradient of the order {name}")
    engine = simplest(learner.rule)
    gradients = engine.outcome(learner, episode).gradients
    a, b = (torch.cat([g[name].flatten() for name in exact]) for g in (gradients, exact))
    cosine = (a @ b / (a.norm() * b.norm()).clamp_min(1e-300)).item()
    text = f"order {name}: its gradient has the cosine {cosine:.3f} with the exact one"
    if not learner.order.converges:
        yield fact(f"{text}, by design")
        return
    longer = dataclasses.replace(learner, steps=4 * max(learner.steps, 1))
    drift = apart(gradients, engine.outcome(longer, episode).gradients)
    error = apart(gradients, exact)
    converged = max(drift, error) < CONVERGED
    text = f"{text}, is {error:.0e} away from it and {drift:.0e} away from its own after {longer.steps} inner steps"
    yield judged(converged, text, "the inner loop has not converged, raise inner.steps or inner.proximal")


def _movement(learner: MetaLearner, episode: Episode, exact: Params) -> Iterator[Finding]:
    if learner.steps:
        adapted = simplest(learner.rule).adapt(learner, episode.support, episode).params
        start = learner.meta()
        fast = learner.fast(start)
        unmoved = [name for name in fast if torch.equal(adapted[name], start[name].expand_as(adapted[name]))]
        remedy = "the inner loss does not depend on them, choose another inner.loss or inner.adapt"
        yield judged(len(unmoved) < len(fast), f"the inner loop moves {len(fast) - len(unmoved)} of {len(fast)} parameters", remedy)
    without_gradient = [name for name, g in exact.items() if not g.any()]
    listed = f", none by {', '.join(without_gradient[:5])}{' ...' if len(without_gradient) > 5 else ''}" if without_gradient else ""
    remedy = "nothing would be learned, see that the features differ between images and, where a target is bootstrapped, raise objective.delta"
    yield judged(
        len(without_gradient) < len(exact), f"the objective learns {len(exact) - len(without_gradient)} of {len(exact)} meta-parameters{listed}", remedy
    )


def _own_size(pipeline: Pipeline, pipeline_engine: str, has_gradient: bool, tell: Tell) -> Iterator[Finding]:
    """The checks of the pipeline as users run it."""
    tell("building the pipeline at its own size")
    flow = build(pipeline)
    if has_gradient:
        engines, _ = _engines(flow)
        yield from precision(flow, engines, pipeline_engine, tell)
    yield from _cost(flow, tell)


def _cost(flow: Flow, tell: Tell) -> Iterator[Finding]:
    """Engine, time and memory of an outer step at the pipeline's own size."""
    tell("time and memory of an outer step")
    yield fact(f"engine {flow.learner.engine.description}")
    yield fact(f"{step_cost(flow)} per outer step of {task_count(flow.episode(1))} tasks on {flow.device}")
