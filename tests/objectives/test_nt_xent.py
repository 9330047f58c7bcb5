"""SimCLR's loss against its formula written out pair by pair."""

from __future__ import annotations

import math

import torch

from metaflowkit.criteria import Classification
from metaflowkit.distances import contrast
from metaflowkit.objectives.nt_xent import NTXent
from metaflowkit.types import Adapted, Episode, Labelled, Outputs

G = torch.Generator().manual_seed(0)
FIRST, SECOND = (torch.randn(4, 3, generator=G, dtype=torch.float64) for _ in range(2))
Y = torch.arange(4)


def test_value_is_that_of_every_pair() -> None:
    adapted = Adapted({}, {}, lambda p, x: Outputs(x, x), None, None, None, Classification(), None)  # type: ignore[arg-type]
    value, metrics = NTXent(0.3)(adapted, Episode(Labelled(FIRST, Y), Labelled(SECOND, Y), 4))
    views = [*FIRST, *SECOND]

    def score(i: int, j: int) -> float:
        return math.exp(torch.nn.functional.cosine_similarity(views[i], views[j], dim=0).item() / 0.3)

    losses = [-math.log(score(i, (i + 4) % 8) / sum(score(i, k) for k in range(8) if k != i)) for i in range(8)]
    torch.testing.assert_close(value.item(), sum(losses) / 8)
    assert not metrics
    debiased, _ = NTXent(0.3, same_class=0.25)(adapted, Episode(Labelled(FIRST, Y), Labelled(SECOND, Y), 4))
    torch.testing.assert_close(debiased, contrast(torch.cat([FIRST, SECOND]), torch.cat([Y, Y]), 0.3, 0.25))
    assert debiased != value
