"""scikit-learn's handwritten digits: 1,797 real 8x8 images that need no download."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from metaflowkit.config.registry import DATASETS
from metaflowkit.config.schema import Natural, Side
from metaflowkit.datasets.splits import check_fractions, draw_fractions, draw_images, select
from metaflowkit.memory import require_memory
from metaflowkit.types import ImageSet


@DATASETS.register("digits")
class Digits:
    """scikit-learn's handwritten digits: 10 classes, 1,797 images, for evaluation across domains.

    Args:
        image_size: side in pixels; the 8x8 originals are enlarged bilinearly.
        fractions: share of each split; by default everything is for the test.
        by: ``class`` gives each split other classes, ``image`` other images of all ten classes; the shares are of these.
        split_seed: seed of the draw, where there is more than one split.

    Reference:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
    """

    modality = "images"

    def __init__(
        self, image_size: Side = 28, fractions: dict[str, float] | None = None, by: Literal["class", "image"] = "class", split_seed: Natural = 0
    ) -> None:
        check_fractions(fractions)
        self.image_size, self.by, self.fractions, self.split_seed = image_size, by, fractions or {"test": 1.0}, split_seed
        self.chosen = draw_fractions(10, self.fractions, split_seed)

    def load(self) -> dict[str, ImageSet]:
        """The splits, white on black."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        require_memory(
            len(bunch.images) * self.image_size**2 * 4.0,
            f"dataset: {len(bunch.images):,} digits of {self.image_size}x{self.image_size} pixels",
            "lower dataset.image_size",
        )
        small = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)
        size = (self.image_size, self.image_size)
        x = small if size == (8, 8) else F.interpolate(small, size, mode="bilinear", align_corners=False)
        y = torch.from_numpy(bunch.target).long()
        names = [str(digit) for digit in range(10)]
        if self.by == "image":
            rows_by_split = draw_images([names[digit] for digit in y.tolist()], self.fractions, self.split_seed)
            return {name: ImageSet(x[rows].round().to(torch.uint8), y[rows], tuple(names)) for name, rows in rows_by_split.items()}
        return {name: select(x.round().to(torch.uint8), y, names, chosen) for name, chosen in self.chosen.items()}
