"""The results of a study, printed and written, and its report, one HTML file with Optuna's plots."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import matplotlib
from optuna.trial import TrialState

from metaflowkit.config.yaml import write_atomic
from metaflowkit.reporting import html as frame
from metaflowkit.search.final import final_runs, final_table
from metaflowkit.search.results import fanova, importances, summary, write_results
from metaflowkit.search.study import Study

PAIR = ("objective.delta", "inner.steps")


def conclude(study: Study, final: bool = True) -> list[str]:
    """Write all results of a study into its folder; the lines to print about them.

    Args:
        study: what was searched.
        final: with the test scores of its finished final runs.
    """
    table = final_table(final_runs(study), study.search.pipeline.metric) if final else []
    lines = [*summary(study), *(["", *table] if table else [])]
    files = [*write_results(study), write_page(study, lines)]
    return [*lines, "", f"in {study.folder}: {', '.join(files)}"]


def write_page(study: Study, lines: Sequence[str]) -> str:
    """Write ``report.html`` into the study's folder, with the lines of its summary; returns its name."""
    write_atomic(study.folder / "report.html", frame.page(study.search.settings.name, [frame.preformatted(lines), *_pictures(study)]).encode())
    return "report.html"


def _pictures(study: Study) -> Iterator[str]:
    """Pictures under their titles; plots for which a study has too few trials are left out."""
    matplotlib.use("Agg")
    import optuna.visualization.matplotlib as plots

    optuna_study = study.queue.open()
    complete = [t for t in optuna_study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if not complete:
        return
    metrics = [*study.search.metrics]
    first: dict[str, Any] = {"target_name": metrics[0]}
    if len(metrics) > 1:  # of one metric Optuna knows the direction; with a target it would prefer smaller values
        first["target"] = lambda t: t.values[0]
    groups = [[*weights] for weights, _ in importances(study)]
    varying = [n for n in dict.fromkeys(n for t in complete for n in t.params) if len({str(t.params[n]) for t in complete if n in t.params}) > 1]
    figures: list[tuple[str, bool, Callable[[], Any]]] = [
        ("History", True, lambda: plots.plot_optimization_history(optuna_study, **first)),
        ("Validation by outer step", len(metrics) == 1, lambda: plots.plot_intermediate_values(optuna_study)),
        ("Slices", bool(varying), lambda: plots.plot_slice(optuna_study, params=varying, **first)),
        ("Pareto front", 1 < len(metrics) < 4, lambda: plots.plot_pareto_front(optuna_study)),
    ]
    for group in groups:  # parameters that occur in the same trials
        names = [n for n in group if n in varying]
        pair = [*PAIR] if set(PAIR) <= set(names) else names[:2]
        figures += [
            (f"Importances of {', '.join(group)}", True, partial(plots.plot_param_importances, optuna_study, evaluator=fanova(), params=group, **first)),
            (f"Parallel coordinates of {', '.join(names)}", len(names) > 1, partial(plots.plot_parallel_coordinate, optuna_study, params=names, **first)),
            (f"Contour of {' and '.join(pair)}", len(pair) == 2, partial(plots.plot_contour, optuna_study, params=pair, **first)),
        ]
    for title, possible, draw in figures:
        if possible:
            yield _picture(title, draw)


def _picture(title: str, draw: Callable[[], Any]) -> str:
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes_grid = draw()
        axes = axes_grid.flat[0] if hasattr(axes_grid, "flat") else axes_grid
        figure = axes.figure
        figure.set_size_inches(max(9.0, 3.4 * getattr(axes_grid, "size", 1)), 5.0)
        legend = axes.get_legend()
        if legend is not None and len(legend.get_texts()) > 12:  # a line for every trial
            legend.remove()
        picture = frame.picture(title, figure, bbox_inches="tight")
        plt.close(figure)
    return picture
