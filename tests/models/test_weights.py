"""Files of weights into backbones: names, shapes, and nothing but tensors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metaflowkit.models.backbones.conv4 import Conv4
from metaflowkit.models.weights import load_weights, read_weights

SHAPE = (1, 16, 16)


def conv4(seed: int, **settings) -> Conv4:
    torch.manual_seed(seed)
    return Conv4(SHAPE, width=3, **settings)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"state_dict": s, "epoch": 3},
    lambda s: {"model": {f"module.{name}": value for name, value in s.items()}},
    lambda s: {f"encoder_q.net.{name}": value for name, value in s.items()} | {"queue": torch.zeros(2, 3)},
    lambda s: {f"backbone.{name}": value for name, value in s.items()} | {"head.weight": torch.zeros(3)},
], ids=["plain", "nested", "prefix", "two prefixes beside others", "a whole model"])  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_same_weights_from_every_form_of_file(wrap, suffix, tmp_path) -> None:
    source, target, path = conv4(1), conv4(2), tmp_path / f"weights{suffix}"
    content = wrap(state(source))
    if suffix == ".safetensors":
        content = next((value for value in content.values() if isinstance(value, dict)), content)
        save_file(content, path)
    else:
        torch.save(content, path)
    assert not equal(source, target)
    load_weights(target, path)
    assert equal(source, target)


def refused(tensors, tmp_path, ignore=(), target=None) -> str:
    path = tmp_path / "weights.pt"
    torch.save(tensors, path)
    target = target or conv4(2)
    before = state(target)
    with pytest.raises(ValueError) as caught:
        load_weights(target, path, ignore)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())  # nothing half loaded
    return str(caught.value).removeprefix(f"{path}: ")


def test_missing_unknown_and_reshaped_names_are_all_told(tmp_path) -> None:
    tensors = state(conv4(1))
    tensors["blocks.9.conv.weight"] = tensors.pop("blocks.3.conv.weight")
    tensors["blocks.0.conv.weight"] = torch.zeros(3, 3, 3, 3)
    assert refused(tensors, tmp_path) == (
        "does not fit the network: 1 are missing in the file (blocks.3.conv.weight); 1 are unknown to the network (blocks.9.conv.weight); "
        "1 have another shape (blocks.0.conv.weight [3, 3, 3, 3] in the file and [3, 1, 3, 3] in the network); "
        "choose the backbone and settings that the file is of, or name in model.ignore_weights what is not to be read"
    )


def test_ignored_names_stay_as_they_are(tmp_path) -> None:
    source, target = conv4(1), conv4(2)
    own = state(target)
    tensors = state(source) | {"projection.weight": torch.zeros(3), "blocks.0.conv.weight": torch.zeros(1)}
    torch.save(tensors, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt", ["projection.*", "blocks.0.*"])
    for name, value in target.state_dict().items():
        assert torch.equal(value, own[name] if name.startswith("blocks.0") else tensors[name])


def test_statistics_are_read_where_the_network_keeps_them_and_else_left_out(tmp_path) -> None:
    tensors = state(conv4(1)) | {f"blocks.{i}.norm.{kind}": torch.ones(3) for i in range(4) for kind in ("running_mean", "running_var")}
    torch.save(tensors, tmp_path / "w.pt")
    for norm in ("batch", "per_step", "frozen"):
        target = conv4(2, norm=norm)
        load_weights(target, tmp_path / "w.pt")
        assert torch.equal(target.blocks[1].conv.weight, tensors["blocks.1.conv.weight"])
    assert "1 are unknown to the network (elsewhere.running_mean)" in refused(tensors | {"elsewhere.running_mean": torch.ones(3)}, tmp_path)


class Code:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("nested", [False, True])
def test_code_is_refused_and_not_run(nested, tmp_path) -> None:
    mark = tmp_path / "mark"
    says = refused({"state_dict": {"x": Code(mark)}} if nested else Code(mark), tmp_path)
    assert says.startswith("holds objects or code besides tensors, which are not loaded; save the weights alone by torch.save(network.state_dict(), path)")
    assert not mark.exists()


def test_a_whole_module_is_refused(tmp_path) -> None:
    assert "holds objects or code besides tensors" in refused(nn.Linear(2, 2), tmp_path)


@pytest.mark.parametrize(("content", "says"), [
    ({}, "holds no weights by name"),
    (torch.zeros(3), "holds no weights by name"),
    ([torch.zeros(3)], "holds no weights by name"),
    ({"epoch": 3}, "holds no weights by name"),
    ({"a": torch.tensor([1.0, float("nan")])}, "a holds numbers that are not finite; take weights of another step"),
])  # fmt: skip
def test_files_without_usable_weights(content, says, tmp_path) -> None:
    assert refused(content, tmp_path).startswith(says)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"text\n", b"PK\x03\x04 cut", None], ids=["empty", "text", "cut zip", "cut"])
def test_damaged_files(content, suffix, tmp_path) -> None:
    path = tmp_path / f"w{suffix}"
    if content is None:
        (save_file if suffix == ".safetensors" else torch.save)(state(conv4(1)), path)
        content = path.read_bytes()[:-50]
    path.write_bytes(content)
    kind = "safetensors file" if suffix == ".safetensors" else "file of torch.save"
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: is no intact {kind}.*; copy or download it again$"):
        read_weights(path)


@pytest.mark.parametrize("name", ["none.pt", ".", "x" * 5000])
def test_no_such_file(name, tmp_path) -> None:
    with pytest.raises(ValueError, match="there is no such file; give a local .pt, .pth or .safetensors file"):
        read_weights(tmp_path / name)
