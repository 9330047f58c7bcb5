"""``mfk doctor``: is the meta-gradient of this very pipeline right, what is unsafe in it, and what does a step cost."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from metaflowkit.engines.auto import simplest
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.orders import Exact, Implicit
from metaflowkit.engines.parts import Engine, Parts
from metaflowkit.engines.safety import unsafe
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.flow import Flow, build
from metaflowkit.inner.higher_optimizer import HigherOptimizer
from metaflowkit.memory import peak_memory
from metaflowkit.nodes import Pipeline
from metaflowkit.seeding import generator_for
from metaflowkit.values import Adapted, Episode, Labelled, Params

WRONG, CLOSE = 1e-5, 1e-9
LARGE = 1_000_000  # meta-parameters, above which one task must do


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        right: whether all is well; None for a plain fact.
        text: what was found, and what to do where something is wrong.
    """

    right: bool | None
    text: str

    def __str__(self) -> str:
        return f"{'     ' if self.right is None else 'right' if self.right else 'WRONG'}  {self.text}"


def diagnose(pipeline: Pipeline, directions: int = 3) -> Iterator[Finding]:
    """Build the pipeline small, in float64, and hold its meta-gradient against finite differences in every engine.

    The oracle moves all meta-parameters along directions, half gradient and half random, and differences the objective's value,
    with the target of a bootstrap held where it is, since it carries no gradient. Networks with kinks (ReLU, max-pooling) may
    cross one: each direction takes the best of several distances, and the median over directions counts.

    Args:
        pipeline: what :func:`metaflowkit.read` returned.
        directions: how many.

    Yields:
        Findings as they come.
    """
    flow = build(small(pipeline))
    parts, episode = doubled(flow)
    yield Finding(
        None, f"tasks of {episode.way} ways in float64 ({len(episode.support.x)} at once), {sum(p.numel() for p in parts.model.parameters()):,} meta-parameters"
    )
    yield from _modules(parts)
    exact = dataclasses.replace(parts, order=Exact(), remat=False)
    reference = simplest(exact.rule).outcome(exact, episode).gradients
    slopes = list(finite_differences(exact, episode, reference, directions))
    engines: dict[str, Engine] = {"higher": HigherEngine()}
    if not isinstance(parts.rule, HigherOptimizer):
        engines |= {"vectorized, chunk 1": VectorizedEngine(chunk=1), "vectorized": VectorizedEngine()}
    for name, engine in engines.items():
        yield from _engine(name, engine, exact, episode, slopes, reference)
    yield from _order(parts, episode, reference)
    yield from _movement(parts, episode, reference)
    yield from _cost(pipeline)


def small(pipeline: Pipeline) -> Pipeline:
    """The same pipeline with few ways, views, tasks and inner steps."""
    most = {"way": 3, "shot": 2, "query": 2, "meta_batch": 2}
    settings = {key: min(value, most.get(key, value)) if isinstance(value, int) else value for key, value in pipeline.tasks.settings.items()}
    order = pipeline.inner.order
    steps = min(pipeline.inner.steps, 3) if order.name != "implicit" else pipeline.inner.steps
    if "last" in order.settings:
        order = dataclasses.replace(order, settings={**order.settings, "last": min(order.settings["last"], steps)})
    inner = dataclasses.replace(pipeline.inner, steps=steps, order=order)
    return dataclasses.replace(pipeline, device="cpu", tasks=dataclasses.replace(pipeline.tasks, settings=settings), inner=inner)


def doubled(flow: Flow) -> tuple[Parts, Episode]:
    """The learner's parts and the tasks of the first step in float64."""
    flow.learner.model.double()
    episode = flow.episode(1)
    tasks = 1 if sum(p.numel() for p in flow.learner.model.parameters()) > LARGE else len(episode.support.x)
    support, query = (Labelled(s.x[:tasks].double(), s.y[:tasks]) for s in (episode.support, episode.query))
    return flow.learner.parts, Episode(support, query, episode.way, episode.seed)


def finite_differences(parts: Parts, episode: Episode, gradients: Params, directions: int) -> Iterator[tuple[Params, list[float]]]:
    """(direction of length 1, slopes of the objective along it at several distances), by central differences."""
    held = _held(parts, episode)
    model = parts.model
    start = {name: p.clone() for name, p in parts.meta().items()}

    def value(direction: Params, distance: float) -> float:
        model.load_state_dict({name: p + distance * direction[name] for name, p in start.items()}, strict=False)
        return held().item()

    try:
        for i in range(directions):
            generator = generator_for(0, "doctor", i)
            chance = _unit({name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in start.items() if name in gradients})
            direction = {name: torch.zeros_like(p) for name, p in start.items()} | _unit({n: g + chance[n] for n, g in _unit(gradients).items()})
            yield direction, [(value(direction, h) - value(direction, -h)) / (2 * h) for h in (1e-5, 1e-7, 1e-8, 1e-9)]
    finally:
        model.load_state_dict(start, strict=False)


def _unit(vector: Params) -> Params:
    length = torch.stack([x.square().sum() for x in vector.values()]).sum().sqrt().clamp_min(1e-300)
    return {name: x / length for name, x in vector.items()}


def _held(parts: Parts, episode: Episode) -> Callable[[], Tensor]:
    """The objective's value as a function of the meta-parameters alone: further steps of a target stay what they were at the start."""
    engine = simplest(parts.rule)
    steps: list[Any] = []

    def recording(adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        def kept(function: Callable[..., Any]) -> Callable[..., Any]:
            def record(*args: Any) -> Any:
                steps.append(function(*args))
                return steps[-1]

            return record

        return parts.objective(dataclasses.replace(adapted, advance=kept(adapted.advance), descend=kept(adapted.descend)), task)

    engine.outcome(dataclasses.replace(parts, objective=recording), episode)

    def value() -> Tensor:
        left = iter(steps)

        def replaying(adapted: Adapted, task: Episode) -> tuple[Tensor, dict[str, Tensor]]:
            return parts.objective(dataclasses.replace(adapted, advance=lambda *_: next(left), descend=lambda *_: next(left)), task)

        return engine.outcome(dataclasses.replace(parts, objective=replaying), episode).value

    return value


def _modules(parts: Parts) -> Iterator[Finding]:
    found = unsafe(parts.model, vmap=False, second=True)
    yield from (Finding(False, problem) for problem in found)
    if not found:
        yield Finding(True, "no module is known to lack a right second derivative")
    yield from (Finding(None, f"for the vectorized engine on a batch of tasks: {problem}") for problem in unsafe(parts.model, vmap=True, second=False))


def _engine(name: str, engine: Engine, parts: Parts, episode: Episode, slopes: list[tuple[Params, list[float]]], reference: Params) -> Iterator[Finding]:
    if engine.batches and unsafe(parts.model, vmap=True, second=False):
        return
    try:
        gradients = engine.outcome(parts, episode).gradients
    except ConfigError as error:
        yield Finding(None, str(error))
        return
    scale = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt().item()
    errors = []
    for direction, differences in slopes:
        along = sum((gradients[n] * direction[n]).sum().item() for n in gradients)
        size = max(abs(along), 1e-3 * scale, 1e-12)
        errors.append(min(abs(along - d) for d in differences) / size)
    away = median(errors)
    verdict = Finding(away < WRONG, f"engine {name}: meta-gradient and finite differences differ by {away:.0e} (relative, median of {len(errors)} directions)")
    yield (
        verdict
        if verdict.right
        else dataclasses.replace(verdict, text=verdict.text + "; do not train with it, see the modules above or an operation without second derivative")
    )
    apart = max(((gradients[n] - reference[n]).norm() / max(scale, 1e-300)).item() for n in gradients)
    if apart > CLOSE:
        yield Finding(
            False, f"engine {name}: its meta-gradient is {apart:.0e} away from that of the other engines; use the one that agrees with finite differences"
        )


def _order(parts: Parts, episode: Episode, exact: Params) -> Iterator[Finding]:
    if isinstance(parts.order, Exact):
        return
    found = simplest(parts.rule).outcome(parts, episode).gradients
    a, b = (torch.cat([g[name].flatten() for name in exact]) for g in (found, exact))
    cosine = (a @ b / (a.norm() * b.norm()).clamp_min(1e-300)).item()
    name = type(parts.order).__name__.lower()
    text = f"order {name}: its gradient has the cosine {cosine:.3f} with the exact one"
    if isinstance(parts.order, Implicit):
        away = ((a - b).norm() / b.norm()).item()
        right = away < 0.05
        yield Finding(
            right, f"{text} and is {away:.0e} away from it" + ("" if right else "; the inner loop has not converged, raise inner.steps or inner.proximal")
        )
    else:
        yield Finding(None, f"{text}, by design")


def _movement(parts: Parts, episode: Episode, exact: Params) -> Iterator[Finding]:
    if parts.steps:
        adapted = simplest(parts.rule).adapt(parts, episode.support, episode).params
        start = parts.meta()
        still = [name for name in parts.fast(start) if torch.equal(adapted[name], start[name].expand_as(adapted[name]))]
        right = len(still) < len(parts.fast(start))
        yield Finding(
            right,
            f"the inner loop moves {len(parts.fast(start)) - len(still)} of {len(parts.fast(start))} parameters"
            + ("" if right else "; the inner loss does not depend on them, choose another inner.loss or inner.adapt"),
        )
    dead = [name for name, g in exact.items() if not g.any()]
    right = len(dead) < len(exact)
    listed = f", none by {', '.join(dead[:5])}{' ...' if len(dead) > 5 else ''}" if dead else ""
    yield Finding(
        right,
        f"the objective learns {len(exact) - len(dead)} of {len(exact)} meta-parameters{listed}"
        + (
            ""
            if right
            else "; nothing would be learned, see that the features differ between images and, where a target is bootstrapped, raise objective.delta"
        ),
    )


def _cost(pipeline: Pipeline) -> Iterator[Finding]:
    """Time and memory of one outer step at the pipeline's own size, from as many tasks as run side by side, or the first eight of a vmapped batch."""
    flow = build(pipeline)
    episode = flow.episode(1)
    tasks = len(episode.support.x)
    learner, measured = flow.learner, []
    counts = ((4, 8) if tasks > 8 else (tasks,)) if learner.engine.batches else (min(learner.engine.workers, tasks),)
    for count in counts:
        support, query = (Labelled(s.x[:count], s.y[:count]) for s in (episode.support, episode.query))
        measured.append(_measured(functools.partial(learner.outcome, Episode(support, query, episode.way, episode.seed)), flow.device))
    seconds, memory = measured[-1]
    if len(measured) == 2:
        seconds += (seconds - measured[0][0]) * (tasks - 8) / 4
        memory += (memory - measured[0][1]) * (tasks - 8) / 4
    else:
        seconds *= tasks / counts[0]
    yield Finding(None, f"engine {learner.engine.description}")
    yield Finding(None, f"about {seconds:.2g} s and {max(memory, 0) / 2**20:,.0f} MiB beyond what is loaded per outer step of {tasks} tasks on {flow.device}")


def _measured(run: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    before = peak_memory(reset=True, device=device)
    run()
    memory = peak_memory(device=device) - before
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, memory
