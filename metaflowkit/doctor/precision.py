"""The error of the precision that users run, most often float32: how far its meta-gradients are from those in float64, and whether arithmetic or conditioning is the cause."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from metaflowkit.composition.flow import Flow
from metaflowkit.doctor.branches import Branches, BranchMismatch
from metaflowkit.doctor.faults import meaning
from metaflowkit.doctor.findings import Finding, Tell, Verdict, fact, undecided, wrong
from metaflowkit.doctor.oracle import apart
from metaflowkit.doctor.reduced import in_double, rounded
from metaflowkit.engines.base import Engine, MetaLearner
from metaflowkit.engines.safety import unsafe
from metaflowkit.errors import ConfigError
from metaflowkit.types import Episode, first_tasks

TASKS, LEAST = 5, 3  # tasks, and how many of them the pipeline's own engine computes even on a slow machine
BOUND = 1e-2  # on the relative error of the median task
LOST = 100.0  # times the effect of one rounding of images and weights: sound float32 arithmetic stays below 15, statistics that lose digits are above 300
ROUNDING = 2.0**-24  # half the distance of neighbouring float32 numbers near 1


@dataclass(frozen=True)
class Precision:
    """One task in float32 and float64; all relative to the norm of the gradient in float64.

    Attributes:
        error: of the gradient in the pipeline's precision.
        arithmetic: the same with every ReLU, pooling and comparison on its branch in float64; None where the operations differ.
        sensitivity: what rounding images and weights to float32 does, everything else in float64, on the same branches.
    """

    error: float
    arithmetic: float | None
    sensitivity: float | None


def precision(flow: Flow, engines: Mapping[str, Engine], pipeline_engine: str, tell: Tell, seconds: float = 60.0) -> Iterator[Finding]:
    """The pipeline's own tasks, one at a time and at their own size, in the pipeline's precision and in float64.

    A gradient that is far off although arithmetic is sound is ill-conditioned: rounding moves units across the kinks of ReLUs and poolings, where the
    inner gradient jumps. So the comparison is made twice, as it is and on the same branches, where float64 shows the effect of one rounding.

    Args:
        flow: the pipeline as users run it.
        engines: by the name that findings give them.
        pipeline_engine: the name of the pipeline's engine, which gets half of the time.
        tell: called with the task that is computed.
        seconds: after which no further task is begun, except that the pipeline's engine computes three that take less than this each.
    """
    learner = flow.learner
    chosen = flow.pipeline.precision
    if chosen == "float64":
        yield fact("precision: float64, in which the gradient was checked")
        return
    model = copy.deepcopy(flow.model).double()
    model.precision = "float64"
    exact = dataclasses.replace(learner, model=model)
    seconds_per_task = 0.0
    for name in [pipeline_engine, *(name for name in engines if name != pipeline_engine)]:
        engine = engines[name]
        if seconds_per_task > seconds / 6:
            yield fact(f"engine {name}, {chosen}: left out, since a task takes {seconds_per_task:.0f} s")
            continue
        if engine.batches and name != pipeline_engine and unsafe(learner.model, vmap=True, second=False):
            continue
        started, results, budget = time.monotonic(), [], seconds / 2 if name == pipeline_engine else seconds / 6
        for i in range(1, TASKS + 1):
            tell(f"{chosen} against float64, engine {name}, task {i} of {TASKS}")
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "There is a performance drop")
                    results.append(_measured(engine, learner, exact, first_tasks(flow.episode(i), 1)))
            except Exception as error:
                text = str(error) if isinstance(error, ConfigError) else meaning(error)
                yield wrong(f"engine {name}, {chosen}: {text}") if name == pipeline_engine else fact(f"engine {name}, {chosen}: {text}")
                break
            elapsed = time.monotonic() - started
            if elapsed > budget and (name != pipeline_engine or len(results) >= LEAST or elapsed / len(results) > seconds):
                break
        seconds_per_task = max(seconds_per_task, (time.monotonic() - started) / max(len(results), 1))
        if results:
            yield _judged(name, chosen, results, flow.interface.way if flow.interface.few_shot else 0)


def _measured(engine: Engine, learner: MetaLearner, exact: MetaLearner, task: Episode) -> Precision:
    task64 = in_double(task)
    error = apart(engine.outcome(learner, task).gradients, engine.outcome(exact, task64).gradients)
    branches = Branches()
    try:
        with branches.used():
            reference = engine.outcome(exact, task64).gradients
        with branches.used():
            arithmetic = apart(engine.outcome(learner, task).gradients, reference)
        with branches.used():
            rounded_gradients = engine.outcome(*rounded(exact, task64, ROUNDING)).gradients
    except (BranchMismatch, RuntimeError):
        return Precision(error, None, None)
    return Precision(error, arithmetic, apart(rounded_gradients, reference))


def _judged(engine: str, chosen: str, results: list[Precision], way: int) -> Finding:
    errors = [p.error for p in results]
    median_error = median(errors)
    count = f"{len(results)} task{'s' * (len(results) != 1)}{f' of {way} ways' if way else ''}"
    text = (
        f"engine {engine}, {chosen}: the meta-gradient is {median_error:.0e} away from the one in float64 "
        f"in the median of {count}, {max(errors):.0e} at worst (relative)"
    )
    if not math.isfinite(median_error):
        return wrong(
            f"engine {engine}, {chosen}: the meta-gradient is not finite where the one in float64 is; lower inner.rule.lr, or add an eps under roots and quotients"
        )
    comparisons = [(p.arithmetic, p.sensitivity) for p in results if p.arithmetic is not None and p.sensitivity is not None]
    if median_error <= BOUND:
        return Finding(Verdict.PASSED, text)
    if chosen != "float32":
        return undecided(
            f"{text}: {chosen} rounds the operands of the backbone; where training suffers from it, choose precision: float32, or lower inner.rule.lr or inner.steps"
        )
    if not comparisons:
        return undecided(
            f"{text}; whether by inaccurate arithmetic or by units that change sides at their kinks cannot be told, since other operations run each time",
        )
    arithmetic, sensitivity = median(a for a, _ in comparisons), median(s for _, s in comparisons)
    comparison = f"on the same branches of ReLUs and poolings {arithmetic:.0e}, where one rounding of images and weights does {sensitivity:.0e}"
    if sensitivity > BOUND:
        return undecided(f"{text}; {comparison}, so that no float32 arithmetic could do better: lower inner.rule.lr or inner.steps")
    if arithmetic <= LOST * sensitivity:
        return Finding(
            Verdict.PASSED, f"{text}; {comparison}: ill-conditioned, not wrong, since units that rounding moves across their kinks change the gradient"
        )
    return wrong(
        f"{text}; {comparison}: float32 arithmetic loses digits, most often in a variance (E[x^2] - E[x]^2, "
        "or torch's batch normalisation of channels-last images on a CPU), in bfloat16 or TF32 operations, "
        "or in long sums; compute such statistics in float64 or from centred values, or choose another norm"
    )
