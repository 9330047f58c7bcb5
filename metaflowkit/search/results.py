"""The results of a study: its best trials, their pipelines, and the importance of parameters."""

from __future__ import annotations

import contextlib
import csv
import io
import warnings
from collections import Counter
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from metaflowkit.config.types import Pipeline
from metaflowkit.config.yaml import write_atomic
from metaflowkit.search.distributions import suggest
from metaflowkit.search.study import Study
from metaflowkit.search.trial_queue import ENDED, GOES_ON, REQUEUED

BEST = "best.yaml"
SHOWN = 10  # of the best trials


def best_trials(study: Study) -> list[FrozenTrial]:
    """Complete trials within the limits, the best first; of several metrics only the Pareto front, sorted by the first metric."""
    metrics = study.search.metrics
    limits = study.search.settings.limits.set()
    trials = [
        t
        for t in study.queue.trials(TrialState.COMPLETE)
        if t.values is not None and all(t.user_attrs.get(name, 0.0) <= limit for name, limit in limits.items())
    ]
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in metrics.values()]

    def costs(trial: FrozenTrial) -> list[float]:
        return [sign * value for sign, value in zip(signs, trial.values)]

    if len(signs) > 1:
        trials = [t for t in trials if not any(_beats(costs(other), costs(t)) for other in trials)]
    return sorted(trials, key=costs)


def _beats(a: list[float], b: list[float]) -> bool:
    return all(x <= y for x, y in zip(a, b)) and a != b


def pipeline_of(study: Study, trial: FrozenTrial) -> Pipeline:
    """The pipeline of a trial that has run."""
    return study.search.at(suggest(optuna.trial.FixedTrial(trial.params), study.search.axes))  # type: ignore[arg-type]


def line_about(study: Study, trial: FrozenTrial, done: int) -> str:
    """One line about a trial that has ended."""
    if REQUEUED in trial.user_attrs:
        return f"trial {trial.number}: {trial.user_attrs.get(ENDED)}, and is re-queued"
    facts = [f"{name}={_short(value)}" for name, value in trial.params.items()]
    best = best_trials(study)
    leader = f"; best {_values(study, best[0])} in trial {best[0].number}" if best else ""
    outcome = _values(study, trial) if trial.state == TrialState.COMPLETE else trial.user_attrs.get(ENDED) or trial.state.name.lower()
    seconds = trial.user_attrs.get("seconds")
    return f"trial {trial.number}: {outcome}  {' '.join(facts)}  {f'{seconds:.0f} s' if seconds else ''} ({done} of {study.search.trials}{leader})"


def summary(study: Study) -> list[str]:
    """What ``mfk search show`` prints."""
    trials = [t for t in study.queue.trials() if REQUEUED not in t.user_attrs]
    counts = Counter(t.state.name.lower() for t in trials)
    lines = [f"study {study.search.settings.name}: {', '.join(f'{n} {state}' for state, n in counts.items())} of {study.search.trials} trials"]
    reasons = Counter(_kind(t.user_attrs[ENDED]) for t in trials if t.user_attrs.get(ENDED))
    lines += [f"  {n} {reason}" for reason, n in reasons.most_common()]
    best = best_trials(study)
    if not best:
        return [*lines, "no trial is complete and within the limits, so there is no best one; see the reasons above, and trials.csv for each trial's"]
    metrics, names = list(study.search.metrics), [*dict.fromkeys(name for t in best[:SHOWN] for name in t.params)]
    rows = [["trial", *metrics, *names, "seconds"]]
    for t in best[:SHOWN]:
        mark = " (the pipeline itself)" if t.params == study.search.baseline else ""
        rows.append(
            [f"{t.number}{mark}", *_each(study, t), *(_short(t.params[n]) if n in t.params else "" for n in names), f"{t.user_attrs.get('seconds', 0):.0f}"]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines += ["", *("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)]
    for weights, count in importances(study):
        lines += ["", f"importance for {metrics[0]} in {count} complete trials", *(f"  {name:<32}{weight:6.2f}" for name, weight in weights.items())]
    spent, overhead = (sum(t.user_attrs.get(key, 0.0) for t in trials) for key in ("seconds", "search seconds"))
    return [*lines, "", f"trials took {spent:.0f} s, the search around them {100 * overhead / max(spent + overhead, 1e-9):.1f} % of it"]


def plain(study: Study) -> dict[str, Any]:
    """What was found, as JSON values: trials by state, the best ones with their values and parameters, and importances."""
    trials = [t for t in study.queue.trials() if REQUEUED not in t.user_attrs]
    return {
        "study": study.search.settings.name,
        "folder": str(study.folder),
        "trials": study.search.trials,
        "states": dict(Counter(t.state.name.lower() for t in trials)),
        "ended": dict(Counter(_kind(t.user_attrs[ENDED]) for t in trials if t.user_attrs.get(ENDED))),
        "best": [
            {"trial": t.number, "values": dict(zip(study.search.metrics, t.values)), "parameters": t.params, "seconds": t.user_attrs.get("seconds")}
            for t in best_trials(study)[:SHOWN]
        ],
        "importances": [{"parameters": dict(weights), "complete_trials": count} for weights, count in importances(study)],
    }


def importances(study: Study) -> list[tuple[dict[str, float], int]]:
    """How much of the first metric's variance each parameter explains (Optuna's fANOVA), and in how many complete trials.

    Parameters that occur in the same trials are weighed against each other: first those of all trials, then those that a
    choice has of its own. One parameter alone, and what too few trials have, is left out.
    """
    names_by_trials: dict[frozenset[int], list[str]] = {}
    complete = study.queue.trials(TrialState.COMPLETE)
    for name in dict.fromkeys(name for t in complete for name in t.params):
        names_by_trials.setdefault(frozenset(t.number for t in complete if name in t.params), []).append(name)
    groups = []
    for trials, names in sorted(names_by_trials.items(), key=lambda item: -len(item[0])):
        with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):  # fewer than two trials, or all of one value
            warnings.simplefilter("ignore")
            if len(names) > 1:
                weights = optuna.importance.get_param_importances(study.queue.open(), evaluator=fanova(), params=names, target=lambda t: t.values[0])
                groups.append((weights, len(trials)))
    return groups


def fanova() -> optuna.importance.BaseImportanceEvaluator:
    """Shares of the variance by a forest (Hutter et al. 2014), the same at every call; of 64 trees, Optuna's number, they differ by a tenth between seeds."""
    return optuna.importance.FanovaImportanceEvaluator(n_trees=512, seed=0)


def write_results(study: Study) -> list[str]:
    """Write ``trials.csv`` and, where a trial is complete, ``best.yaml``; the names of what was written."""
    trials = study.queue.trials()
    params = [*dict.fromkeys(name for t in trials for name in t.params)]
    metrics = list(study.search.metrics)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["trial", "state", "ended", *metrics, *params, "seconds", "memory", GOES_ON])
    for t in trials:
        values = t.values or [""] * len(metrics)
        attributes = [t.user_attrs.get(key, "") for key in ("seconds", "memory", GOES_ON)]
        table.writerow([t.number, t.state.name.lower(), t.user_attrs.get(ENDED, ""), *values, *(t.params.get(n, "") for n in params), *attributes])
    write_atomic(study.folder / "trials.csv", text.getvalue().encode())
    best = best_trials(study)
    if not best:
        return ["trials.csv"]
    head = f"# trial {best[0].number} of the study {study.search.settings.name}: {_values(study, best[0])}\n"
    write_atomic(study.folder / BEST, (head + pipeline_of(study, best[0]).to_yaml()).encode())
    return ["trials.csv", BEST]


def _kind(reason: str) -> str:
    """The kind of a reason, for counting."""
    return reason.split(" at outer step")[0].split(":")[0]


def _each(study: Study, trial: FrozenTrial) -> list[str]:
    metric = study.search.pipeline.metric
    return [
        f"{metric.text(v)}{metric.unit}" if m.startswith("val/") else f"{v:.0f} s" if m == "seconds" else f"{v:.0f} MiB"
        for m, v in zip(study.search.metrics, trial.values)
    ]


def _values(study: Study, trial: FrozenTrial) -> str:
    return ", ".join(_each(study, trial))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
