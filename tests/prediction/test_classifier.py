"""The classifier against the evaluation of the same weights, scikit-learn's conventions, and answers that do not depend on the neighbours."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.utils.estimator_checks import check_no_attributes_set_in_init

import metaflowkit as mfk
from metaflowkit.errors import ConfigError, DataError, RunError
from metaflowkit.evaluation.base import Shown
from metaflowkit.evaluation.readouts import AdaptedReadout, LogisticReadout, PrototypeReadout
from metaflowkit.prediction.classifier import Classifier, _folds
from metaflowkit.seeding import seed_for
from metaflowkit.types import Episode, Labelled
from tests.prediction.drawings import CLASSES, NORMS, drawings
from tests.test_docs import blocks


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("readout", ["prototype", "averaged", "logistic", "adapted"])
def test_an_answer_does_not_depend_on_the_images_beside_it(runs, norm, readout) -> None:
    x, y = drawings(12)
    new, _ = drawings(7, seed=1)
    classifier = Classifier(runs[norm], readout=readout).fit(x, y)
    assert classifier.in_sets_ == (norm == "batch")
    together = classifier.predict_proba(new)
    alone = np.concatenate([classifier.predict_proba(new[i : i + 1]) for i in range(len(new))])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(classifier.predict_proba(new[::-1])[::-1] - together).max() < 1e-5
    assert (together.argmax(1) == [list(classifier.classes_).index(c) for c in classifier.predict(new)]).all()
    assert together.sum(1) == pytest.approx(1)


def test_with_shared_statistics_it_does(runs) -> None:
    x, y = drawings(12)
    new, _ = drawings(7, seed=1)
    classifier = Classifier(runs["batch"], transductive=True).fit(x, y)
    assert np.abs(classifier.predict_proba(new)[:1] - classifier.predict_proba(new[:1])).max() > 1e-3


@pytest.mark.parametrize(("readout", "reader"), [("prototype", PrototypeReadout()), ("logistic", LogisticReadout()), ("adapted", AdaptedReadout())])
def test_scores_are_those_that_accuracy_is_measured_by(runs, readout, reader) -> None:
    x, y = drawings(12)
    new, _ = drawings(6, seed=1)
    classifier = Classifier(runs["per_step"], readout=readout).fit(x, y)
    flow = mfk.load(runs["per_step"])
    support, query = (flow.inputs(torch.from_numpy(images)[:, None])[None] for images in (x, new))
    numbers = torch.tensor([CLASSES.index(c) for c in y])[None]
    seed = classifier.loaded()[0].pipeline.evaluate.seed
    episode = Episode(Labelled(support, numbers), Labelled(query, torch.zeros(1, 6, dtype=torch.int64)), 3, seed_for(seed, "inner/predict", 0))
    scores = reader(Shown(flow, episode, "predict", 0))[0].double()
    scale = 0.1 if readout == "prototype" else 1.0
    assert np.abs(classifier.predict_proba(new) - (scores / scale).softmax(1).numpy()).max() < 1e-6


def test_in_a_set_with_the_support_it_is_a_transductive_episode_of_one_image(runs) -> None:
    """By hand, for batch normalisation: the image's features are those in a set with the labelled images, whose own are those of their set."""
    x, y = drawings(9)
    new, _ = drawings(2, seed=1)
    flow = mfk.load(runs["batch"])
    support = flow.inputs(torch.from_numpy(x)[:, None])
    numbers = torch.tensor([CLASSES.index(c) for c in y])

    def features(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.nn.functional.normalize(copy.deepcopy(flow.model.backbone)(images), dim=1)

    with torch.no_grad():
        raw = flow.model.backbone(support)
    means = torch.nn.functional.normalize(torch.stack([raw[numbers == c].mean(0) for c in range(3)]), dim=1)
    expected = torch.stack([features(torch.cat([support, image[None]]))[-1] @ means.T for image in flow.inputs(torch.from_numpy(new)[:, None])])
    classifier = Classifier(runs["batch"]).fit(x, y)
    assert np.abs(classifier.predict_proba(new) - (expected.double() / 0.1).softmax(1).numpy()).max() < 1e-4


def test_it_is_an_estimator_of_scikit_learn(runs) -> None:
    x, y = drawings(30)
    classifier = Classifier.from_run(runs["per_step"], readout="logistic")
    check_no_attributes_set_in_init("Classifier", Classifier(str(runs["per_step"])))
    assert clone(classifier).get_params() == classifier.get_params()
    scores = cross_val_score(classifier, x, y, cv=3)
    folds = StratifiedKFold(3).split(x, y)
    assert list(scores) == [clone(classifier).fit(x[train], y[train]).score(x[test], y[test]) for train, test in folds]
    fitted = pickle.loads(pickle.dumps(classifier.fit(x, y)))
    new, labels = drawings(9, seed=3)
    assert (fitted.predict(new) == classifier.predict(new)).all()
    assert fitted.score(new, labels) == (classifier.predict(new) == labels).mean()
    assert list(classifier.classes_) == list(CLASSES)


def test_the_program_of_the_page_runs(runs) -> None:
    ((_, code),) = blocks("predict.md", "python")
    x, y = drawings(30)
    names = {"images": x, "labels": y, "others": drawings(4, seed=1)[0]}
    exec(code.replace("runs/photos", str(runs["per_step"])), names)
    assert names["classifier"].readout == "logistic"


def test_images_in_every_form_are_the_same(runs, tmp_path) -> None:
    x, y = drawings(6)
    classifier = Classifier(runs["per_step"]).fit(x, y)
    new, _ = drawings(3, seed=1)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, pixels in zip(files, new):
        Image.fromarray(pixels).save(file)
    forms = [
        new[..., None],
        np.repeat(new[..., None], 3, -1),
        new / 255.0,
        [Image.fromarray(p) for p in new],
        files,
        list(map(str, files)),
        torch.from_numpy(new)[:, None],
    ]
    for form in forms:
        assert (classifier.predict_proba(form) == classifier.predict_proba(new)).all()
    larger = [Image.fromarray(p).resize((84, 84), Image.Resampling.NEAREST) for p in new]
    assert np.abs(classifier.predict_proba(larger) - classifier.predict_proba(new)).max() < 1e-6
    inverted = Classifier(runs["per_step"], invert=True).fit(255 - x, y)
    assert (inverted.predict_proba(255 - new) == classifier.predict_proba(new)).all()
    assert classifier.predict([]).shape == (0,)


def test_what_is_none_of_these(runs) -> None:
    x, y = drawings(60)
    new, _ = drawings(90, seed=1)
    classifier = Classifier(runs["per_step"], reject=0.1).fit(x, y)
    assert 0.8 < classifier.known(new).mean() < 0.97
    blank = np.zeros((5, 28, 28), dtype=np.uint8)
    assert not classifier.known(blank).any()
    assert Classifier(runs["per_step"], reject=0.0).fit(x, y).known(blank).all()
    one_shot = Classifier(runs["per_step"], reject=0.1).fit(x[:3], y[:3])  # calibrated by views
    assert one_shot.known(x[:3]).all()
    answer = classifier.answers(new[:1])[0]
    probabilities = classifier.predict_proba(new[:1])[0]
    assert (answer.label, answer.probability) == (classifier.predict(new[:1])[0], probabilities.max())
    assert answer.runner_up_probability == sorted(probabilities)[-2]


def test_every_class_keeps_an_image_outside_each_fold() -> None:
    labels = [0, 0, 1, 1, 1, 1, 2, 2] + [3] * 50
    folds = _folds(labels)
    assert sorted(i for fold in folds for i in fold) == list(range(len(labels)))
    assert all({labels[i] for i in range(len(labels)) if i not in fold} == {0, 1, 2, 3} for fold in folds)


def test_bad_input(runs, tmp_path) -> None:
    x, y = drawings(6)
    with pytest.raises(DataError, match="fit: the images are of 1 class; give labelled images of two or more"):
        Classifier(runs["batch"]).fit(x[:1], y[:1])
    with pytest.raises(DataError, match="6 images have 5 labels"):
        Classifier(runs["batch"]).fit(x, y[:5])
    with pytest.raises(ConfigError, match="reject: must be a share"):
        Classifier(runs["batch"], reject=1.0).fit(x, y)
    with pytest.raises(ConfigError, match="there is no 'nearest'"):
        Classifier(runs["batch"], readout="nearest").fit(x, y)
    with pytest.raises(RunError):
        Classifier.from_run(tmp_path)
    classifier = Classifier(runs["batch"]).fit(x, y)
    for images, text in (
        ([np.zeros((2, 3, 4, 5))], "image 0: must be an array"),
        ([np.full((4, 4), 2.0)], "image 0: holds floats from 2 to 2"),
        ([np.zeros((4, 4), dtype=np.int64)], "image 0: must hold uint8"),
        (["nowhere.png"], "nowhere.png: "),
        ("nowhere.png", "must be several, got one"),
        (torch.zeros(1, 1, 5, 5), "a tensor must be uint8"),
    ):
        with pytest.raises(DataError, match=text):
            classifier.predict(images)
