"""Checkpoints: exact round trips, canonical bytes, damaged files, and going on from one against going on without a break."""

from __future__ import annotations

import copy
import random
import warnings

import pytest
import torch
from torch import nn

from metaflowkit.errors import CheckpointError
from metaflowkit.training import checkpoint
from metaflowkit.training.checkpoint import Snapshot, load, prune, save, saved, step_path


def trained(steps: int = 3, optimizer_class=torch.optim.Adam):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = optimizer_class(model.parameters(), lr=0.01)
    train(model, optimizer, range(steps))
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def snapshot(model, optimizer, **changed) -> Snapshot:
    values = {"step": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "journal": 120, "best": {"step": 2, "value": 0.1 + 0.2}}
    return Snapshot(**{**values, "untrained": 0.2, "pipeline": "dataset: glyphs\n", **changed})


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.fixture
def path(tmp_path):
    return tmp_path / "step-0000003.pt"


@pytest.mark.parametrize("changed", [{}, {"best": None, "untrained": None}], ids=["whole", "none yet"])
@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_everything_comes_back(path, changed, optimizer_class) -> None:
    model, optimizer = trained(optimizer_class=optimizer_class)
    before = snapshot(model, optimizer, **changed)
    save(before, path)
    after = load(path)
    assert vars(after).keys() == vars(before).keys()
    for name, value in vars(before).items():
        assert same(dict(value) if isinstance(value, dict) else value, getattr(after, name)), name
    train(model, optimizer, range(3, 4))
    assert same(vars(load(path)), vars(after))


def test_it_is_read_with_weights_only(path, monkeypatch) -> None:
    save(snapshot(*trained()), path)
    seen = []
    genuine = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **named: seen.append(named) or genuine(*args, **named))
    load(path)
    assert [named["weights_only"] for named in seen] == [True]


class Evil:
    def __reduce__(self):
        return pytest.fail, ("code of the file ran",)


def test_code_in_a_file_does_not_run(path) -> None:
    torch.save({"format": checkpoint.FORMAT, "evil": Evil()}, path)
    with pytest.raises(CheckpointError, match="is no whole checkpoint"):
        load(path)


def test_saving_what_was_loaded_gives_the_same_bytes(path, tmp_path) -> None:
    save(snapshot(*trained()), path)
    save(load(path), tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == path.read_bytes()


def test_the_bytes_depend_on_the_content_alone(tmp_path) -> None:
    value, text = torch.arange(4.0), "".join(["sh", "ared"])
    strided = torch.stack([value, value + 1], 1)[:, 0]
    model = {"a.weight": value, "b.weight": value}
    variants = [
        (model, {"x": text, "y": text}),
        ({"a.weight": value.clone(), "b.weight": nn.Parameter(value.clone())}, {"x": "shared", "y": "".join(["share", "d"])}),
        ({"a.weight": strided, "b.weight": torch.cat([value, value])[4:]}, {"x": text, "y": "sharedx"[:-1]}),
        (copy.deepcopy(model), {"".join(["", "x"]): text, "y": text}),
    ]
    shared = (0.9, 0.999)
    contents = set()
    for i, (weights, optimizer) in enumerate(variants):
        betas = (shared, shared) if i % 2 else ((0.9, 0.999), tuple([0.9, 0.999]))
        path = tmp_path / f"{i}.pt"
        save(Snapshot(1, weights, {**optimizer, "betas": list(betas)}, 0, None, None, "".join(["sha", "red"])), path)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_other_content_gives_other_bytes(tmp_path) -> None:
    model, optimizer = trained()
    save(snapshot(model, optimizer), tmp_path / "a.pt")
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-6
    save(snapshot(model, optimizer), tmp_path / "b.pt")
    assert (tmp_path / "a.pt").read_bytes() != (tmp_path / "b.pt").read_bytes()


def test_the_memory_format_survives_only_as_values(tmp_path) -> None:
    weight = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for name, value in (("a.pt", weight), ("b.pt", weight.contiguous(memory_format=torch.channels_last))):
        save(Snapshot(1, {"w": value}, {}, 0, None, None, ""), tmp_path / name)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert torch.equal(load(tmp_path / "b.pt").model["w"], weight)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b[:1], lambda b: b"", lambda b: b"garbage " * 50, lambda b: b"\0" * len(b)],
                         ids=["half", "one byte short", "one byte", "empty", "text", "zeros"])  # fmt: skip
def test_a_damaged_file_is_named_with_the_way_out(path, damage) -> None:
    save(snapshot(*trained()), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: is no whole checkpoint (")
    assert text.endswith("); start the run again with --overwrite")
    assert "\n" not in text
    save(snapshot(*trained()), step_path(path.parent, 2))
    with pytest.raises(CheckpointError, match=r"; remove it to go on from step-0000002\.pt$"):
        load(path)


def test_any_garbage_is_a_checkpoint_error(path) -> None:
    chance = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wonders about the protocol of some of it
        for _ in range(300):
            path.write_bytes(chance.randbytes(chance.choice([1, 2, 5, 100])))
            with pytest.raises(CheckpointError):
                load(path)


def test_a_flipped_bit_gives_no_other_exception(path) -> None:
    save(snapshot(*trained()), path)
    content, chance = path.read_bytes(), random.Random(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused = 0
        for _ in range(300):
            damaged = bytearray(content)
            damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(bytes(damaged))
            try:
                load(path)
            except CheckpointError:
                refused += 1
    assert refused > 30


def test_a_missing_file(path) -> None:
    with pytest.raises(CheckpointError, match="is no whole checkpoint"):
        load(path)


@pytest.mark.parametrize(
    "content", [{"other": 1}, [1, 2], torch.zeros(3), {"format": checkpoint.FORMAT, "step": 1}, {"format": checkpoint.FORMAT, "step": 1, "more": 2}], ids=str
)
def test_a_file_of_torch_that_is_no_checkpoint(path, content) -> None:
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="is no whole checkpoint"):
        load(path)


def test_another_format_is_told_apart(path) -> None:
    torch.save({"format": checkpoint.FORMAT + 1, **vars(snapshot(*trained()))}, path)
    with pytest.raises(CheckpointError, match="is of another format; use the version of metaflowkit that wrote it"):
        load(path)


def test_prune_keeps_the_last_two_and_the_best(tmp_path) -> None:
    steps = [1, 9, 10, 100, 1000000]
    for step in steps:
        step_path(tmp_path, step).touch()
    (tmp_path / "best.pt").touch()
    assert saved(tmp_path) == [step_path(tmp_path, step) for step in steps]
    prune(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "step-0000100.pt", "step-1000000.pt"]
    prune(tmp_path)
    assert len(saved(tmp_path)) == 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_prune_leaves_one_or_two(tmp_path, count) -> None:
    for step in range(count):
        step_path(tmp_path, step).touch()
    prune(tmp_path)
    assert len(saved(tmp_path)) == count


def test_steps_beyond_seven_digits_stay_in_order(tmp_path) -> None:
    steps = [2_000_000, 9_999_999, 10_000_000]
    for step in steps:
        step_path(tmp_path, step).touch()
    assert saved(tmp_path) == [step_path(tmp_path, step) for step in steps]


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW])
def test_going_on_from_a_file_equals_going_on(path, optimizer_class) -> None:
    model, optimizer = trained(optimizer_class=optimizer_class)
    save(snapshot(model, optimizer), path)
    train(model, optimizer, range(3, 8))
    loaded = load(path)
    fresh, other = trained(steps=0, optimizer_class=optimizer_class)
    fresh.load_state_dict(loaded.model)
    other.load_state_dict(loaded.optimizer)
    train(fresh, other, range(3, 8))
    assert same(dict(fresh.state_dict()), dict(model.state_dict()))
    assert same(other.state_dict(), optimizer.state_dict())
