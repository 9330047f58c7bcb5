"""A few-shot classifier with scikit-learn's conventions, whose embedding is that of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.config.registry import READOUTS
from metaflowkit.datasets.images import Decoding
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.evaluation.base import Readout, Shown
from metaflowkit.evaluation.embedding import depend_on_their_set
from metaflowkit.evaluation.episodes import chosen_readouts
from metaflowkit.prediction.images import Images, as_images
from metaflowkit.seeding import seed_for
from metaflowkit.training.evaluate_run import load_without_data
from metaflowkit.types import Episode, Labelled

PURPOSE = "predict"
TOGETHER = 256  # images that are classified in one pass, where none depends on another
SETS = 20  # the same where each is put into a set with the support
FOLDS = 20  # at most, by which the threshold is calibrated


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: the most probable class.
        probability: of it.
        runner_up: the next one.
        runner_up_probability: of it.
        known: whether the image is near enough to one of the classes; otherwise it is none of these.
    """

    label: Any
    probability: float
    runner_up: Any
    runner_up_probability: float
    known: bool


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifies images by a few labelled ones of each class, with the weights that a run learned.

    An image's answer does not depend on the images beside it, whatever normalises in the network: where its features depend on the set that it is in
    (batch normalisation without stored statistics), each image is put into a set with the labelled images alone.

    Args:
        run: the run directory.
        weights: ``best`` by validation accuracy, or ``last``.
        readout: how to classify (``mfk components readout``): ``prototype``, the nearest class mean; ``logistic`` regression; ``adapted``, the head after the
            inner steps on the labelled images.
        reject: the share of images of the fitted classes that may be called none of these; it sets the threshold of :meth:`known`. 0 rejects nothing.
        invert: swap black and white; None as the run's data set does.
        transductive: let the images that are classified together share the statistics of normalisation, as many papers do.

    Attributes:
        classes_: the labels, sorted.
        threshold_: of the largest score (a similarity, or a probability), below which an image is none of these.
        in_sets_: whether the network's features depend on the set that an image is in.

    Example:
        >>> import numpy as np
        >>> from sklearn.model_selection import cross_val_score
        >>> classifier = Classifier("runs/photos")  # doctest: +SKIP
        >>> cross_val_score(classifier, images, labels, cv=5)  # doctest: +SKIP
    """

    def __init__(
        self,
        run: str | PathLike[str],
        weights: str = "best",
        readout: str = "prototype",
        reject: float = 0.05,
        invert: bool | None = None,
        transductive: bool = False,
    ) -> None:
        self.run, self.weights, self.readout, self.reject, self.invert, self.transductive = run, weights, readout, reject, invert, transductive

    @classmethod
    def from_run(cls, run: str | PathLike[str], **settings: Any) -> Classifier:
        """A classifier with the weights of a run, which are read at once.

        Args:
            run: the run directory.
            settings: see :class:`Classifier`.

        Raises:
            RunError, CheckpointError: there is no such run, or it has no such weights.
            ConfigError: the run classifies no images.
        """
        classifier = cls(run, **settings)
        classifier.loaded()
        return classifier

    def decoding(self) -> Decoding:
        """How image files become what the network reads."""
        return self.loaded()[1]

    def fit(self, images: Images, labels: Sequence[Any] | NDArray[Any]) -> Classifier:
        """Learn the classes from labelled images.

        Args:
            images: files, PIL images, or arrays [n, H, W] or [n, H, W, C], uint8 in 0..255 or float in 0..1; of any size, cropped and resized as in training.
            labels: the class of each, n.

        Raises:
            DataError: fewer than two classes, a number of labels that is not that of the images, or an image that cannot be read.
            ConfigError: a setting is wrong, or the readout cannot be used with this many classes.
        """
        if not 0 <= self.reject < 1:
            raise ConfigError(f"reject: must be a share from 0 to below 1, got {self.reject}; choose such as 0.05")
        flow, decoding = self.loaded()
        x, y = as_images(images, decoding), np.asarray(labels)
        if len(x) != len(y):
            raise DataError(f"fit: {len(x)} images have {len(y)} labels; give one label for each")
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"fit: the images are of {len(self.classes_)} class; give labelled images of two or more")
        self.readout_ = chosen_readouts(self.readout, flow.pipeline.plugins)[self.readout]
        self._require_way(flow)
        support = flow.inputs(x)
        self._support = Labelled(support, torch.as_tensor(numbers, device=flow.device))
        self.in_sets_ = not self.transductive and depend_on_their_set(flow.model, support)
        self.threshold_ = self._calibrated() if self.reject else -math.inf
        return self

    def predict(self, images: Images) -> NDArray[Any]:
        """The most probable class of each image, [n]; see :meth:`fit` for what images may be."""
        return np.asarray(self.classes_[self._query(images).argmax(1).numpy()])

    def predict_proba(self, images: Images) -> NDArray[np.float64]:
        """Probabilities [n, N] in the order of ``classes_``: softmax of the scores, of similarities over the head's temperature."""
        return np.asarray(self._probabilities(self._query(images)))

    def known(self, images: Images) -> NDArray[np.bool_]:
        """Whether each image is near enough to one of the classes, [n]: its largest score reaches ``threshold_``."""
        return np.asarray(self._confidence(self._query(images)) >= self.threshold_)

    def answers(self, images: Images) -> list[Prediction]:
        """Class, probability, runner-up and whether it is none of these, for each image."""
        scores = self._query(images)
        probabilities, known = self._probabilities(scores), self._confidence(scores) >= self.threshold_
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :2].tolist()
        return [
            Prediction(self.classes_[first], float(p[first]), self.classes_[second], float(p[second]), bool(near))
            for (first, second), p, near in zip(order, probabilities, known)
        ]

    def __getstate__(self) -> Any:
        """All but the weights, which are read from the run again."""
        return {key: value for key, value in super().__getstate__().items() if key != "_loaded"}

    def loaded(self) -> tuple[FewShotFlow, Decoding]:
        """The flow with the weights, once for these parameters, and how files become its inputs."""
        key = (str(Path(self.run).resolve()), self.weights)
        if getattr(self, "_loaded", (None,))[0] != key:
            self._loaded = (key, load_without_data(Path(self.run), self.weights))
        flow: FewShotFlow = self._loaded[1]
        channels, *_, size = flow.shape
        dataset = flow.pipeline.dataset
        own = bool(dataset is not None and dataset.settings.get("invert", False))
        return flow, Decoding(size, "grey" if channels == 1 else "color", own if self.invert is None else self.invert)

    def _require_way(self, flow: FewShotFlow) -> None:
        """A head of fixed outputs classifies no other number of classes."""
        head = flow.model.head
        adapts = READOUTS.entries(flow.pipeline.plugins)[self.readout].tags["adapts"]
        if adapts and head.fixed_way and flow.interface.way != len(self.classes_):
            raise ConfigError(
                f"readout: {self.readout!r} uses the head, which has {flow.interface.way} outputs, and there are {len(self.classes_)} classes; choose the readout "
                "prototype or logistic"
            )

    def _query(self, images: Images) -> Tensor:
        check_is_fitted(self, "classes_")
        flow, decoding = self.loaded()
        x = as_images(images, decoding)
        return self._scores(flow, self._support, flow.inputs(x)) if len(x) else torch.zeros(0, len(self.classes_), dtype=torch.float64)

    def _scores(self, flow: FewShotFlow, support: Labelled, query: Tensor) -> Tensor:
        """The readout's scores [n, N] of images, each by itself."""
        readout: Readout = self.readout_
        if not self.in_sets_:
            size = len(query) if self.transductive else TOGETHER
            return torch.cat([self._read(flow, readout, support, chunk[None])[0] for chunk in torch.split(query, size)])
        tasks = 1 if READOUTS.entries(flow.pipeline.plugins)[self.readout].tags["adapts"] else SETS  # random views are the same for every image
        sets = (torch.stack([torch.cat([support.x, image[None]]) for image in chunk]) for chunk in torch.split(query, tasks))
        return torch.cat([self._read(flow, readout, support, group)[:, -1] for group in sets])

    def _read(self, flow: FewShotFlow, readout: Readout, support: Labelled, query: Tensor) -> Tensor:
        """Scores [T, n, N] of T sets of images [T, n, C, H, W]."""
        count = len(query)
        shared = Labelled(support.x.expand(count, *support.x.shape), support.y.expand(count, -1))
        unknown = torch.zeros(query.shape[:2], dtype=torch.int64, device=query.device)
        episode = Episode(shared, Labelled(query, unknown), len(self.classes_), seed_for(flow.pipeline.evaluate.seed, f"inner/{PURPOSE}", 0))
        return readout(Shown(flow, episode, PURPOSE, 0)).detach().double().cpu()

    def _probabilities(self, scores: Tensor) -> Tensor:
        return (scores / self._temperature()).softmax(1)

    def _temperature(self) -> float:
        flow, _ = self.loaded()
        similarity = READOUTS.entries(flow.pipeline.plugins)[self.readout].tags["similarity"]
        return float(getattr(flow.model.head, "temperature", 1.0)) if similarity else 1.0

    def _confidence(self, scores: Tensor) -> Tensor:
        flow, _ = self.loaded()
        similarity = READOUTS.entries(flow.pipeline.plugins)[self.readout].tags["similarity"]
        return (scores if similarity else self._probabilities(scores)).amax(1)

    def _calibrated(self) -> float:
        """The score that all but a share ``reject`` of the labelled images reach, classified by the others, or by views where a class has one image."""
        flow, _ = self.loaded()
        support = self._support
        if int(torch.bincount(support.y).min()) < 2:
            views = flow.augmented(support.x.repeat_interleave(4, 0), "query", PURPOSE, 0)
            return _quantile(self._confidence(self._scores(flow, support, views)), self.reject)
        confidence = []
        folds = _folds(support.y.tolist())
        for fold in folds:
            kept = torch.tensor([i for i in range(len(support.y)) if i not in fold], device=support.y.device)
            rest = Labelled(support.x[kept], support.y[kept])
            confidence.append(self._confidence(self._scores(flow, rest, support.x[sorted(fold)])))
        return _quantile(torch.cat(confidence), self.reject)


def _quantile(values: Tensor, share: float) -> float:
    """The value below which at most this share lies."""
    return float(values.sort().values[int(share * len(values))])


def _folds(labels: Sequence[int]) -> list[set[int]]:
    """Positions by fold: a class's images lie in different folds as far as there are folds, and every class keeps one in the others."""
    counts = {label: 0 for label in labels}
    number = min(FOLDS, max(labels.count(label) for label in counts))
    folds: list[set[int]] = [set() for _ in range(max(2, number))]
    for i, label in enumerate(labels):
        folds[counts[label] % len(folds)].add(i)
        counts[label] += 1
    return [fold for fold in folds if fold]
