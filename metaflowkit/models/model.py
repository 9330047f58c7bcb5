"""A backbone and a head as one module with one entry point."""

from __future__ import annotations

from torch import Tensor, nn

from metaflowkit.types import Episode, Labelled, Outputs


class Model(nn.Module):
    """Backbone and head.

    Everything goes through :meth:`forward`: a call to a submodule of ``higher``'s functional copy would keep its
    unrolled weights alive.

    Args:
        backbone: x [n, *input] -> features [n, D].
        head: (features, embedded support, way) -> logits [n, N].
        rule: what is meta-learned of the inner rule beside them; it takes no part in :meth:`forward`.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, rule: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.rule = rule

    @staticmethod
    def arguments(task: Episode, x: Tensor | None) -> tuple[Labelled, Tensor | None, int]:
        """The arguments of :meth:`forward` for examples of a few-shot task; see :class:`metaflowkit.engines.base.MetaLearner`."""
        return task.support, x, task.way

    def forward(self, support: Labelled, x: Tensor | None, way: int) -> Outputs:
        """Features and scores of ``x`` given a support set.

        Args:
            support: the task's support set.
            x: examples [n, *input]; None for the support set itself.
            way: number of classes N.
        """
        if x is None:
            features = self.backbone(support.x)
            return Outputs(features, self.head(features, Labelled(features, support.y), way))
        embedded = self.backbone(support.x) if self.head.reads_support else support.x
        features = self.backbone(x)
        return Outputs(features, self.head(features, Labelled(embedded, support.y), way))
