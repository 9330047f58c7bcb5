"""What a network computes of each image of a split alone, computed once where many episodes show the images again and again.

Episodes of a measurement show each example several times: 600 of 5 ways with 15 queries are 48,000 images, drawn from the few thousand of a split. Where an example's features
do not depend on the others of its set, they are computed once for all episodes, settings and readouts of the same weights; else what begins the network
(:mod:`metaflowkit.evaluation.first_block`), where the backbone names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.engines.safety import hooked
from metaflowkit.evaluation.embedding import depend_on_their_set, embed
from metaflowkit.evaluation.first_block import first_block_table
from metaflowkit.evaluation.parallel import in_parallel
from metaflowkit.evaluation.precomputed import fingerprint
from metaflowkit.models.model import Model
from metaflowkit.models.normalisation import stored_norms

TRIED = 8  # examples on which it is tried whether features depend on the set
CHUNK = 100  # examples in a pass
SHOWINGS = 2  # of an image, on the average, from which on a table of first blocks pays

Features = Callable[[Tensor], Tensor]  # rows of a split [T, n] -> features [T, n, D] of these sets, each by itself

_TABLES: WeakKeyDictionary[Model, tuple[Any, Tensor, Features | None]] = WeakKeyDictionary()  # the last one of a model: what it is of, examples, table


@torch.no_grad()
def feature_table(flow: FewShotFlow, split: str, shown: int) -> Features | None:
    """The features of sets of a split's examples by the current weights, on the device; None where nothing of them is known before or it does not pay.

    Args:
        flow: with the weights.
        split: of the flow.
        shown: how many examples the episodes show, each counted as often as it is shown.
    """
    x, model = flow.splits[split].x, flow.model
    if len(x) > shown or hooked(model) or (model.takes_features and x.dim() == 2):
        return None
    key = ([norm.current for norm in stored_norms(model)], fingerprint(model.state_dict()))
    stored = _TABLES.pop(model, None)
    if stored is None or stored[0] != key or stored[1] is not x:
        del stored  # the memory of one table at a time
        if not depend_on_their_set(model, flow.inputs(x[:TRIED])):
            stored = (key, x, _of_each(flow, x))
        elif SHOWINGS * len(x) <= shown:
            stored = (key, x, first_block_table(flow, x))
        else:
            return None
    _TABLES[model] = stored
    return stored[2]


def _of_each(flow: FewShotFlow, x: Tensor) -> Features:
    """The features of each example, by its row."""
    chunks = torch.split(x, CHUNK)
    share = flow.world.share(len(chunks))
    with flow.world.together():
        own = in_parallel(lambda i: embed(flow.model, flow.inputs(chunks[share[i]])[None])[0].cpu(), flow.model, len(share))
    table = torch.cat(flow.world.interleaved(own)).to(flow.device)
    return lambda rows: table[rows.to(table.device)]
