"""Supervised MAML on Omniglot as a user of ``higher`` writes it, with a DataLoader of tasks."""

import json
from pathlib import Path

import click
import higher
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

WAY, SHOT, QUERY, TASKS = 5, 1, 5, 32


class Tasks(Dataset):
    """Few-shot tasks of characters that are held in memory."""

    def __init__(self, root: Path, names: Path, count: int, seed: int) -> None:
        folders = [root / name for name in names.read_text().split()]
        self.images = torch.stack([torch.stack([self.read(path) for path in sorted(folder.glob("*.png"))]) for folder in folders])
        self.count, self.seed = count, seed

    @staticmethod
    def read(path: Path) -> torch.Tensor:
        """A drawing, [1, 28, 28], white on black."""
        image = Image.open(path).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
        return 1 - torch.from_numpy(np.asarray(image, dtype=np.float32))[None] / 255

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed * 10**6 + index)
        classes = torch.randperm(len(self.images), generator=generator)[:WAY]
        drawings = torch.stack([torch.randperm(20, generator=generator)[: SHOT + QUERY] for _ in range(WAY)])
        images = self.images[classes[:, None], drawings]
        label = torch.arange(WAY)
        support, query = images[:, :SHOT].flatten(0, 1), images[:, SHOT:].flatten(0, 1)
        return support, label.repeat_interleave(SHOT), query, label.repeat_interleave(QUERY)


def network(width: int = 64) -> nn.Module:
    """Four blocks of convolution, normalisation, ReLU and pooling, and a linear layer."""
    layers = []
    for channels in (1, width, width, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width, track_running_stats=False), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, WAY))


@click.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--train", type=click.Path(path_type=Path))
@click.option("--test", type=click.Path(path_type=Path))
@click.option("--steps", default=100)
@click.option("--inner-steps", default=1)
@click.option("--first-order", is_flag=True)
@click.option("--seed", default=0)
def main(root: Path, train: Path, test: Path, steps: int, inner_steps: int, first_order: bool, seed: int) -> None:
    """Train, then test on 600 tasks of unseen characters."""
    torch.manual_seed(seed)
    net = network()
    inner, outer = torch.optim.SGD(net.parameters(), lr=0.4), torch.optim.Adam(net.parameters(), lr=1e-3)
    batches = DataLoader(Tasks(root, train, steps * TASKS, seed), batch_size=TASKS)
    print(f"step 0/{steps}", flush=True)
    for batch in batches:
        outer.zero_grad()
        for support_x, support_y, query_x, query_y in zip(*batch):
            with higher.innerloop_ctx(net, inner, copy_initial_weights=False, track_higher_grads=not first_order) as (adapted, optimizer):
                for _ in range(inner_steps):
                    optimizer.step(F.cross_entropy(adapted(support_x), support_y))
                loss = F.cross_entropy(adapted(query_x), query_y) / TASKS
                if first_order:
                    for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(adapted.parameters()))):
                        p.grad = g if p.grad is None else p.grad + g
                else:
                    loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        outer.step()
    print(f"step {steps}/{steps}", flush=True)
    correct = []
    for support_x, support_y, query_x, query_y in DataLoader(Tasks(root, test, 600, 1), batch_size=None):
        with higher.innerloop_ctx(net, inner, track_higher_grads=False) as (adapted, optimizer):
            for _ in range(inner_steps):
                optimizer.step(F.cross_entropy(adapted(support_x), support_y))
            with torch.no_grad():
                correct.append((adapted(query_x).argmax(1) == query_y).float().mean().item())
    print(json.dumps({"accuracy": 100 * float(np.mean(correct))}))


if __name__ == "__main__":
    main()
