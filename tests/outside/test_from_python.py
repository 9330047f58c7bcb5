"""A pipeline from objects: own torch data set, own backbone, own rule, and nothing registered."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

import metaflowkit as mfk
from metaflowkit.errors import ConfigError, DataError
from tests.small import SMALL


class Spots(Dataset):
    """Squares with a spot whose place is the class."""

    def __init__(self, labels: range, form: str = "tensor") -> None:
        self.labels, self.form = list(labels), form

    def __len__(self) -> int:
        return 6 * len(self.labels)

    def __getitem__(self, i: int):
        label = self.labels[i // 6]
        x = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(i)) / 4
        x[0, label % 12] += 0.7
        if self.form == "alone":
            return x
        return (x if self.form == "tensor" else Image.fromarray((255 * x[0]).byte().numpy())), label


class Net(nn.Module):
    """A stranger's network, made and initialised in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.features = 5
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(144, 5))

    def forward(self, x):
        return self.layers(x)


SMALLER = {
    "tasks": {"way": 3, "shot": 2, "query": 1, "meta_batch": 2, "name": "views"},
    "augment": {"level": 1},
    "inner": {"steps": 2},
    "outer": {"steps": 3},
    "evaluate": {"every": 2, "way": 3, "query": 2, "episodes": 4, "val_episodes": 4},
}


def settings(**more):
    data = mfk.image_sets(train=Spots(range(6), "alone"), val=Spots(range(6, 9)), test=Spots(range(9, 12), "picture"))
    return SMALLER | {"dataset": data, "model": {"backbone": Net(), "head": "prototype"}} | more


def test_it_trains_resumes_and_is_loaded_again(tmp_path) -> None:
    chosen = settings(inner={"steps": 2, "rule": mfk.rules.SGD(lr=0.2), "engine": mfk.engines.VectorizedEngine(chunk=1, workers=1)})
    network = chosen["model"]["backbone"]
    before = [p.clone() for p in network.parameters()]
    pipeline = mfk.pipeline(chosen, ["objective.delta=2"])
    assert pipeline.objective.settings["delta"] == 2
    assert mfk.pipeline(chosen, ["objective.delta=2"]) == pipeline
    report = mfk.train(pipeline, run_dir=tmp_path / "run")
    assert any("3-way 1-shot, adapted" in line for line in report.lines())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters()))  # a copy was trained
    trained = mfk.load(tmp_path / "run", weights="last")
    assert type(trained.model.backbone) is Net
    assert not torch.equal(trained.model.backbone.layers[1].weight, before[0])
    assert torch.equal(mfk.build(pipeline).model.backbone.layers[1].weight, before[0])
    with pytest.raises(ConfigError, match=r"there is no backbone 'python.Elsewhere' in this process, since it was made from a Python object; make"):
        mfk.pipeline(settings(model={"backbone": "python.Elsewhere"}))


def test_objects_meet_the_contract_of_their_kind() -> None:
    for more, says in (
        ({"model": {"backbone": nn.Flatten()}}, "backbone 'python.Flatten' must define the attribute features"),
        ({"dataset": Spots(range(3))}, "dataset 'python.Spots' must define load()"),
        ({"objective": lambda adapted: 0}, "must define __call__(adapted, task), and that of"),
    ):
        with pytest.raises(ConfigError) as caught:
            mfk.build(mfk.pipeline(settings(**more)))
        assert says in str(caught.value)


class Odd(Dataset):
    def __init__(self, items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int):
        return self.items[i]


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([torch.zeros(1, 4, 4), torch.zeros(1, 5, 4)], "split 'train': its images have several shapes, such as 1x4x4 and 1x5x4; resize them in its transform"),
        ([torch.zeros(4, 4)], r"split 'train', item 0: must be an image \[C, H, W\], got shape \[4, 4\]; change its transform"),
        ([(torch.zeros(1, 4, 4), 1), torch.zeros(1, 4, 4)], "split 'train': 1 of 2 items have a label; give all of them one, or none"),
    ],
)
def test_items_that_are_no_images_are_named(items, says) -> None:
    with pytest.raises(DataError, match=says):
        mfk.image_sets(Odd(items)).load()


def test_a_mapping_is_the_file(write) -> None:
    import yaml

    written = mfk.read(write(SMALL))
    assert mfk.pipeline(yaml.safe_load(SMALL), name=written.name) == written
