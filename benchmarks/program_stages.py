"""Where the time of a whole ``mfk run`` goes: start-up, outer steps, validations, tests, report, end of the process.

    python benchmarks/program_stages.py pipelines/quickstart.yaml --rounds 3

A metric logger, given to the program as a plugin, notes when each event of the run comes. A step that is followed by a validation is taken as long as
the median of the others, and what it takes more as the validation with its checkpoint. Of prototype readouts the convolutions and matrix products alone are
estimated beside validations and tests: operations counted on a few episodes, at the rate that a large convolution reaches here with all threads.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from metaflowkit.composition.flow import FewShotFlow, build
from metaflowkit.config.pipeline import read
from metaflowkit.evaluation.episodes import BATCH, evaluate

LOGGER = '''
import json, time
from metaflowkit.config.registry import METRIC_LOGGERS

@METRIC_LOGGERS.register("event_times")
class EventTimes:
    """Notes when events come.

    Args:
        path: of the file, a line for each.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def log(self, event):
        """Note the time of an event."""
        with open(self.path, "a", encoding="utf-8") as file:
            print(json.dumps([type(event).__name__, time.time()]), file=file)
'''


def stages(pipeline: Path, overrides: tuple[str, ...], folder: Path) -> dict[str, float]:
    """Seconds of each stage of one run of the program."""
    (folder / "event_times.py").write_text(LOGGER, encoding="utf-8")
    times = folder / "times.jsonl"
    settings = [*overrides, "plugins=[event_times]", f"loggers=[{{name: event_times, path: {times}}}]"]
    command = [sys.executable, "-m", "metaflowkit", "run", str(pipeline), "--run-dir", str(folder / "run"), "--quiet"]
    started = time.time()
    done = subprocess.run(
        [*command, *(word for setting in settings for word in ("--set", setting))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])},
        capture_output=True,
        text=True,
        check=False,
    )
    ended = time.time()
    if done.returncode:
        raise click.ClickException(done.stderr.strip())
    events = [json.loads(line) for line in times.read_text().splitlines()]
    written = (folder / "run" / "report.html").stat().st_mtime  # the last that a run writes
    durations = [(name, at - before) for (_, before), (name, at) in pairwise([("", started), *events])]
    total = {name: sum(seconds for each, seconds in durations if each == name) for name, _ in durations}
    steps = [seconds for name, seconds in durations if name == "Stepped"]
    step = statistics.median(steps)
    training = step * len(steps)
    return {
        "start-up": total["Started"],
        "outer steps": training,
        "validations": sum(steps) - training + sum(total.get(name, 0.0) for name in ("Validated", "Saved", "Warned")),
        "tests": total.get("Tested", 0.0) + total["Finished"],
        "report": written - events[-1][1],
        "end": ended - written,
        "in all": ended - started,
    }


def convolutions(pipeline: Path, overrides: tuple[str, ...]) -> dict[str, float]:
    """Seconds that the convolutions and matrix products of validations and tests alone would take; nothing where they are not of prototypes alone."""
    flow = build(read(pipeline, list(overrides)), train=False)
    settings, steps = flow.pipeline.evaluate, flow.pipeline.outer.steps
    if not isinstance(flow, FewShotFlow) or [choice.name for choice in settings.readouts] != ["prototype"]:
        return {}

    def operations(split: str, way: int, shot: int, episodes: int) -> float:
        with FlopCounterMode(display=False) as counter:
            evaluate(flow, split, way, shot, settings.query, BATCH, ["prototype"])  # one batch, which is measured in this process
        return counter.get_total_flops() * episodes / BATCH

    x, w = torch.rand(64, 64, 28, 28).to(memory_format=torch.channels_last), torch.rand(64, 64, 3, 3)
    seconds = []
    for _ in range(9):
        started = time.perf_counter()
        F.conv2d(x, w, padding=1)
        seconds.append(time.perf_counter() - started)
    rate = 2 * 64 * 64 * 64 * 9 * 28 * 28 / min(seconds)
    validations = 1 + sum(1 for step in range(1, steps + 1) if step % settings.every == 0 or step == steps)
    (way, shot), *_ = settings.settings()
    return {
        "validations": validations * operations("val", way, shot, settings.val_episodes) / rate if flow.has("val") else 0.0,
        "tests": 2 * sum(operations("test", way, shot, settings.episodes) for way, shot in settings.settings()) / rate if flow.has("test") else 0.0,
    }


@click.command(help=__doc__)
@click.argument("pipeline", type=click.Path(exists=True, path_type=Path))
@click.option("--set", "overrides", multiple=True, help="Changes to the pipeline, such as outer.steps=20.")
@click.option("--rounds", default=3, show_default=True, help="Runs; the median and the range are shown.")
def main(pipeline: Path, overrides: tuple[str, ...], rounds: int) -> None:
    """Run the program a few times and show its stages."""
    runs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(stages(pipeline, overrides, Path(folder)))
    alone = convolutions(pipeline, overrides)
    for name in runs[0]:
        seconds = [run[name] for run in runs]
        share = f"  of which convolutions and matrix products {alone[name]:.1f}" if name in alone else ""
        click.echo(f"{name:<12}{statistics.median(seconds):7.1f} s ({min(seconds):.1f} to {max(seconds):.1f}){share}")


if __name__ == "__main__":
    main()
