"""Adapters: small trainable parts in a pretrained backbone. The import lines below are the list of what exists."""

from metaflowkit.models.adapters.low_rank import LowRank

__all__ = ["LowRank"]
