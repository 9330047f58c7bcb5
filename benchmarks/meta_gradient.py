"""One meta-gradient, computed in every way at hand: same weights, same data, same result.

    python benchmarks/meta_gradient.py                          # all cases, five interleaved repeats
    python benchmarks/meta_gradient.py --case conv4-32 --repeats 3 --json times.json --plot times.png
    python benchmarks/meta_gradient.py --device cuda            # on a GPU, where this library's CUDA graphs take part
    python benchmarks/meta_gradient.py --contender "plain higher" --contender "this, auto" --contender "this, compiled" --processes 0 --float32 1

Contenders are this library's engines and, on the network as it is written by hand, plain ``higher`` as its own MAML example uses
it, the same on channels-last images (where torch's normalisation loses digits), a loop of ``functional_call`` and
``torch.autograd``, and, where installed, TorchOpt's MetaSGD. Images are letters of matplotlib's typefaces. Before anything is timed, their
gradients are compared in float64, and each in float32 with float64 on single tasks. One more contender is ``this, auto`` in a process that keeps freed
memory, as ``mfk run`` does, of which only the time is measured; the others run here, with glibc as it is. The delta cases compare a bootstrap with the student alone and with differentiated steps instead.
Times are medians of interleaved repeats, to be read as ratios; run it on a quiet machine. Peak memory is that of a process of
its own for each contender, less what it held before. The floor is the time that convolutions and matrix products alone would
take: operations counted by torch's flop counter over the functional_call loop, divided by the rates measured here.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import higher
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from metaflowkit.allocator import reuse_freed_memory
from metaflowkit.composition.device import wait_for
from metaflowkit.composition.few_shot import SupportLoss
from metaflowkit.composition.inputs import channels_last
from metaflowkit.datasets.glyphs import Glyphs
from metaflowkit.engines.auto import auto
from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.task_map import TRIALS
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.cross_entropy import CrossEntropy
from metaflowkit.memory import peak_memory
from metaflowkit.models.backbones.conv4 import Conv4
from metaflowkit.models.backbones.mlp import MLP
from metaflowkit.models.backbones.resnet12 import ResNet12
from metaflowkit.models.heads.linear import Linear
from metaflowkit.models.model import Model
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.rules.sgd import SGD
from metaflowkit.types import Episode, Labelled

LR = 0.1
KEPT = "this, freed memory kept"


class Recurrent(nn.Module):
    """Rows of an image through a GRU; features are its last state."""

    def __init__(self, shape: tuple[int, int, int], width: int = 64) -> None:
        super().__init__()
        self.gru, self.features = nn.GRU(shape[2], width, batch_first=True), width

    def forward(self, x: Tensor) -> Tensor:
        """Embed [n, 1, H, W] as [n, D]."""
        return self.gru(x.squeeze(1))[1][0]


@dataclass(frozen=True)
class Case:
    """A problem of a size on a device; ``delta`` of a bootstrap, 0 for the query loss."""

    name: str
    backbone: str
    width: int
    shape: tuple[int, int, int]
    tasks: int
    way: int
    shot: int
    query: int
    steps: int
    delta: int = 0
    device: str = "cpu"

    def wait(self) -> None:
        """Wait until the device has computed all."""
        wait_for(torch.device(self.device))


CASES = [
    Case("conv4-64", "conv4", 64, (1, 28, 28), 16, 5, 1, 15, 5),
    Case("conv4-32", "conv4", 32, (1, 28, 28), 32, 5, 1, 5, 5),
    Case("20-way", "conv4", 64, (1, 28, 28), 4, 20, 1, 5, 5),
    Case("resnet12", "resnet12", 64, (3, 84, 84), 1, 5, 1, 5, 2),
    *(Case(f"MLP, {tasks} tasks", "mlp", 64, (1, 28, 28), tasks, 5, 1, 15, 5) for tasks in (16, 2)),
    Case("GRU", "gru", 64, (1, 28, 28), 16, 5, 1, 15, 5),
    *(Case(f"delta-{delta}", "conv4", 32, (1, 28, 28), 32, 5, 1, 5, 3, delta) for delta in (1, 2, 5, 10)),
]
SMALL = Case("small", "conv4", 2, (1, 16, 16), 2, 3, 1, 2, 2)
BACKBONES: dict[str, Callable[..., Any]] = {"conv4": Conv4, "resnet12": ResNet12, "gru": Recurrent, "mlp": lambda shape, width: MLP(shape, [width, width])}


@dataclass
class Problem:
    """A case with its weights and data."""

    case: Case
    model: Model
    episode: Episode

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that a contender left on the model."""
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in self.model.named_parameters()}


Contenders = dict[str, Callable[[Problem], Callable[[], None]]]


@lru_cache
def letters(size: int) -> Tensor:
    """Real images in the float32 range 0..1, [n, 1, size, size]."""
    return Glyphs(image_size=size).load()["train"].x.float() / 255


def make(case: Case, dtype: torch.dtype = torch.float32, seed: int = 0) -> Problem:
    """The problem of a case: weights and tasks of letters, always the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    channels, *size = case.shape
    pool = letters(size[0])
    backbone = BACKBONES[case.backbone](case.shape, width=case.width)
    model = Model(backbone, Linear(backbone.features, case.way)).to(case.device, dtype)

    def examples(count: int) -> Labelled:
        y = torch.arange(case.way).repeat_interleave(count).expand(case.tasks, -1).contiguous()
        chosen = torch.randint(len(pool), (case.tasks, case.way * count), generator=generator)
        return Labelled(pool[chosen].expand(-1, -1, channels, -1, -1).contiguous().to(case.device, dtype), y.to(case.device))

    return Problem(case, model, Episode(examples(case.shot), examples(case.query), case.way))


class Plain(nn.Module):
    """The network as it is written by hand, with the very parameters of a model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
        if isinstance(model.backbone, Conv4):
            layers = [layer for block in model.backbone.blocks for layer in (block.conv, block.norm, nn.ReLU(), nn.MaxPool2d(2))]
            self.backbone = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Scores of images."""
        return F.linear(self.backbone(x), self.head.weight, self.head.bias)


def library(engine: Any, steps: int | None = None, delta: int | None = None, grounded: bool = True) -> Callable[[Problem], Callable[[], None]]:
    """This library's engine, on images laid out as in its runs."""

    def prepare(problem: Problem) -> Callable[[], None]:
        case, episode = problem.case, problem.episode
        support, query = (Labelled(channels_last(s.x), s.y) for s in (episode.support, episode.query))
        objective = BootstrappedKL(case.delta if delta is None else delta, grounded=grounded) if case.delta and steps is None else QueryLoss()
        inner = case.steps if steps is None else steps
        learner = MetaLearner(problem.model, SGD(lr=LR), SupportLoss(CrossEntropy()), objective, inner, engine, arguments=Model.arguments)

        def run() -> None:
            gradients = learner.outcome(Episode(support, query, case.way)).gradients
            for name, p in problem.model.named_parameters():
                p.grad = gradients[name]

        return run

    return prepare


def compiled(engine: VectorizedEngine) -> Callable[[Problem], Callable[[], None]]:
    """This library's engine where it compiles, which it does when it is called for the second time."""
    prepare = library(engine)

    def prepared(problem: Problem) -> Callable[[], None]:
        run = prepare(problem)
        run()
        return run

    return prepared


class InProcessKeepingMemory:
    """This library's engine in a process that keeps freed memory, as that of ``mfk run`` does; its gradients stay there."""

    def __init__(self, problem: Problem) -> None:
        command = [sys.executable, __file__, "--case", problem.case.name, "--serve"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> None:
        """Compute the meta-gradient once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        if not self._process.stdout.readline():
            raise click.ClickException(f"{KEPT}: its process has ended")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(case: Case) -> None:
    """Compute a meta-gradient whenever a line comes, and answer by a line."""
    reuse_freed_memory()
    run = library(auto(make(replace(case, tasks=1)).model))(make(case))
    for _ in sys.stdin:
        run()
        print(flush=True)


def on_channels_last(prepare: Callable[[Problem], Callable[[], None]]) -> Callable[[Problem], Callable[[], None]]:
    """A contender on images with channels last, for which torch's normalisation is inaccurate."""

    def prepared(problem: Problem) -> Callable[[], None]:
        support, query = (Labelled(channels_last(s.x), s.y) for s in problem.episode[:2])
        return prepare(replace(problem, episode=Episode(support, query, problem.case.way)))

    return prepared


def plain_higher(problem: Problem) -> Callable[[], None]:
    """As the MAML example of ``higher`` does it."""
    net, case, (support, query, *_) = Plain(problem.model), problem.case, problem.episode
    inner = torch.optim.SGD(net.parameters(), lr=LR)

    def run() -> None:
        net.zero_grad()
        for t in range(case.tasks):
            with higher.innerloop_ctx(net, inner, copy_initial_weights=False) as (fnet, diffopt):
                for _ in range(case.steps):
                    diffopt.step(F.cross_entropy(fnet(support.x[t]), support.y[t]))
                (F.cross_entropy(fnet(query.x[t]), query.y[t]) / case.tasks).backward()

    return run


def functional_loop(problem: Problem) -> Callable[[], None]:
    """``functional_call`` and ``torch.autograd.grad(create_graph=True)``."""
    net, case, (support, query, *_) = Plain(problem.model), problem.case, problem.episode

    def run() -> None:
        net.zero_grad()
        for t in range(case.tasks):
            params = dict(net.named_parameters())
            for _ in range(case.steps):
                loss = F.cross_entropy(functional_call(net, params, support.x[t]), support.y[t])
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                params = {name: p - LR * g for (name, p), g in zip(params.items(), grads)}
            (F.cross_entropy(functional_call(net, params, query.x[t]), query.y[t]) / case.tasks).backward()

    return run


def torchopt_loop(problem: Problem) -> Callable[[], None]:
    """TorchOpt's MetaSGD, task by task."""
    import torchopt

    net, case, (support, query, *_) = Plain(problem.model), problem.case, problem.episode
    inner = torchopt.MetaSGD(net, lr=LR)

    def run() -> None:
        net.zero_grad()
        state, optim = torchopt.extract_state_dict(net, by="reference"), torchopt.extract_state_dict(inner, by="reference")
        for t in range(case.tasks):
            for _ in range(case.steps):
                inner.step(F.cross_entropy(net(support.x[t]), support.y[t]))
            (F.cross_entropy(net(query.x[t]), query.y[t]) / case.tasks).backward()
            torchopt.recover_state_dict(net, state)
            torchopt.recover_state_dict(inner, optim)

    return run


def contenders(case: Case) -> Contenders:
    """What competes in a case, the reference first."""
    model = make(replace(case, tasks=1)).model
    competing = {"plain higher": plain_higher, "functional_call": functional_loop, "this, auto": library(auto(model)), "this, higher": library(HigherEngine())}
    if case.backbone in ("conv4", "resnet12"):
        competing["plain higher, channels last"] = on_channels_last(plain_higher)
    if case.delta:  # the last step of a grounded target is on the larger query set
        engine = auto(model)
        return {
            "student alone": library(engine, case.steps),
            "this, auto": library(engine),
            "target of no step": library(engine, delta=0, grounded=False),
            "target, not grounded": library(engine, grounded=False),
            f"{case.delta} more differentiated steps": library(engine, case.steps + case.delta),
        }
    if case.device != "cpu":
        competing.pop("plain higher, channels last", None)
        if case.backbone in ("conv4", "resnet12", "mlp"):
            competing["this, graph"] = library(VectorizedEngine(graph=True))
            competing["this, compiled, graph"] = compiled(VectorizedEngine(graph=True, compile=True))
    elif case.backbone in ("conv4", "mlp"):
        competing |= {
            "this, vmap 4": library(VectorizedEngine(chunk=4)),
            "this, vmap all": library(VectorizedEngine()),
            "this, one worker": library(VectorizedEngine(1, 1)),
        }
    if case.device == "cpu":
        competing[KEPT] = InProcessKeepingMemory
    if case.device == "cpu" and case.backbone != "gru":
        competing["this, compiled"] = compiled(VectorizedEngine(None if case.backbone == "mlp" else 1, compile=True))
    try:
        import torchopt  # noqa: F401
    except ImportError:
        return competing
    return {**competing, "TorchOpt": torchopt_loop}


def check(case: Case, chosen: Contenders) -> float | None:
    """The largest relative distance between the contenders' gradients in float64, over what they share; None where they compute different things."""
    if case.delta:
        return None
    problem = make(case, torch.float64)
    reference: dict[str, Tensor] = {}
    worst = 0.0
    for name, prepare in chosen.items():
        prepare(problem)()
        gradients = {n: g.clone() for n, g in problem.gradients().items()}
        problem.model.zero_grad()
        reference = reference or gradients
        scale = torch.stack([g.square().sum() for g in reference.values()]).sum().sqrt()
        away = max(((gradients[n] - g).norm() / scale).item() for n, g in reference.items())
        if away > 1e-5:
            raise click.ClickException(f"{case.name}: {name} is {away:.1e} away from the reference")
        worst = max(worst, away)
    return worst


def float32_distances(case: Case, chosen: Contenders, count: int) -> dict[str, float]:
    """The relative distance of each contender's gradient in float32 from float64: the median over single tasks, each with weights of its own."""
    one, distances = replace(case, tasks=1), defaultdict(list)
    for seed in range(count if not case.delta else 0):
        exact = make(one, torch.float64, seed)
        functional_loop(exact)()
        reference = exact.gradients()
        length = torch.stack([g.square().sum() for g in reference.values()]).sum().sqrt()
        for name, prepare in chosen.items():
            problem = make(one, seed=seed)
            prepare(problem)()
            squares = [(g.double() - reference[n]).square().sum() for n, g in problem.gradients().items()]
            distances[name].append((torch.stack(squares).sum().sqrt() / length).item())
    return {name: statistics.median(values) for name, values in distances.items()}


def times(case: Case, chosen: Contenders, repeats: int) -> dict[str, list[float]]:
    """Seconds of every contender, interleaved, after calls to warm up, in which this library chooses between threads and processes."""
    runs = {name: prepare(make(case)) for name, prepare in chosen.items()}
    for name, run in runs.items():
        for _ in range(2 * TRIALS if name.startswith("this") else 1):
            run()
        case.wait()
    seconds_of: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            case.wait()
            seconds_of[name].append(time.perf_counter() - started)
    for run in runs.values():
        if isinstance(run, InProcessKeepingMemory):
            run.close()
    return seconds_of


def shares(case: Case, seconds: dict[str, list[float]]) -> str:
    """What a target's further steps cost in relation to as many differentiated ones, from differences within each repeat."""

    def extra(more: str, less: str) -> float:
        return statistics.median(a - b for a, b in zip(seconds[more], seconds[less]))

    differentiated = extra(f"{case.delta} more differentiated steps", "student alone")
    alone = extra("target, not grounded", "target of no step") / differentiated
    whole = extra("this, auto", "student alone") / differentiated
    return f"of as many differentiated steps: the target's steps {alone:.2f}; grounded on the query set and read out {whole:.2f}"


def memory(case: Case, name: str, processes: int) -> float:
    """Peak memory in MiB of a contender, less what it held before: the median of processes of its own; not a number without any."""
    if processes == 0 or name == KEPT:
        return float("nan")
    command = [sys.executable, __file__, "--case", case.name, "--device", case.device, "--memory-of", name]
    return statistics.median(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(processes))


def floor(case: Case) -> float:
    """Seconds that the convolutions and matrix products of a case alone would take."""
    with FlopCounterMode(display=False) as counter:
        functional_loop(make(case))()
    counts = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    convolved = sum(n for op, n in counts.items() if "convolution" in op)
    a, x, w = torch.rand(1024, 1024), torch.rand(64, 64, 28, 28).to(memory_format=torch.channels_last), torch.rand(64, 64, 3, 3)
    rates = [2 * 1024**3 / _fastest(lambda: a @ a), 2 * 64 * 64 * 64 * 9 * 28 * 28 / _fastest(lambda: F.conv2d(x, w, padding=1))]
    return (sum(counts.values()) - convolved) / rates[0] + convolved / rates[1]


def _fastest(run: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best


@click.command(help=__doc__)
@click.option("--case", "names", multiple=True, help="Names of cases; all of them by default.")
@click.option(
    "--contender",
    "only",
    multiple=True,
    help="Names of contenders, the first of the table the reference; all by default but those that are compiled, which takes minutes.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--float32", "tasks32", default=5, show_default=True, help="Single tasks on which float32 is held against float64.")
@click.option("--processes", default=3, show_default=True, help="Processes that measure the memory of each contender; 0 leaves it out.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the figures.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Where to draw the ratios.")
@click.option("--memory-of", hidden=True)
@click.option("--serve", "serves", is_flag=True, hidden=True)
def main(
    names: tuple[str, ...],
    only: tuple[str, ...],
    device: str,
    repeats: int,
    tasks32: int,
    processes: int,
    json_path: Path | None,
    plot_path: Path | None,
    memory_of: str | None,
    serves: bool,
) -> None:
    """Run the cases and print the table."""
    known = {case.name: replace(case, device=device) for case in [*CASES, SMALL]}
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"there is no case {unknown[0]!r}; use one of {', '.join(known)}")
    every = {name for case in known.values() for name in contenders(case)} if only else set()
    if missing := [name for name in only if name not in every]:
        raise click.BadParameter(f"there is no contender {missing[0]!r}; use one of {', '.join(sorted(every))}")
    if serves:
        serve(known[names[0]])
        return
    if memory_of is not None:
        case = known[names[0]]
        small = replace(case, tasks=min(case.tasks, 4), width=2, query=1, steps=1)
        contenders(small)[memory_of](make(small))()  # what is loaded on a first call
        run = contenders(case)[memory_of](make(case))
        chip = torch.device(device)
        before = peak_memory(reset=True, device=chip)
        run()
        click.echo((peak_memory(device=chip) - before) / 2**20)
        return
    results = []
    click.echo(f"torch {torch.__version__}, " + (torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"))
    for case in [known[name] for name in names or [case.name for case in CASES]]:
        chosen = {name: run for name, run in contenders(case).items() if case.delta or name in only or not (only or "compiled" in name)}
        here = {name: prepare for name, prepare in chosen.items() if name != KEPT}
        away, rounded = check(case, here), float32_distances(case, here, tasks32)
        seconds_of = times(case, chosen, repeats)
        least = None if case.delta or device != "cpu" else floor(case)
        reference = statistics.median(next(iter(seconds_of.values())))
        click.echo(f"\n{case.name}: " + ", ".join(f"{k} {v}" for k, v in asdict(case).items() if k != "name"))
        if away is not None:
            click.echo(f"gradients agree to {away:.0e} in float64" + (f"; floor {least:.2f} s" if least is not None else ""))
        for name, seconds in seconds_of.items():
            middle, held = statistics.median(seconds), memory(case, name, processes)
            spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
            over = f"  {middle / least:4.1f} x floor" if least else ""
            error = f"  float32 {rounded[name]:.0e}" if name in rounded else ""
            click.echo(f"  {name:<28} {middle:8.3f} s ({spread})  {reference / middle:5.2f} x as fast  {held:7.0f} MiB{over}{error}")
            facts = {"case": case.name, "contender": name, "seconds": seconds, "median": middle, "MiB": held, "floor": least}
            results.append({**facts, "agree": away, "float32": rounded.get(name)})
        if case.delta:
            click.echo("  " + shares(case, seconds_of))
    if json_path is not None:
        json_path.write_text(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "results": results}, indent=1))
    if plot_path is not None:
        plot(results, plot_path)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of the speed relative to each case's first contender."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(r["case"] for r in results))
    figure = Figure(figsize=(8, 0.3 * len(results) + 1), layout="constrained")
    axes = figure.add_subplot()
    labels, ratios, colors = [], [], []
    for i, case in enumerate(cases):
        rows = [r for r in results if r["case"] == case]
        labels += [f"{case}: {r['contender']}" for r in rows]
        ratios += [rows[0]["median"] / r["median"] for r in rows]
        colors += [f"C{i % 10}"] * len(rows)
    axes.barh(labels[::-1], ratios[::-1], color=colors[::-1])
    axes.axvline(1, color="grey", linestyle=":")
    axes.margins(y=0.01)
    axes.set(xlabel="speed relative to the first of each case")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
