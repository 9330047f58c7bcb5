"""The weights of a file into a network: names and shapes must fit, and no code in it is run."""

from __future__ import annotations

import fnmatch
import os
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NESTED = ("state_dict", "model", "model_state_dict", "state_dict_ema")  # where training scripts keep the weights in a checkpoint
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
COMPUTED = ("means", "variances")  # of StoredNorm, which are computed from training tasks
SHOWN = 4  # names in a message


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of what ``torch.save`` wrote, by name.

    Args:
        path: a state dict, or a checkpoint that holds one as ``state_dict`` or ``model``.

    Raises:
        ValueError: it cannot be read, holds something else than tensors (such as code), or a number that is not finite.
    """
    if not os.path.isfile(path):  # false also of a name that is too long for the system, where Path raises an error
        raise ValueError(f"{path}: there is no such file; give a local .pt, .pth or .safetensors file")
    content: Any = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise ValueError(f"{path}: holds no weights by name; save them by torch.save(network.state_dict(), path)")
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{path}: {name} holds numbers that are not finite; take weights of another step of that training")
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: is no intact safetensors file ({_line(error)}); copy or download it again") from None


def _pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error):
            raise ValueError(
                f"{path}: holds objects or code besides tensors, which are not loaded; save the weights alone by torch.save(network.state_dict(), path), or as safetensors"
            ) from None
        raise ValueError(f"{path}: is no intact file of torch.save; copy or download it again") from None
    except Exception as error:  # torch raises many types here, all about a damaged file
        raise ValueError(f"{path}: is no intact file of torch.save ({_line(error)}); copy or download it again") from None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def load_weights(backbone: nn.Module, path: Path, ignore: Sequence[str] = ()) -> None:
    """Set the parameters and buffers of a backbone to those of a file.

    A prefix that all names of the network have in the file (``module.``, ``backbone.``) is removed, and what lies outside of it is not read. Neither is the
    classifier that the backbone does without, nor are statistics of batch normalisation that it does not keep.

    Args:
        backbone: its tags ``network`` and ``classifier`` say which submodule files describe, and which names of theirs it does without.
        path: see :func:`read_weights`.
        ignore: patterns of names that are not read, without the prefix; what the network has by these names stays as it is.

    Raises:
        ValueError: see :func:`read_weights`; or names are missing or unknown, or have another shape: each is named.
    """
    tensors, state = read_weights(path), backbone.state_dict()
    network, classifier = str(getattr(backbone, "network", "")), tuple(getattr(backbone, "classifier", ()))
    prefix, inside = max(
        ((prefix, inside) for inside in dict.fromkeys(["", f"{network}." * bool(network)]) for prefix in _prefixes(tensors)),
        key=lambda pair: sum(name.startswith(pair[1]) and pair[0] + name.removeprefix(pair[1]) in tensors for name in state),
    )
    targets = {name.removeprefix(inside): value for name, value in state.items() if name.startswith(inside)}
    given = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    given = {name: value for name, value in given.items() if not _matches(name, ignore)}
    missing = [name for name in targets if name not in given and name.rpartition(".")[2] not in COMPUTED and not _matches(name, ignore)]
    unknown = [name for name in given if name not in targets and not _matches(name, classifier) and not _is_statistic(name, targets)]
    reshaped = [
        f"{name} {list(given[name].shape)} in the file and {list(value.shape)} in the network"
        for name, value in targets.items()
        if name in given and given[name].shape != value.shape and name.rpartition(".")[2] not in COMPUTED
    ]
    problems = [
        f"{len(names)} {text} ({', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)})"
        for names, text in ((missing, "are missing in the file"), (unknown, "are unknown to the network"), (reshaped, "have another shape"))
        if names
    ]
    if problems:
        remedy = "choose the backbone and settings that the file is of, or name in model.ignore_weights what is not to be read"
        raise ValueError(f"{path}: does not fit the network: {'; '.join(problems)}; {remedy}")
    with torch.no_grad():
        for name, value in targets.items():
            if name in given and given[name].shape == value.shape:
                value.copy_(given[name])


def _prefixes(names: Iterable[str]) -> list[str]:
    """Every beginning of a name that ends with a dot, and the empty one, the shortest first."""
    prefixes = {""}
    for name in names:
        parts = name.split(".")
        prefixes |= {".".join(parts[:i]) + "." for i in range(1, len(parts))}
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_statistic(name: str, targets: dict[str, Tensor]) -> bool:
    """Whether a name of the file is a statistic of a layer that keeps none of this name."""
    layer, _, kind = name.rpartition(".")
    return kind in (*STATISTICS, *COMPUTED) and f"{layer}.weight" in targets
