"""Every operation that can be named: it is one of Kornia's, and Kornia has none that is missing."""

from __future__ import annotations

import inspect

import kornia.augmentation as K
import pytest

from metaflowkit.augment.catalog import operations
from metaflowkit.augment.stage import Stage
from metaflowkit.config.choice import Choice
from metaflowkit.config.introspection import REQUIRED
from metaflowkit.errors import ConfigError

NOT_IMAGES = {name for name in dir(K) if name.endswith("3D") or "Video" in name}
UNFIT = {"RandomCutMixV2", "RandomDissolving", "RandomTransplantation"}  # deprecated defaults, an optional dependency, masks


def test_all_of_kornias_random_operations_are_listed() -> None:
    known = {n for n in dir(K) if n.startswith("Random") and inspect.isclass(getattr(K, n))} - NOT_IMAGES
    assert known - set(operations()) == set()
    assert "ColorJitter" in operations()
    assert all(hasattr(K, name) for name in operations())


@pytest.mark.parametrize("name", sorted(operations()))
def test_settings_are_those_of_the_class(name) -> None:
    entry = operations()[name]
    taken = {p.name: p.default for p in inspect.signature(getattr(K, name)).parameters.values() if p.kind is not p.VAR_KEYWORD}
    assert set(entry.settings) - {"apply_to"} == set(taken)
    assert {n for n, s in entry.settings.items() if s.default is REQUIRED} == {n for n, d in taken.items() if d is inspect.Parameter.empty} - {
        "size"
    }  # that of the images


@pytest.mark.parametrize("name", sorted(n for n, e in operations().items() if all(s.default is not REQUIRED for s in e.settings.values())))
def test_operations_run_on_color_images_or_are_refused_by_name(name) -> None:
    import torch

    choice = Choice(name, {"p": 1.0} if "p" in operations()[name].settings else {})
    if name in UNFIT:
        with pytest.raises(ConfigError, match=rf"augment\.0: {name} does not work on examples of shape \(3, 32, 32\)"):
            Stage([choice], 0, torch.rand(2, 3, 32, 32))
        return
    stage = Stage([choice], 0, torch.rand(2, 3, 32, 32))
    x = torch.rand(4, 3, 32, 32)
    out = stage(x, "support", "train", 1)
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert torch.equal(out, stage(x, "support", "train", 1))
