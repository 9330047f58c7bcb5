"""``mfk compare``: train what is missing, then say what differs and how certainly."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from metaflowkit.comparison.page import page
from metaflowkit.comparison.results import Comparison, collect, lines
from metaflowkit.comparison.runs import Contender, contenders, seconds_per_step, train_or_reuse, with_steps
from metaflowkit.composition.flow import build
from metaflowkit.config.yaml import write_atomic
from metaflowkit.errors import ConfigError, DataError, RunError

UNITS = {"s": 1, "m": 60, "h": 3600}
PLAN, NUMBERS, PAGE = "plan.json", "comparison.json", "comparison.html"


def compare(
    paths: Sequence[Path],
    overrides: Sequence[str],
    seeds: int,
    budget: str | None,
    folder: Path,
    tell: Callable[[str], None] = print,
    variations: Sequence[str] = (),
) -> Comparison:
    """Run each pipeline with each seed on the same test episodes, compare, and write ``comparison.json`` and ``comparison.html``.

    Finished runs in the folder are reused, interrupted ones go on, so that the same command continues a comparison that was stopped.

    Args:
        paths: pipeline files, the baseline first.
        overrides: changes to all of them.
        seeds: 0 to ``seeds - 1`` for each.
        budget: outer steps of each run, such as ``500``, or its training time, such as ``90s``, ``10m`` or ``2h``, from which the steps follow by the time
            of a step on this machine; None leaves the steps of the pipelines.
        folder: where runs and results are written.
        tell: gets the lines for the user.
        variations: changes such as ``objective.delta=5``, of which each makes a pipeline of its own out of the only file.

    Raises:
        ConfigError: the pipelines cannot be compared, or the budget is too small for one validation.
        DataError: there is nothing to test on.
        RunError: the folder holds runs of other pipelines.
        Interrupted: Ctrl-C or SIGTERM; the same command goes on.
    """
    entries = _with_budget(contenders(paths, overrides, variations), budget, folder, tell)
    for each in entries:
        if not build(each.pipeline).has("test"):
            raise DataError(f"{each.name}: has nothing held out for the test, and a comparison is of test episodes; give the data set test classes")
    runs = {each.name: {seed: folder / each.name / f"seed-{seed}" for seed in range(seeds)} for each in entries}
    for seed in range(seeds):  # all pipelines with one seed before the next, so that what is stopped early has equal seeds
        for each in entries:
            train_or_reuse(each, seed, runs[each.name][seed], tell)
    comparison = collect(entries, runs)
    text = lines(comparison)
    chosen = f" --budget {budget}" if budget is not None else ""
    sets = "".join(f" --{option} {shlex.quote(each)}" for option, given in (("vary", variations), ("set", overrides)) for each in given)
    command = f"mfk compare {shlex.join(map(str, paths))} --seeds {seeds}{chosen}{sets} -o {shlex.quote(str(folder))}"
    write_atomic(folder / NUMBERS, json.dumps({"command": command, **comparison.plain()}, indent=1).encode())
    write_atomic(folder / PAGE, page(comparison, text, [command], {each.name: each.pipeline.to_yaml() for each in entries}).encode())
    tell("\n".join(["", *text, "", f"in {folder}: {PAGE}, {NUMBERS}"]))
    return comparison


def _with_budget(entries: list[Contender], budget: str | None, folder: Path, tell: Callable[[str], None]) -> list[Contender]:
    """The pipelines with the outer steps of the budget; those of a time are measured once and kept in the folder."""
    if budget is None:
        return entries
    match = re.fullmatch(r"(\d+)([smh]?)", budget)
    if match is None or not int(match[1]):
        raise ConfigError(f"--budget: must be outer steps such as 500, or a time such as 90s, 10m or 2h, got {budget!r}")
    if not match[2]:
        return [with_steps(each, int(match[1]), budget) for each in entries]
    seconds, plan = int(match[1]) * UNITS[match[2]], folder / PLAN
    kept = json.loads(plan.read_text()) if plan.is_file() else {}
    if kept.get("budget") != budget or kept.get("steps", {}).keys() != {each.name for each in entries}:
        if kept:
            raise RunError(f"{folder}: holds a comparison of the budget {kept.get('budget')} and {', '.join(kept.get('steps', {}))}; choose another -o")
        paces = {each.name: seconds_per_step(each.pipeline) for each in entries}
        kept = {"budget": budget, "steps": {name: int(seconds / pace) for name, pace in paces.items()}, "seconds_per_step": paces}
        limited = [with_steps(each, kept["steps"][each.name], budget) for each in entries]  # refused before anything is written
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(plan, json.dumps(kept, indent=1).encode())
        tell("; ".join(f"{each.name}: {kept['steps'][each.name]} outer steps of {paces[each.name]:.3g} s" for each in entries))
        return limited
    return [with_steps(each, kept["steps"][each.name], budget) for each in entries]
