"""Every engine's value and meta-gradient against the plain loop, and the plain loop's against finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from metaflowkit.doctor.faults import meaning
from metaflowkit.doctor.findings import Finding, Tell, Verdict, fact, undecided, wrong
from metaflowkit.doctor.oracle import CONVERGED, Oracle, Slope, along, apart, length
from metaflowkit.doctor.reduced import rounded
from metaflowkit.engines.base import Engine, MetaLearner
from metaflowkit.engines.safety import unsafe
from metaflowkit.errors import ConfigError
from metaflowkit.types import Episode, Outcome

WRONG = 1e-6  # of a slope, relative to finite differences that have converged to a tenth of it
AMPLIFIED = 100.0  # times the effect of one rounding: the largest effect of other orders of summation
CLOSE = 1e-9  # of values and gradients in float64, between two ways to compute the same

Recompute = Callable[[MetaLearner, Episode], Outcome]


def compare_engines(
    engines: Mapping[str, Engine], pipeline_engine: str, learner: MetaLearner, episode: Episode, reference: Outcome, name: str, recompute: Recompute, tell: Tell
) -> Iterator[Finding]:
    """Run every engine in the order ``exact`` and compare its value and gradient with a reference.

    Args:
        engines: by the name that findings give them.
        pipeline_engine: the name of the pipeline's engine, whose failure is a fault; another engine's is a fact.
        learner: what adapts.
        episode: tasks.
        reference: the expected outcome.
        name: of the reference.
        recompute: computes the reference, to see what one rounding of images and weights does where an engine differs.
        tell: called with the engine that runs.
    """
    for engine_name, engine in engines.items():
        if engine.batches and engine_name != pipeline_engine and unsafe(learner.model, vmap=True, second=False):
            continue
        tell(f"the meta-gradient of engine {engine_name}")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")  # of vmap, which is not what is checked here
                outcome = engine.outcome(learner, episode)
        except Exception as error:
            text = f"engine {engine_name}: {error}" if isinstance(error, ConfigError) else f"engine {engine_name} cannot run this model: {meaning(error)}"
            yield wrong(text) if engine_name == pipeline_engine else fact(text)
            continue
        value = (outcome.value - reference.value).abs().item() / max(reference.value.abs().item(), 1e-300)
        gradient = apart(outcome.gradients, reference.gradients)
        text = f"engine {engine_name}: its value is {value:.0e} and its meta-gradient {gradient:.0e} (relative) away from those of {name}"
        if max(value, gradient) <= CLOSE:
            yield Finding(Verdict.PASSED, text)
            continue
        rounded_outcome = recompute(*rounded(learner, episode, 2.0**-53))
        sensitivity = apart(rounded_outcome.gradients, reference.gradients)
        if gradient <= AMPLIFIED * sensitivity:
            yield undecided(
                f"{text}, where rounding images and weights in float64 does {sensitivity:.0e}: check it with a lower inner.rule.lr or fewer inner.steps"
            )
        else:
            yield wrong(f"{text}; this engine computes something else than the model as it is called plainly: choose another inner.engine")


def compare_slopes(learner: MetaLearner, reference: Outcome, name: str, oracle: Oracle, slopes: Sequence[Slope]) -> Finding:
    """The reference's gradient against finite differences.

    A gradient is wrong only where the differences of two distances, a hundredfold apart, agree with each other and not with it; it is
    undecided where the differences do not converge.
    """
    size = length(reference.gradients)
    converged = [slope for slope in slopes if slope.converged(size)]
    condition = ", with the branches of ReLUs and poolings held" if slopes and slopes[0].held else ""
    if not converged:
        spread = min(slope.uncertainty for slope in slopes) / size
        return undecided(
            f"{name}: finite differences do not converge{condition}: at every distance they scatter by {spread:.0e} or more, "
            f"against {CONVERGED:.0e} that would decide; the objective jumps or its rounding errors are large: "
            "try smooth activations (softplus for relu, average for max-pooling), "
            "fewer inner.steps or a lower inner.rule.lr, with which the same modules can be checked"
        )
    errors = [abs(along(reference.gradients, slope.direction) - slope.value) / size for slope in converged]
    text = f"{name}: meta-gradient and finite differences differ by {median(errors):.0e} (relative, {len(converged)} of {len(slopes)} directions{condition})"
    if max(errors) <= WRONG:
        return Finding(Verdict.PASSED, text)
    worst = converged[errors.index(max(errors))]
    refined = oracle.slope(worst.direction, size, (worst.distance / 100, worst.distance / 1000, worst.distance * 100))
    spread = max(refined.uncertainty, abs(refined.value - worst.value)) / size
    if spread > max(errors) / 10:
        return undecided(
            f"{name}: meta-gradient and finite differences differ by {max(errors):.0e}, and the differences of two distances by {spread:.0e}; "
            "try smooth activations, fewer inner.steps or a lower inner.rule.lr, with which the same modules can be checked"
        )
    return wrong(
        f"{name}: meta-gradient and finite differences differ by {max(errors):.0e} (relative{condition}); do not train with it: "
        "an operation has a wrong derivative, see the modules above, autograd.Functions and detached tensors"
    )
