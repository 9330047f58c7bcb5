"""A backbone, a head and everything else that is meta-learned, as one module with one entry point."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from metaflowkit.errors import BrokenContract
from metaflowkit.models.precision import bfloat16
from metaflowkit.trees import Tree
from metaflowkit.types import Episode, Labelled, Outputs


class Model(nn.Module):
    """Backbone and head.

    Everything goes through :meth:`forward`: a call to a submodule of ``higher``'s functional copy would keep its
    unrolled weights alive.

    Args:
        backbone: x [n, *input] -> features [n, D].
        head: (features, embedded support, way) -> logits [n, N].
        rule: meta-learned settings of the inner rule; :meth:`forward` does not use it.
        loss: an inner loss (outputs, y) -> scalar that has meta-parameters of its own.
        augment: (x, y) -> (x, y), applied to the support in each inner step, with meta-parameters of its own.
        precision: of the backbone: float32, bf16, tf32 or float64.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        rule: nn.Module | None = None,
        loss: Any = None,
        augment: nn.Module | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.rule = rule
        self.loss = loss
        self.augment = augment
        self.takes_features, self.precision = False, precision
        if precision == "float64":
            self.double()

    @staticmethod
    def arguments(task: Episode, x: Tensor | None, y: Tree = None) -> tuple[Any, ...]:
        """The arguments of :meth:`forward` for examples of a few-shot task; see :class:`metaflowkit.engines.base.MetaLearner`."""
        return task.support, x, task.way, y

    @staticmethod
    def arguments_alone(task: Episode, x: Tensor, y: Tree = None) -> tuple[Any, ...]:
        """The same where the head reads no support set."""
        return None, x, task.way, y

    @staticmethod
    def feature_arguments(task: Episode, x: Tensor) -> tuple[Any, ...]:
        """The same where only the features of ``x`` are read."""
        return None, x, task.way, None, False

    def forward(self, support: Labelled | None, x: Tensor | None, way: int, y: Tree = None, scores: bool = True) -> Outputs | Tensor:
        """Features and scores of ``x`` given a support set; with ``y`` the inner loss on them.

        Args:
            support: the task's support set; None where the head does not read it.
            x: examples [n, *input]; None for the support set itself.
            way: number of classes N.
            y: targets of the examples, for the inner loss.
            scores: whether to compute scores; without, there are features [n, D] and scores [n, 0].
        """
        if not scores:
            assert x is not None
            features = self.embed(x)
            return Outputs(features, features[:, :0])
        if y is None:
            return self._outputs(support, x, way)
        if self.augment is not None:
            assert support is not None
            x, y = self._augmented(support.x, y)
            features = self.embed(x)
            return self.loss(Outputs(features, self.head(features, Labelled(features, y), way)), y)  # type: ignore[no-any-return]
        return self.loss(self._outputs(support, x, way), y)  # type: ignore[no-any-return]

    def embed(self, x: Tensor) -> Tensor:
        """Features [n, D] of examples [n, *input]; where ``takes_features`` is set, [n, D] are features already (see :mod:`metaflowkit.evaluation.precomputed`)."""
        if self.takes_features and x.dim() == 2:
            return x
        if self.precision != "bf16":
            return self.backbone(x)  # type: ignore[no-any-return]
        with bfloat16(x.device):
            return self.backbone(x).float()  # type: ignore[no-any-return]

    def _augmented(self, x: Tensor, y: Tree) -> tuple[Tensor, Tree]:
        result = self.augment(x, y)  # type: ignore[misc]
        if not (isinstance(result, tuple) and len(result) == 2 and all(isinstance(part, Tensor) for part in result) and len(result[0]) == len(result[1])):
            shapes = [list(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in (result if isinstance(result, tuple) else (result,))]
            text = f"must return images and as many labels, got {' and '.join(map(str, shapes))}; return (x, y)"
            raise BrokenContract("inner.augment", type(self.augment).__name__, text)
        return result

    def _outputs(self, support: Labelled | None, x: Tensor | None, way: int) -> Outputs:
        if support is None:
            assert x is not None
            features = self.embed(x)
            return Outputs(features, self.head(features, None, way))
        if x is None:
            features = self.embed(support.x)
            return Outputs(features, self.head(features, Labelled(features, support.y), way))
        support_features = self.embed(support.x) if self.head.reads_support else support.x
        features = self.embed(x)
        return Outputs(features, self.head(features, Labelled(support_features, support.y), way))
