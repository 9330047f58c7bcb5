"""Supervised MAML on Omniglot as a user of learn2learn writes it."""

import json
import random
from pathlib import Path

import click
import learn2learn as l2l
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

WAY, SHOT, QUERY, TASKS = 5, 1, 5, 32


def tasks(root: Path, names: Path) -> l2l.data.TaskDataset:
    """Few-shot tasks of characters that are held in memory."""
    images, labels = [], []
    for label, name in enumerate(names.read_text().split()):
        for path in sorted((root / name).glob("*.png")):
            image = Image.open(path).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
            images.append(1 - torch.from_numpy(np.asarray(image, dtype=np.float32))[None] / 255)
            labels.append(label)
    dataset = l2l.data.MetaDataset(torch.utils.data.TensorDataset(torch.stack(images), torch.tensor(labels)))
    transforms = [
        l2l.data.transforms.FusedNWaysKShots(dataset, n=WAY, k=SHOT + QUERY),
        l2l.data.transforms.LoadData(dataset),
        l2l.data.transforms.RemapLabels(dataset),
        l2l.data.transforms.ConsecutiveLabels(dataset),
    ]
    return l2l.data.TaskDataset(dataset, task_transforms=transforms)


def halves(task: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Support and query of a task."""
    x, y = (v.view(WAY, SHOT + QUERY, *v.shape[1:]) for v in task)
    return x[:, :SHOT].flatten(0, 1), y[:, :SHOT].flatten(), x[:, SHOT:].flatten(0, 1), y[:, SHOT:].flatten()


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
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    maml = l2l.algorithms.MAML(network(), lr=0.4, first_order=first_order)
    outer = torch.optim.Adam(maml.parameters(), lr=1e-3)
    training_tasks = tasks(root, train)
    print(f"step 0/{steps}", flush=True)
    for _ in range(steps):
        outer.zero_grad()
        for _ in range(TASKS):
            support_x, support_y, query_x, query_y = halves(training_tasks.sample())
            learner = maml.clone()
            for _ in range(inner_steps):
                learner.adapt(F.cross_entropy(learner(support_x), support_y))
            (F.cross_entropy(learner(query_x), query_y) / TASKS).backward()
        torch.nn.utils.clip_grad_norm_(maml.parameters(), 10.0)
        outer.step()
    print(f"step {steps}/{steps}", flush=True)
    test_tasks, correct = tasks(root, test), []
    for _ in range(600):
        support_x, support_y, query_x, query_y = halves(test_tasks.sample())
        learner = maml.clone()
        for _ in range(inner_steps):
            learner.adapt(F.cross_entropy(learner(support_x), support_y))
        with torch.no_grad():
            correct.append((learner(query_x).argmax(1) == query_y).float().mean().item())
    print(json.dumps({"accuracy": 100 * float(np.mean(correct))}))


if __name__ == "__main__":
    main()
