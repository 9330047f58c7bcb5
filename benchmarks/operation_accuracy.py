"""Which of torch's operations depend in float32 on how they are called: by memory layout, threads and vmap, on real images.

    python benchmarks/operation_accuracy.py pipelines/quickstart.yaml
    python benchmarks/operation_accuracy.py benchmarks/eurosat_bmssl.yaml --set dataset.root=... --set dataset.image_size=64

Input is what the first convolution of the pipeline's untrained backbone makes of the images of a task. Each number is the
largest relative distance from float64 of an operation's value, of the gradient of a scalar of it, or of the gradient of a scalar
of that gradient. Marked are operations that one way of calling brings further off than 1e-5 and ten times as far as another does.
The last column is the channels-last call as this package makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import click
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.engines.kernels import FastKernels

BOUND, FACTOR = 1e-5, 10
Operation = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def operations(channels: int) -> dict[str, Operation]:
    """Functions of (x [n, C, H, W], kernel [C, C, 3, 3], scale [C], shift [C])."""
    pixels_last = (0, 2, 3)
    return {
        "convolution 3x3": lambda x, w, a, b: F.conv2d(x, w, padding=1),
        "convolution 1x1": lambda x, w, a, b: F.conv2d(x, w[:, :, 1:2, 1:2]),
        "convolution, stride 2": lambda x, w, a, b: F.conv2d(x, w, padding=1, stride=2),
        "convolution, depthwise": lambda x, w, a, b: F.conv2d(x, w[:, :1], padding=1, groups=channels),
        "convolution, transposed": lambda x, w, a, b: F.conv_transpose2d(x, w, padding=1),
        "batch norm": lambda x, w, a, b: F.batch_norm(x, None, None, a, b, True),
        "batch norm, stored": lambda x, w, a, b: F.batch_norm(x, torch.zeros_like(a), torch.ones_like(a), a, b, False),
        "batch norm of [n, C, L]": lambda x, w, a, b: F.batch_norm(x.flatten(2), None, None, a, b, True),
        "batch norm of [n, C]": lambda x, w, a, b: F.batch_norm(x.movedim(1, -1).flatten(0, 2), None, None, a, b, True),
        "instance norm": lambda x, w, a, b: F.instance_norm(x, None, None, a, b),
        "group norm, C groups": lambda x, w, a, b: F.group_norm(x, channels, a, b),
        "group norm, 8 groups": lambda x, w, a, b: F.group_norm(x, 8, a, b),
        "group norm, 1 group": lambda x, w, a, b: F.group_norm(x, 1, a, b),
        "layer norm of channels": lambda x, w, a, b: F.layer_norm(x.movedim(1, -1), (channels,), a, b),
        "rms norm of channels": lambda x, w, a, b: F.rms_norm(x.movedim(1, -1), (channels,), a, 1e-5),
        "normalize": lambda x, w, a, b: F.normalize(x),
        "local response norm": lambda x, w, a, b: F.local_response_norm(x, 5),
        "average pooling": lambda x, w, a, b: F.avg_pool2d(x, 2),
        "average of pixels": lambda x, w, a, b: F.adaptive_avg_pool2d(x, 1),
        "power-average pooling": lambda x, w, a, b: F.lp_pool2d(x + 3, 2.0, 2),
        "mean": lambda x, w, a, b: x.mean(pixels_last),
        "variance": lambda x, w, a, b: x.var(pixels_last),
        "deviation": lambda x, w, a, b: x.std((2, 3)),
        "scale and shift": lambda x, w, a, b: x * a[:, None, None] + b[:, None, None],
        "parametric ReLU": lambda x, w, a, b: F.prelu(x, a),
        "GELU": lambda x, w, a, b: F.gelu(x),
        "softmax of channels": lambda x, w, a, b: x.softmax(1),
        "interpolation, bilinear": lambda x, w, a, b: F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=False),
        "interpolation, bicubic": lambda x, w, a, b: F.interpolate(x, scale_factor=1.5, mode="bicubic", align_corners=False),
        "unfold": lambda x, w, a, b: F.unfold(x, 3),
        "linear": lambda x, w, a, b: F.linear(x.movedim(1, -1), w[:, :, 1, 1], b),
        "products of images": lambda x, w, a, b: x.flatten(1) @ x.flatten(1).mT,
        "attention": lambda x, w, a, b: F.scaled_dot_product_attention(*[x.flatten(2).mT] * 3),
    }


def parameters(channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel, scale and shift."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(channels, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    return kernel, torch.rand(channels, generator=generator) + 0.5, torch.randn(channels, generator=generator)


def scalar(value: Tensor) -> Tensor:
    """A smooth function of all values, in which they weigh differently."""
    return (value * torch.linspace(0.5, 1.5, value.numel(), dtype=torch.float64).view(value.shape).to(value.dtype)).square().mean()


def by_autograd(operation: Operation, x: Tensor, fixed: tuple[Tensor, ...]) -> list[Tensor]:
    """Value, first and second derivatives; without the second where there are none."""
    inputs = [t.detach().requires_grad_() for t in (x, *fixed)]
    value = operation(*inputs)
    first = torch.autograd.grad(scalar(value), inputs, create_graph=True, materialize_grads=True)
    results = [value, *first]
    with suppress(RuntimeError):
        results += torch.autograd.grad(sum(g.square().sum() for g in first), inputs, materialize_grads=True)
    return [t.detach() for t in results]


def by_vmap(operation: Operation, sets: Tensor, fixed: tuple[Tensor, ...]) -> list[list[Tensor]]:
    """The same for several sets at once, set by set."""
    places = (0, 1, 2, 3)
    value = grad(lambda *inputs: scalar(operation(*inputs)), places)
    second = grad(lambda *inputs: sum(g.square().sum() for g in value(*inputs)), places)

    def one(x: Tensor) -> list[Tensor]:
        return [operation(x, *fixed), *value(x, *fixed), *second(x, *fixed)]

    return [list(results) for results in zip(*vmap(one)(sets))]


def distance(results: list[Tensor], exact: list[Tensor]) -> float:
    """The largest of the relative distances, of what is not zero."""
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in zip(results, exact) if b.norm() > 0)


def rows(sets: Tensor) -> Iterator[tuple[str, dict[str, float]]]:
    """For every operation its distance by way of calling.

    Args:
        sets: [2, n, C, H, W], two sets of images.
    """
    channels = sets.shape[2]
    fixed, (x, other) = parameters(channels), sets
    last = x.contiguous(memory_format=torch.channels_last)
    for name, operation in operations(channels).items():
        exact = [by_autograd(operation, s.double(), tuple(p.double() for p in fixed)) for s in (x, other)]
        columns = {}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            columns[f"contiguous, {threads}"] = distance(by_autograd(operation, x, fixed), exact[0])
            columns[f"channels last, {threads}"] = distance(by_autograd(operation, last, fixed), exact[0])
        torch.set_num_threads(1)
        for together in (1, 2):
            try:
                results = by_vmap(operation, sets[:together], fixed)
                columns[f"vmap of {together}"] = max(distance(*pair) for pair in zip(results, exact))
            except RuntimeError:
                columns[f"vmap of {together}"] = float("nan")
        with FastKernels():
            columns["here"] = distance(by_autograd(operation, last, fixed), exact[0])
        yield name, columns


def depends(columns: dict[str, float]) -> bool:
    """Whether a way of calling is to be marked."""
    return max(columns.values()) > max(BOUND, FACTOR * min(columns.values()))


def features(pipeline: str, overrides: tuple[str, ...]) -> Tensor:
    """What the first convolution makes of the images of two tasks, [2, n, C, H, W], contiguous."""
    flow = build(read(pipeline, overrides))
    convolution = next(m for m in flow.learner.model.modules() if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        return torch.stack([functional_call(convolution, {}, flow.episode(step).support.x[0]).contiguous() for step in (1, 2)])


@click.command(help=__doc__)
@click.argument("pipeline")
@click.option("--set", "overrides", multiple=True)
def main(pipeline: str, overrides: tuple[str, ...]) -> None:
    """Print the table."""
    sets = features(pipeline, overrides)
    print(f"torch {torch.__version__}; images {list(sets.shape[1:])}; threads 1 and 2")
    for i, (name, columns) in enumerate(rows(sets)):
        if i == 0:
            print(f"{'':26}" + "".join(f"{column:>18}" for column in columns))
        print(f"{name:26}" + "".join(f"{value:18.0e}" for value in columns.values()) + ("  <" if depends(columns) else ""), flush=True)


if __name__ == "__main__":
    main()
