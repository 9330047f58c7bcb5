"""The checks in their order."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch

from metaflowkit.composition.flow import Flow, build
from metaflowkit.config.types import Pipeline
from metaflowkit.doctor.faults import checkpoints_noted, first_line, meaning, place
from metaflowkit.doctor.findings import Finding, Tell, Verdict, fact, judged, wrong
from metaflowkit.doctor.gradients import compare_engines, compare_slopes
from metaflowkit.doctor.oracle import Evaluate, Oracle, apart, length, slopes
from metaflowkit.doctor.plain_loop import plain_outcome, plain_value
from metaflowkit.doctor.precision import precision
from metaflowkit.doctor.reduced import LARGE, built, doubled
from metaflowkit.engines.auto import simplest
from metaflowkit.engines.base import Engine, MetaLearner
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.safety import exact_kernels, unsafe
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError, MetaflowkitError
from metaflowkit.memory import peak_memory
from metaflowkit.orders import Exact
from metaflowkit.rules.base import is_native
from metaflowkit.types import Episode, Outcome, Params, first_tasks, task_count

CONVERGED = 0.05  # of an implicit gradient, against the one after more inner steps


def diagnose(pipeline: Pipeline, tell: Tell = lambda text: None, directions: int = 3) -> Iterator[Finding]:
    """Check the meta-gradient of a pipeline, built small and in float64, then its float32 gradients and cost at its own size.

    A plain loop of ``torch.autograd`` gives value and gradient; finite differences of the plain loop's value check that gradient, and every engine is
    compared with it. So an engine that leaves out a part of the model is found, and so is an operation whose derivative is wrong in all of them.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        tell: told what is being computed.
        directions: of finite differences, for networks that are not large.

    Yields:
        Findings as they come.

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
    engines, own = _engines(flow)
    reference, name = None, "a plain loop of torch.autograd"
    tell("the meta-gradient by a plain loop")
    evaluate: Evaluate = plain_value
    try:
        if is_native(learner.rule):
            name, evaluate = "engine higher", lambda learner, episode: HigherEngine().outcome(learner, episode).value
            yield fact("an optimiser of higher runs in its engine alone: finite differences are of that engine's own values")
            reference = HigherEngine().outcome(exact, episode)
        else:
            reference = plain_outcome(exact, episode)
    except ConfigError as error:
        yield from (wrong(f"the meta-gradient cannot be computed: {problem}") for problem in error.problems)
    except RuntimeError as error:
        yield wrong(f"the meta-gradient cannot be computed: {meaning(error)}")
    except Exception as error:
        raise ConfigError(f"the inner loop or the objective raises {type(error).__name__}: {first_line(error)}{place(error)}; repair it there") from error
    if reference is None:
        return
    if not (yield from _finite(reference)):
        return
    if learner.sample is not None:
        yield fact("examples are drawn with the parameters at hand, so that gradients are estimates, to which finite differences do not apply")
    elif length(reference.gradients) > 0:
        oracle = Oracle(exact, episode, evaluate)
        measured = list(slopes(oracle, reference.gradients, directions, tell))
        yield compare_slopes(exact, reference, name, oracle, measured)
    again = plain_outcome if evaluate is plain_value else HigherEngine().outcome
    yield from _guarded("the engines cannot be compared", compare_engines(engines, own, exact, episode, reference, name, again, tell))
    yield from _guarded("the order cannot be checked", _order(learner, episode, reference.gradients, tell))
    yield from _guarded("the inner loop cannot be run", _movement(learner, episode, reference.gradients))
    if not problems:
        yield from _guarded("the pipeline fails at its own size", _own_size(pipeline, own, length(reference.gradients) > 0, tell))


def _guarded(failure: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Findings of a check; what makes the check itself fail is one more."""
    try:
        yield from findings
    except ConfigError as error:
        yield from (wrong(f"{failure}: {problem}") for problem in error.problems)
    except RuntimeError as error:
        yield wrong(f"{failure}: {meaning(error)}")


def _engines(flow: Flow) -> tuple[dict[str, Engine], str]:
    """The pipeline's engine and the others by name, and the name of the first."""
    own = f"{flow.pipeline.inner.engine.name} (the pipeline's)"
    engines: dict[str, Engine] = {own: flow.learner.engine, "higher": HigherEngine()}
    if not is_native(flow.learner.rule):
        engines |= {"vectorized, chunk 1": VectorizedEngine(chunk=1), "vectorized": VectorizedEngine()}
    return engines, own


def _modules(learner: MetaLearner) -> Iterator[Finding]:
    problems = unsafe(learner.model, vmap=False, second=True)
    yield from (wrong(problem) for problem in problems)
    if not problems:
        yield Finding(Verdict.PASSED, "no module is known to lack a right second derivative")
    yield from (fact(f"for the vectorized engine on a batch of tasks: {problem}") for problem in unsafe(learner.model, vmap=True, second=False))


def _forward(learner: MetaLearner, episode: Episode) -> Iterator[Finding]:
    """One plain call of the model: what raises here is a fault of its own, and features must tell images apart."""
    support = first_tasks(episode, 1).support
    try:
        with torch.no_grad(), checkpoints_noted() as checkpoints, exact_kernels(learner.model):
            features = learner.model(type(support)(support.x[0], support.y[0]), None, episode.way).features
    except MetaflowkitError:
        raise
    except Exception as error:
        raise ConfigError(f"model: a plain forward call raises {type(error).__name__}: {first_line(error)}{place(error)}; repair the module there") from error
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
    broken = [name for name, g in outcome.gradients.items() if not g.isfinite().all()]
    if outcome.value.isfinite() and not broken:
        return True
    where = f"the meta-gradient, first in {broken[0]}" if broken else "the objective"
    yield wrong(f"{where}, is not finite; lower inner.rule.lr, and see roots, logarithms and quotients at zero in the model, the loss and the objective")
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
    away = apart(gradients, exact)
    right = max(drift, away) < CONVERGED
    text = f"{text}, is {away:.0e} away from it and {drift:.0e} away from its own after {longer.steps} inner steps"
    yield judged(right, text, "the inner loop has not converged, raise inner.steps or inner.proximal")


def _movement(learner: MetaLearner, episode: Episode, exact: Params) -> Iterator[Finding]:
    if learner.steps:
        adapted = simplest(learner.rule).adapt(learner, episode.support, episode).params
        start = learner.meta()
        fast = learner.fast(start)
        still = [name for name in fast if torch.equal(adapted[name], start[name].expand_as(adapted[name]))]
        remedy = "the inner loss does not depend on them, choose another inner.loss or inner.adapt"
        yield judged(len(still) < len(fast), f"the inner loop moves {len(fast) - len(still)} of {len(fast)} parameters", remedy)
    dead = [name for name, g in exact.items() if not g.any()]
    listed = f", none by {', '.join(dead[:5])}{' ...' if len(dead) > 5 else ''}" if dead else ""
    remedy = "nothing would be learned, see that the features differ between images and, where a target is bootstrapped, raise objective.delta"
    yield judged(len(dead) < len(exact), f"the objective learns {len(exact) - len(dead)} of {len(exact)} meta-parameters{listed}", remedy)


def _own_size(pipeline: Pipeline, own: str, learns: bool, tell: Tell) -> Iterator[Finding]:
    """What is measured on the pipeline as users run it."""
    tell("building the pipeline at its own size")
    flow = build(pipeline)
    if learns:
        engines, _ = _engines(flow)
        yield from precision(flow, engines, own, tell)
    yield from _cost(flow, tell)


def _cost(flow: Flow, tell: Tell) -> Iterator[Finding]:
    """Time and memory of one outer step at the pipeline's own size, from as many tasks as run side by side, or the first eight of a vmapped batch."""
    tell("time and memory of an outer step")
    episode = flow.episode(1)
    tasks = task_count(episode)
    learner, measured = flow.learner, []
    counts = ((4, 8) if tasks > 8 else (tasks,)) if learner.engine.batches else (min(learner.engine.workers, tasks),)
    for count in counts:
        measured.append(_measured(functools.partial(learner.outcome, first_tasks(episode, count)), flow.device))
    seconds, memory = measured[-1]
    if len(measured) == 2:
        seconds += (seconds - measured[0][0]) * (tasks - 8) / 4
        memory += (memory - measured[0][1]) * (tasks - 8) / 4
    else:
        seconds *= tasks / counts[0]
    yield fact(f"engine {learner.engine.description}")
    yield fact(f"about {seconds:.2g} s and {max(memory, 0) / 2**20:,.0f} MiB beyond what is loaded per outer step of {tasks} tasks on {flow.device}")


def _measured(run: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    before = peak_memory(reset=True, device=device)
    run()
    memory = peak_memory(device=device) - before
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, memory
