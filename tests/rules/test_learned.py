"""Learned settings: what they start from, who shares them, which step reads which row, and that they stay in their range."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.config.schema import Range
from metaflowkit.rules.learned import Learned, LearnedSettings
from metaflowkit.rules.sgd import SGD

ABOVE, SHARE = Range(0, above=True), Range(0, 1)
SHAPES = {"a.0.weight": torch.Size([2, 3]), "a.0.bias": torch.Size([2]), "b.weight": torch.Size([4])}


def values(module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters())


@pytest.mark.parametrize(
    ("per", "keys", "numbers"),
    [
        ("all", {"lr"}, 1),
        ("layer", {"lr/a/0", "lr/b"}, 2),
        ("parameter", {"lr/a/0/weight", "lr/a/0/bias", "lr/b/weight"}, 3),
        ("element", {"lr/a/0/weight", "lr/a/0/bias", "lr/b/weight"}, 12),
    ],
)
def test_who_shares_a_number(per, keys, numbers) -> None:
    module = LearnedSettings([Learned("lr", 0.3, ABOVE, per)], SHAPES, 5)
    assert set(values(module)) == keys
    assert sum(p.numel() for p in module.parameters()) == numbers
    lr = module.rule_at(SGD(lr=9.0), values(module), 0).settings["lr"]
    assert set(lr) == set(SHAPES)
    for name, shape in SHAPES.items():
        torch.testing.assert_close(lr[name], torch.full(shape if per == "element" else (), 0.3))


def test_each_step_reads_its_row_and_later_ones_the_last() -> None:
    module = LearnedSettings([Learned("lr", 1.0, ABOVE, "all", per_step=True)], SHAPES, 3)
    with torch.no_grad():
        module.lr.copy_(torch.tensor([1.0, 2.0, 3.0]).log())
    read = [module.rule_at(SGD(), values(module), k).settings["lr"]["b.weight"].item() for k in range(5)]
    assert read == pytest.approx([1, 2, 3, 3, 3])


def test_values_stay_in_their_range_wherever_learning_goes() -> None:
    wild = torch.tensor([-30.0, 0.0, 30.0])
    assert (Learned("lr", 0.1, ABOVE).value(wild) > 0).all()
    share = Learned("momentum", 0.9, SHARE)
    assert ((share.value(wild) >= 0) & (share.value(wild) <= 1)).all()
    assert share.value(torch.tensor(share.raw())).item() == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("learned", "says"),
    [
        (Learned("momentum", 0.0, SHARE), "momentum is learned between 0 and 1, got 0 to start from; choose a start inside"),
        (Learned("weight_decay", 0.0, Range(0)), "weight_decay is learned above 0, got 0 to start from; choose a start above 0"),
    ],
    ids=["share", "above"],
)
def test_a_start_on_the_edge_is_refused(learned, says) -> None:
    with pytest.raises(ValueError, match=says):
        LearnedSettings([learned], SHAPES, 1)
