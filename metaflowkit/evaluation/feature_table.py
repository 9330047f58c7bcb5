"""The features of a split's examples, each computed once where many episodes show them again and again.

Episodes of a measurement show each example several times: 600 of 5 ways with 15 queries are 48,000 images, drawn from the few thousand of a split. Where an example's features
do not depend on the others of its set, they are computed once for all episodes, settings and readouts of the same weights.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.composition.precomputed import CLOSE, fingerprint
from metaflowkit.engines.safety import hooked
from metaflowkit.evaluation.embedding import embed
from metaflowkit.models.model import Model
from metaflowkit.models.normalisation import stored_norms

TRIED = 8  # examples on which it is tried whether features depend on the set
CHUNK = 100  # examples in a pass

_TABLES: WeakKeyDictionary[Model, tuple[Any, Tensor]] = WeakKeyDictionary()  # the last table of a model


@torch.no_grad()
def feature_table(flow: FewShotFlow, split: str, shown: int) -> Tensor | None:
    """The features [n, D] of a split's n examples by the current weights, on the device; None where they depend on the set that an example is in, or it does not pay.

    Args:
        flow: with the weights.
        split: of the flow.
        shown: how many examples the episodes show, each counted as often as it is shown.
    """
    x, model = flow.splits[split].x, flow.model
    if len(x) > shown or hooked(model) or (model.takes_features and x.dim() == 2):
        return None
    key = (split, id(x), [norm.current for norm in stored_norms(model)], fingerprint(model.state_dict()))
    stored = _TABLES.get(model)
    if stored is not None and stored[0] == key:
        return stored[1]
    if _depend_on_their_set(flow, x[:TRIED]):
        return None
    table = torch.cat([embed(model, flow.inputs(chunk)[None])[0] for chunk in torch.split(x, CHUNK)])
    _TABLES[model] = (key, table)
    return table


def _depend_on_their_set(flow: FewShotFlow, x: Tensor) -> bool:
    inputs = flow.inputs(x)
    try:
        together, alone = embed(flow.model, inputs[None])[0], embed(flow.model, inputs[:, None])[:, 0]
    except (RuntimeError, ValueError):  # batch normalisation of a single value
        return True
    return not bool((together - alone).abs().max() <= CLOSE * together.abs().max())
