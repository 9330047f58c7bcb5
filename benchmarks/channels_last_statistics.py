"""Error of torch's batch-normalisation statistics for float32 images on a CPU, by memory layout, number of images and threads.

Needs torch alone. The images are strokes on an even background, as letters, drawings and masks are after a convolution: every
background value is the same, so that each addition to a float32 sum is rounded the same way and the error grows with the number
of values. Channels-last images are summed pixel after pixel; contiguous ones are not.

    python benchmarks/channels_last_statistics.py
"""

from __future__ import annotations

import torch
from torch import Tensor

CHANNELS, SIDE, COUNTS, THREADS = 32, 28, (5, 20, 40, 100, 400, 1600), (1, 2)


def strokes(count: int) -> Tensor:
    """Images [count, CHANNELS, SIDE, SIDE]: about a sixth of the pixels differ from the background of their channel."""
    generator = torch.Generator().manual_seed(0)
    ink = torch.rand(count, 1, SIDE, SIDE, generator=generator) < 0.17
    values = torch.randn(count, CHANNELS, SIDE, SIDE, generator=generator)
    return torch.where(ink, values, torch.linspace(-0.3, 0.3, CHANNELS)[:, None, None])


def errors(x: Tensor) -> tuple[float, float, float]:
    """Largest error of the mean (in deviations), of the variance and of the weight's gradient (both relative) over the channels."""
    exact = x.double()
    mean, variance = exact.mean((0, 2, 3)), exact.var((0, 2, 3), correction=0)
    at_mean, at_variance = torch.batch_norm_update_stats(x, None, None, 0.0)
    weight = torch.ones(x.shape[1], requires_grad=True)
    slopes = []
    for images in (x, exact):
        scale = weight.to(images)
        (slope,) = torch.autograd.grad(torch.nn.functional.batch_norm(images, None, None, scale, None, True).pow(3).sum(), weight)
        slopes.append(slope.double())
    return (
        ((at_mean - mean).abs() / variance.sqrt()).max().item(),
        ((at_variance - variance).abs() / variance).max().item(),
        ((slopes[0] - slopes[1]).norm() / slopes[1].norm()).item(),
    )


def main() -> None:
    """Print the table."""
    print(f"torch {torch.__version__}; images of {CHANNELS} channels, {SIDE}x{SIDE} pixels; errors of mean, variance, weight gradient")
    print(f"{'images':>8}{'threads':>9}{'channels last':>30}{'contiguous':>30}")
    for count in COUNTS:
        x = strokes(count)
        for threads in THREADS:
            torch.set_num_threads(threads)
            columns = [errors(x.to(memory_format=layout)) for layout in (torch.channels_last, torch.contiguous_format)]
            print(f"{count:>8}{threads:>9}" + "".join(f"{'  '.join(f'{e:.0e}' for e in column):>30}" for column in columns))


if __name__ == "__main__":
    main()
