"""The same few-shot training as whole programs: with ``higher``, with learn2learn, and as a pipeline of this library.

    python benchmarks/end_to_end_comparison.py data/omniglot --rounds 3

Supervised MAML on Omniglot (Lake's split), 5-way 1-shot, 32 tasks in each of 100 outer steps, exact and of first order. Each program is written as a user
of its library would and complete by itself, since its lines are counted; it holds the images in memory, and ends with a test on 600 tasks of unseen characters:
``benchmarks/end_to_end/``. Programs run one after
the other, each round with another seed. learn2learn takes part where it can be imported (``--learn2learn`` names folders for PYTHONPATH).
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tokenize
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

import click

from metaflowkit.datasets.omniglot import Omniglot

PROGRAMS = Path(__file__).parent / "end_to_end"
STEP = re.compile(r"step (\d+)/(\d+)")


@dataclass(frozen=True)
class Result:
    """What a program took: seconds in all and from the first outer step to the last, MiB at most, and its test accuracy in %."""

    seconds: float
    training: float
    mebibytes: float
    accuracy: float


def extract(root: Path, folder: Path) -> None:
    """The drawings as files, and the lists of training and test characters, ``train.txt`` and ``test.txt``."""
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(root / f"{part}.zip") as archive:
            archive.extractall(folder)
    for split, images in Omniglot(str(root)).load().items():
        (folder / f"{split}.txt").write_text("\n".join(images.classes))


def code_lines(path: Path) -> int:
    """Lines that hold more than comments and docstrings."""
    text = path.read_text()
    if path.suffix == ".yaml":
        return sum(bool(line.split("#")[0].strip()) for line in text.splitlines())
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NEWLINE:
            if not (len(statement) == 1 and statement[0].type == tokenize.STRING):  # a docstring is a statement of one string
                lines.update(line for t in statement for line in range(t.start[0], t.end[0] + 1))
            statement = []
        elif token.type not in skipped:
            statement.append(token)
    return len(lines)


def run(command: list[str], path: str) -> tuple[Result, list[str]]:
    """Run a program that prints ``step 0/N`` before its first outer step and ``step N/N`` after its last."""
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": path}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    lines, first, last = [], 0.0, 0.0
    with process.stdout:
        for line in process.stdout:
            lines.append(line)
            if STEP.match(line):
                first, last = first or time.perf_counter(), time.perf_counter()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)}: failed\n" + "".join(lines[-5:]))
    return Result(time.perf_counter() - started, last - first, usage.ru_maxrss / 1024, 0.0), lines


def measure(name: str, options: dict[str, int], first_order: bool, folder: Path, root: Path, learn2learn: str) -> Result:
    """One run of a program."""
    if name == "metaflowkit":
        steps, inner, seed = options["steps"], options["inner-steps"], options["seed"]
        settings = [f"dataset.root={root}", f"inner.steps={inner}", f"outer.steps={steps}", f"evaluate.every={steps}", f"seed={seed}"]
        settings += ["inner.order=first"] if first_order else []
        run_dir = folder / "run"
        command = [sys.executable, "-m", "metaflowkit", "run", str(PROGRAMS / "omniglot_maml.yaml"), "--run-dir", str(run_dir), "--overwrite"]
        result, _ = run([*command, *(word for setting in settings for word in ("--set", setting))], os.environ.get("PYTHONPATH", ""))
        scores = [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]
        accuracy = next(100 * score["accuracy"] for score in scores if score["weights"] == "best" and score["split"] == "test")
    else:
        command = [sys.executable, str(PROGRAMS / f"with_{name}.py"), str(folder), "--train", str(folder / "train.txt"), "--test", str(folder / "test.txt")]
        command += [word for key, value in options.items() for word in (f"--{key}", str(value))] + ["--first-order"] * first_order
        result, lines = run(command, learn2learn)
        accuracy = json.loads(lines[-1])["accuracy"]
    return Result(result.seconds, result.training, result.mebibytes, accuracy)


@click.command(help=__doc__)
@click.argument("root", type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=3, show_default=True, help="Runs of each program; round N has seed N.")
@click.option("--steps", default=100, show_default=True, help="Outer steps.")
@click.option("--inner-steps", default=1, show_default=True)
@click.option("--learn2learn", default="", help="Folders for PYTHONPATH in which learn2learn lies.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the figures.")
def main(root: Path, rounds: int, steps: int, inner_steps: int, learn2learn: str, json_path: Path | None) -> None:
    """Run the programs in turn and print the table."""
    names = ["higher", "learn2learn", "metaflowkit"]
    probe = [sys.executable, "-W", "ignore", "-c", "import learn2learn"]
    if subprocess.run(probe, capture_output=True, env={**os.environ, "PYTHONPATH": learn2learn}).returncode:
        click.echo("learn2learn cannot be imported and is left out")
        names.remove("learn2learn")
    results: dict[tuple[bool, str], list[Result]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        extract(root, folder)
        for seed in range(rounds):
            for first_order in (False, True):
                for name in names:
                    options = {"steps": steps, "inner-steps": inner_steps, "seed": seed}
                    results[first_order, name].append(measure(name, options, first_order, folder, root.absolute(), learn2learn))
                    click.echo(f"round {seed}, {'first order' if first_order else 'exact'}, {name}: {results[first_order, name][-1]}", err=True)
    click.echo("| order | program | training, s | as fast | whole program, s | memory, MiB | lines | test accuracy, % |\n|---|---|---|---|---|---|---|---|")
    for (first_order, name), runs in results.items():
        lines = code_lines(PROGRAMS / ("omniglot_maml.yaml" if name == "metaflowkit" else f"with_{name}.py"))
        reference = results[first_order, names[0]]
        ratio = median(a.training / b.training for a, b in zip(reference, runs))
        training, whole, memory = ([getattr(r, key) for r in runs] for key in ("training", "seconds", "mebibytes"))
        accuracies = [r.accuracy for r in runs]
        accuracy = f"{mean(accuracies):.1f}" + (f" ± {stdev(accuracies):.1f}" if rounds > 1 else "")
        spread = f"{median(training):.1f} ({min(training):.1f}-{max(training):.1f})"
        order = "first" if first_order else "exact"
        click.echo(f"| {order} | {name} | {spread} | {ratio:.2f} x | {median(whole):.1f} | {median(memory):.0f} | {lines} | {accuracy} |")
    if json_path is not None:
        rows = [{"order": "first" if first else "exact", "program": name, **vars(r)} for (first, name), runs in results.items() for r in runs]
        json_path.write_text(json.dumps({"steps": steps, "inner_steps": inner_steps, "results": rows}, indent=1))


if __name__ == "__main__":
    main()
