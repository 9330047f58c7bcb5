"""What users run is float32: how far its meta-gradients are from those in float64, and whether arithmetic or the problem is to blame."""

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

TASKS, LEAST = 5, 3  # tasks, and how many of them the pipeline's own engine computes also on a slow machine
BOUND = 1e-2  # on the relative error of the median task
LOST = 100.0  # times the effect of one rounding of images and weights: sound float32 arithmetic stays below 15, statistics that lose digits are above 300
ROUNDING = 2.0**-24  # half the distance of neighbouring float32 numbers near 1


@dataclass(frozen=True)
class Precision:
    """One task in float32 and float64; all relative to the norm of the gradient in float64.

    Attributes:
        error: of the gradient in float32, as users get it.
        arithmetic: the same with every ReLU, pooling and comparison on the branch it takes in float64; None where that cannot be had.
        sensitivity: what rounding images and weights to float32 does, everything else in float64, on the same branches.
    """

    error: float
    arithmetic: float | None
    sensitivity: float | None


def precision(flow: Flow, engines: Mapping[str, Engine], own: str, tell: Tell, seconds: float = 60.0) -> Iterator[Finding]:
    """The pipeline's own tasks, one at a time and at their own size, in float32 and float64.

    A gradient that is far off although arithmetic is sound is ill-conditioned: rounding moves units across the kinks of ReLUs and poolings, where the
    inner gradient jumps. So the comparison is made twice, as it is and on the same branches, where float64 itself says what one rounding does.

    Args:
        flow: the pipeline as users run it.
        engines: by the name that findings give them.
        own: the name of the pipeline's engine, which gets half of the time.
        tell: told which task is computed.
        seconds: after which no further task is begun, except that the pipeline's engine computes three that take less than this each.
    """
    learner = flow.learner
    exact = dataclasses.replace(learner, model=copy.deepcopy(learner.model).double())
    slow = 0.0
    for name in [own, *(name for name in engines if name != own)]:
        engine = engines[name]
        if slow > seconds / 6:
            yield fact(f"engine {name}, float32: left out, since a task takes {slow:.0f} s")
            continue
        if engine.batches and name != own and unsafe(learner.model, vmap=True, second=False):
            continue
        started, measured, share = time.monotonic(), [], seconds / 2 if name == own else seconds / 6
        for i in range(1, TASKS + 1):
            tell(f"float32 against float64, engine {name}, task {i} of {TASKS}")
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "There is a performance drop")
                    measured.append(_measured(engine, learner, exact, first_tasks(flow.episode(i), 1)))
            except Exception as error:
                text = str(error) if isinstance(error, ConfigError) else meaning(error)
                yield wrong(f"engine {name}, float32: {text}") if name == own else fact(f"engine {name}, float32: {text}")
                break
            passed = time.monotonic() - started
            if passed > share and (name != own or len(measured) >= LEAST or passed / len(measured) > seconds):
                break
        slow = max(slow, (time.monotonic() - started) / max(len(measured), 1))
        if measured:
            yield _judged(name, measured, flow.pipeline.tasks.settings.get("way", 0))


def _measured(engine: Engine, learner: MetaLearner, exact: MetaLearner, task: Episode) -> Precision:
    double = in_double(task)
    error = apart(engine.outcome(learner, task).gradients, engine.outcome(exact, double).gradients)
    branches = Branches()
    try:
        with branches.used():
            reference = engine.outcome(exact, double).gradients
        with branches.used():
            arithmetic = apart(engine.outcome(learner, task).gradients, reference)
        with branches.used():
            moved = engine.outcome(*rounded(exact, double, ROUNDING)).gradients
    except (BranchMismatch, RuntimeError):
        return Precision(error, None, None)
    return Precision(error, arithmetic, apart(moved, reference))


def _judged(engine: str, measured: list[Precision], way: int) -> Finding:
    errors = [p.error for p in measured]
    typical = median(errors)
    count = f"{len(measured)} task{'s' * (len(measured) != 1)}{f' of {way} ways' if way else ''}"
    text = f"engine {engine}, float32: the meta-gradient is {typical:.0e} away from the one in float64 in the median of {count}, {max(errors):.0e} at worst (relative)"
    if not math.isfinite(typical):
        return wrong(
            f"engine {engine}, float32: the meta-gradient is not finite where the one in float64 is; lower inner.rule.lr, or add an eps under roots and quotients"
        )
    held = [(p.arithmetic, p.sensitivity) for p in measured if p.arithmetic is not None and p.sensitivity is not None]
    if typical <= BOUND:
        return Finding(Verdict.PASSED, text)
    if not held:
        return undecided(
            f"{text}; whether by inaccurate arithmetic or by units that change sides at their kinks cannot be told, since other operations run each time",
        )
    arithmetic, sensitivity = median(a for a, _ in held), median(s for _, s in held)
    compared = f"on the same branches of ReLUs and poolings {arithmetic:.0e}, where one rounding of images and weights does {sensitivity:.0e}"
    if sensitivity > BOUND:
        return undecided(f"{text}; {compared}, so that no float32 arithmetic could do better: lower inner.rule.lr or inner.steps")
    if arithmetic <= LOST * sensitivity:
        return Finding(
            Verdict.PASSED, f"{text}; {compared}: ill-conditioned, not wrong, since units that rounding moves across their kinks change the gradient"
        )
    return wrong(
        f"{text}; {compared}: float32 arithmetic loses digits, most often in a variance (E[x^2] - E[x]^2, or torch's batch normalisation of channels-last images "
        "on a CPU), in bfloat16 or TF32 operations, or in long sums; compute such statistics in float64 or from centred values, or choose another norm"
    )
