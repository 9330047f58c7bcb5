"""A data set that is larger than the memory: first start, second start and training, and the memory that they take.

python benchmarks/large_dataset.py --gigabytes 10 --memory 2

Makes a zip of small photographs that hold noise, with as many bytes when decoded as asked for, and trains on it by the command line, with and without
``outer.prefetch``. Linux; with ``--memory`` and the right to make control groups the process can have no more memory than that, page cache included.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import click
import numpy as np
from PIL import Image

SIDE = 84
CLASSES = 1000
DIFFERENT = 2000  # photographs; the others repeat them
GROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))  # of the first version of control groups, and the second
PIPELINE = """
dataset: {{name: folder, root: {root}, image_size: {side}, fractions: {{train: 0.98, val: 0.01, test: 0.01}}}}
augment: {{level: 2}}
tasks: {{name: views, way: 5, shot: 2, query: 1, meta_batch: 2}}
model: {{backbone: {{name: conv4, width: 8}}}}
inner: {{steps: 1}}
outer: {{steps: {steps}, prefetch: {prefetch}}}
evaluate: {{every: {steps}, query: 5, episodes: 20, val_episodes: 20, readouts: [prototype]}}
"""


def write_photographs(path: Path, count: int) -> None:
    """A zip of noise in classes, JPEG."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(min(DIFFERENT, count)):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        coarse.save(buffer, "jpeg", quality=80)
        contents.append(buffer.getvalue())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i in range(count):
            archive.writestr(f"class{i % CLASSES:04d}/{i:07d}.jpg", contents[i % len(contents)])


def limited(gigabytes: float | None) -> Path | None:
    """A control group with so much memory; None where it cannot be made."""
    if gigabytes is None:
        return None
    for root, key in zip(GROUPS, ("memory.limit_in_bytes", "memory.max")):
        group = root / f"metaflowkit-{os.getpid()}"
        try:
            group.mkdir()
            (group / key).write_text(str(int(gigabytes * 2**30)))
            return group
        except OSError:
            continue
    click.echo("no control group can be made here; the memory is measured and not limited")
    return None


def train(folder: Path, pipeline: Path, run: str, group: Path | None) -> dict[str, float]:
    """Seconds, and the largest anonymous memory in MiB of the process and of those that it forked (mapped files are the system's to drop)."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "metaflowkit", "run", str(pipeline), "--run-dir", str(folder / run), "--json"],
        stdout=subprocess.PIPE, env={**os.environ, "METAFLOWKIT_CACHE": str(folder / "cache"), "METAFLOWKIT_CACHE_SIZE": "1 TiB"}, preexec_fn=enter,
    )  # fmt: skip
    largest = 0.0
    first_step = None
    log = folder / run / "metrics.jsonl"
    while process.poll() is None:
        largest = max(largest, _anonymous(process.pid))
        if first_step is None and log.is_file() and log.stat().st_size:
            first_step = time.monotonic() - started
        time.sleep(0.05)
    if process.returncode:
        raise click.ClickException(f"the run failed with exit code {process.returncode}")
    return {"seconds": time.monotonic() - started, "until the first validation": first_step or 0.0, "anonymous MiB": largest}


def _anonymous(pid: int) -> float:
    """MiB of a process that no file backs."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) / 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


@click.command(help=__doc__)
@click.option("--gigabytes", default=10.0, show_default=True, help="Bytes of the decoded images, in units of 2**30.")
@click.option("--memory", type=float, help="Memory that the process may have, in the same unit.")
@click.option("--steps", default=30, show_default=True, help="Outer steps.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; by default a temporary folder.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this file.")
def main(gigabytes: float, memory: float | None, steps: int, folder: Path | None, json_path: Path | None) -> None:
    """Make the data set, train on it three times, and print what that took."""
    count = int(gigabytes * 2**30 / (3 * SIDE**2))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        write_photographs(work / "photographs.zip", count)
        click.echo(f"{count:,} photographs, {(work / 'photographs.zip').stat().st_size / 2**30:.1f} GiB of files, {gigabytes:g} GiB decoded")
        group = limited(memory)
        results = {}
        try:
            for run, prefetch in (("first start", 0), ("second start", 0), ("second start, prefetch", 2)):
                pipeline = work / "pipeline.yaml"
                pipeline.write_text(PIPELINE.format(root=work / "photographs.zip", side=SIDE, steps=steps, prefetch=prefetch))
                results[run] = train(work, pipeline, run.replace(" ", "-").replace(",", ""), group)
                click.echo(f"{run}: " + ", ".join(f"{key} {value:,.0f}" for key, value in results[run].items()))
        finally:
            if group is not None:
                time.sleep(1)  # until the last process has left it
                group.rmdir()
    click.echo(f"peak of all processes (ru_maxrss, mapped files included): {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:,.0f} MiB")
    if json_path is not None:
        json_path.write_text(json.dumps({"gigabytes": gigabytes, "memory": memory, "photographs": count, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
