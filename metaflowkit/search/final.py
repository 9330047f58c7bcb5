"""The last runs of a search: the best pipeline, with several seeds, on test classes, beside the pipeline that the search started from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from metaflowkit.config.metric import Metric
from metaflowkit.evaluation.scores import Score, paired
from metaflowkit.search.results import BEST, best_trials
from metaflowkit.search.study import Study
from metaflowkit.training.final_scores import FinalScores, is_finished, read_final_scores

BASELINE = "baseline.yaml"
ITSELF = "the pipeline itself"


def final_sources(study: Study) -> dict[str, str]:
    """The pipelines that are trained again: by name, the file in the study's folder."""
    final, best = study.search.settings.final, best_trials(study)
    if not best or not final.seeds:
        return {}
    baseline = {ITSELF: BASELINE} if final.baseline and best[0].params != study.search.baseline else {}
    return {f"trial {best[0].number}": BEST, **baseline}


def final_runs(study: Study) -> dict[str, dict[int, Path]]:
    """The run directories by name and seed, whether or not they exist yet."""
    folder, seeds = study.folder / "final", study.search.settings.final.seeds
    return {name: {seed: folder / f"{name.replace(' ', '-')}-seed-{seed}" for seed in seeds} for name in final_sources(study)}


def final_table(runs: Mapping[str, Mapping[int, Path]], metric: Metric) -> list[str]:
    """Test scores of the finished runs of several pipelines: over the seeds, then of each seed; empty where none is finished.

    Differences of a seed are taken episode by episode (see :class:`metaflowkit.evaluation.scores.Difference`), and left out where
    the episodes are not the same.

    Args:
        runs: run directories by the name of their pipeline and the seed.
        metric: what they measured.
    """
    results = {name: {seed: read_final_scores(run, metric) for seed, run in by_seed.items() if is_finished(run)} for name, by_seed in runs.items()}
    results = {name: by_seed for name, by_seed in results.items() if by_seed}
    if not results:
        return []
    comparison = [f"against {ITSELF}"] if ITSELF in results and len(results) > 1 else []
    columns = ["untrained", "trained", "difference", *comparison]
    means, singles = [], []
    for setting in dict.fromkeys(s for by_seed in results.values() for run in by_seed.values() for s in run.scores):
        for name, by_seed in results.items():
            rows = {
                seed: _row(run, results.get(ITSELF, {}).get(seed) if name != ITSELF else None, setting)
                for seed, run in by_seed.items()
                if setting in run.scores
            }
            head = [setting, name]
            cells = [_spread(metric, [cell[0] for row in rows.values() if (cell := row[i]) is not None], "+" if i > 1 else "") for i in range(len(columns))]
            means.append([*head, *cells])
            singles += [[*head, str(seed), *(cell[1] if cell is not None else "" for cell in row[: len(columns)])] for seed, row in rows.items()]
    count, what = max(map(len, results.values())), f"test {metric.name}{', %' if metric.percent else ''}"
    return [
        *_markdown([f"{what} (mean and standard deviation, seeds: {count})", "of", *columns], means),
        "",
        *_markdown([f"{what} (± 95 % confidence over episodes)", "of", "seed", *columns], singles),
    ]


Cell = tuple[float, str] | None


def _row(run: FinalScores, baseline: FinalScores | None, setting: str) -> list[Cell]:
    """Untrained, trained, their difference, and the difference to the baseline's trained: each as a number and as text."""
    untrained, best = run.scores[setting].get("untrained"), run.scores[setting].get("best")
    other = baseline.scores.get(setting, {}).get("best") if baseline is not None and baseline.episode_source == run.episode_source else None
    return [*(_value(score) for score in (untrained, best)), _difference(untrained, best), _difference(other, best)]


def _value(score: Score | None) -> Cell:
    return None if score is None else (score.value, score.metric.with_ci(score.value, score.ci95))


def _difference(before: Score | None, after: Score | None) -> Cell:
    if before is None or after is None or before.setting != after.setting:
        return None
    difference = paired(before.each, after.each, after.metric)
    return None if difference is None else (difference.mean, str(difference) if difference.resolved else f"{difference}, unresolved")


def _markdown(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _spread(metric: Metric, values: list[float], sign: str) -> str:
    if not values:
        return ""
    mean = statistics.mean(values)
    return metric.with_ci(mean, statistics.stdev(values), sign) if len(values) > 1 else metric.text(mean, sign)
