"""The composition root: what a seed fixes, which labels stay, what an episode is made of, how images lie in memory, what is refused and by which path."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from metaflowkit.composition.augmentation import operations
from metaflowkit.composition.device import chosen_device, wait_for
from metaflowkit.composition.flow import FewShotFlow, build
from metaflowkit.composition.learner import Interface, build_learner
from metaflowkit.config.pipeline import read
from metaflowkit.config.types import Pipeline
from metaflowkit.engines.base import MetaLearner
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.errors import ConfigError, DataError
from metaflowkit.models.backbones.conv4 import Conv4
from metaflowkit.orders import Exact, First
from metaflowkit.types import ImageSet
from tests.small import SMALL

PIPELINE = "device: cpu\n" + SMALL.replace("meta_batch: 1", "meta_batch: 2")
GREY, COLOUR = (1, 28, 28), (3, 20, 16)


def images(channels: int) -> ImageSet:
    """A set of one image."""
    return ImageSet(torch.zeros(1, channels, 4, 4), torch.zeros(0, dtype=torch.int64), ())


def learner_of(pipeline: Pipeline) -> MetaLearner:
    """The learner for grey images."""
    return build_learner(pipeline, Interface(GREY, pipeline.tasks.settings["way"]), CPU)


CPU = torch.device("cpu")


@pytest.fixture
def pipeline(write):
    """Read the small pipeline with overrides."""
    path = write(PIPELINE)
    return lambda *overrides: read(path, overrides)


@pytest.fixture(scope="module")
def flow(tmp_path_factory) -> FewShotFlow:
    path = tmp_path_factory.mktemp("flow") / "small.yaml"
    path.write_text(PIPELINE)
    with pytest.MonkeyPatch.context() as patch:  # the cache of conftest, which a fixture of the module comes before
        patch.setenv("METAFLOWKIT_CACHE", str(tmp_path_factory.getbasetemp().parent / "metaflowkit-cache"))
        return build(read(path))


def weights(flow: FewShotFlow) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in flow.learner.model.parameters()])


def test_the_seed_alone_gives_the_weights(flow, pipeline) -> None:
    torch.manual_seed(1)
    again = weights(build(pipeline()))
    torch.manual_seed(2)
    torch.rand(5)
    assert torch.equal(weights(build(pipeline())), again)
    assert torch.equal(weights(flow), again)
    assert not torch.equal(weights(build(pipeline("seed=1"))), again)


def test_neither_building_nor_an_episode_touches_the_global_generator(pipeline) -> None:
    state = torch.get_rng_state()
    build(pipeline("augment.level=4")).episode(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_self_supervised_tasks_leave_no_training_labels_in_the_flow(flow) -> None:
    assert list(flow.splits) == ["val", "test"]
    held = [*vars(flow.tasks).values(), *vars(flow.stage).values()]
    assert not any(isinstance(value, ImageSet) for value in held)
    assert [value.dtype for value in held if isinstance(value, torch.Tensor)] == [torch.uint8]


def test_labelled_tasks_keep_the_training_labels(pipeline) -> None:
    flow = build(pipeline("tasks=labelled", "inner.loss=cross_entropy"))
    assert list(flow.splits) == ["train", "val", "test"]
    assert flow.tasks.images is flow.splits["train"]


def test_a_flow_for_evaluation_keeps_the_training_labels_and_has_no_tasks(flow, pipeline) -> None:
    measuring = build(pipeline(), train=False)
    assert list(measuring.splits) == ["train", "val", "test"]
    assert torch.equal(measuring.splits["train"].unlabelled(), flow.tasks.images)
    assert measuring.tasks is None
    assert torch.equal(weights(measuring), weights(flow))


def parts_of(episode) -> list[torch.Tensor]:
    return [episode.support.x, episode.support.y, episode.query.x, episode.query.y]


def test_an_episode_depends_on_the_step_and_the_seed_alone(flow, pipeline) -> None:
    episode = flow.episode(3)
    flow.episode(4)
    torch.rand(2)
    assert all(torch.equal(a, b) for a, b in zip(parts_of(episode), parts_of(flow.episode(3)), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(parts_of(episode), parts_of(build(pipeline()).episode(3)), strict=True))
    assert not torch.equal(episode.support.x, flow.episode(4).support.x)
    assert not torch.equal(episode.support.x, build(pipeline("seed=1")).episode(3).support.x)


class Standing:
    """Tasks that are those of the first step at every step."""

    def __init__(self, flow: FewShotFlow) -> None:
        self.first = flow.tasks.episode(1)

    def episode(self, step: int):
        return self.first


def test_the_same_images_are_augmented_anew_at_each_step_and_seed(flow, pipeline) -> None:
    standing, seeded = (dataclasses.replace(one, tasks=Standing(flow)) for one in (flow, build(pipeline("seed=1"))))
    assert torch.equal(standing.episode(1).support.x, flow.episode(1).support.x)
    assert not torch.equal(standing.episode(1).support.x, standing.episode(2).support.x)
    assert not torch.equal(standing.episode(1).query.x, standing.episode(2).query.x)
    assert not torch.equal(standing.episode(1).query.x, seeded.episode(1).query.x)


def test_the_seed_draws_other_images(pipeline) -> None:
    one, other = (build(pipeline("augment=[]", f"seed={seed}")).episode(1) for seed in (0, 1))
    assert not torch.equal(one.query.x, other.query.x)


def test_an_episode_is_float_in_0_to_1_with_its_labels(flow) -> None:
    episode = flow.episode(1)
    assert episode.support.x.shape == (2, 3 * 2, *GREY)
    assert episode.query.x.shape == (2, 3 * 1, *GREY)
    assert episode.way == 3
    for x in (episode.support.x, episode.query.x):
        assert x.dtype == torch.float32
        assert x.min() >= 0
        assert 0.5 < x.max() <= 1  # letters are white
    assert episode.support.y.tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    assert episode.query.y.tolist() == [[0, 1, 2]] * 2


def test_without_augmentation_support_and_query_are_the_images_themselves(pipeline) -> None:
    flow = build(pipeline("augment=[]"))
    episode = flow.episode(1)
    pool = flow.tasks.images
    assert torch.equal(episode.support.x, episode.query.x.repeat_interleave(2, dim=1))
    for image in episode.query.x.flatten(0, 1):
        assert (pool == (image * 255).round().to(torch.uint8)).flatten(1).all(1).any()


def test_augmentation_makes_every_view_another_one(flow) -> None:
    (support, _), (query, _), *_ = flow.episode(1)
    views = torch.cat([support.unflatten(1, (3, 2)), query[:, :, None]], dim=2)  # [T, N, S + Q, C, H, W]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert ((views[:, :, a] - views[:, :, b]).abs().amax((-3, -2, -1)) > 0.1).all()


def test_support_and_query_take_their_own_operations(pipeline) -> None:
    plain = build(pipeline("augment=[]")).episode(2)
    flipped = build(pipeline("augment=[{name: RandomVerticalFlip, apply_to: query, p: 1.0}]")).episode(2)
    assert torch.equal(flipped.support.x, plain.support.x)
    assert torch.allclose(flipped.query.x, plain.query.x.flip(-2), atol=1e-6)
    assert not torch.equal(plain.query.x, plain.query.x.flip(-2))


@pytest.mark.parametrize("shape", [GREY, COLOUR], ids=["grey", "colour"])
def test_channels_lie_last_in_memory_on_a_cpu_and_values_stay(flow, shape) -> None:
    channels, _, width = shape
    x = torch.arange(2 * 3 * shape[0] * shape[1] * shape[2]).remainder(251).to(torch.uint8).reshape(2, 3, *shape)
    floats = flow.inputs(x)
    assert torch.equal(floats, x / 255)
    for images in (floats, flow.augmented(floats, "support", "train", 0)):
        assert images.shape == x.shape
        assert images.stride()[-3:] == (1, width * channels, channels)
        assert images[0].is_contiguous(memory_format=torch.channels_last)


def test_episodes_reach_the_model_with_channels_last(flow) -> None:
    episode = flow.episode(1)
    assert episode.support.x.stride() == (6 * 28 * 28, 28 * 28, 1, 28, 1)
    assert episode.query.x.stride()[-3:] == (1, 28, 1)


def test_the_pipeline_reaches_the_parts_of_the_learner(pipeline) -> None:
    changed = pipeline(
        "inner={steps: 4, order: first, loss: cross_entropy, engine: higher, rule: {name: sgd, lr: 0.25}}", "model.head=linear", "tasks.way=7", "evaluate.way=7"
    )
    learner = learner_of(changed)
    assert learner.steps == 4
    assert isinstance(learner.order, First)
    start, rule = {"w": torch.tensor([1.0])}, learner.rule
    assert rule.update({"w": torch.tensor([2.0])}, rule.init(start), start)[0]["w"].item() == 1.0 - 0.25 * 2.0
    assert type(learner.engine) is HigherEngine
    assert learner.model.head.weight.shape == (7, 4)  # a row per class of the tasks, a column per feature of the backbone
    assert isinstance(learner_of(pipeline()).order, Exact)


def test_operations_are_those_listed_or_those_of_the_level_for_the_channels(pipeline) -> None:
    listed = operations(pipeline("augment=[{name: RandomInvert, apply_to: query, p: 0.5}]"), images(1))
    assert [(choice.name, choice.settings["apply_to"], choice.settings["p"]) for choice in listed] == [("RandomInvert", "query", 0.5)]
    assert operations(pipeline("augment=[]"), images(3)) == []
    assert [choice.name for choice in operations(pipeline(), images(1))] == ["RandomAffine"]
    assert [choice.name for choice in operations(pipeline(), images(3))] == ["RandomResizedCrop", "RandomHorizontalFlip"]


def test_a_data_set_without_training_images_serves_evaluation_only(pipeline) -> None:
    with pytest.raises(DataError) as caught:
        build(pipeline("dataset=digits"))
    assert str(caught.value) == "dataset: has no training images; give its training split a share of the classes"
    splits = build(pipeline("dataset=digits"), train=False).splits
    assert [name for name, images in splits.items() if len(images.x)] == ["test"]


def test_an_episode_that_cannot_be_measured_is_refused_before_the_run(flow, pipeline) -> None:
    test, val = (len(flow.splits[split].classes) for split in ("test", "val"))
    assert test < val
    for split, have in (("test", test), ("val", val)):
        with pytest.raises(DataError) as caught:
            build(pipeline(f"evaluate.way=[3, {have + 1}]"))
        assert str(caught.value) == (
            f"evaluate on split {split!r}: way {have + 1} with shot 1 and query 2 needs {have + 1} classes of 3 images, "
            f"the split has {have} of its {have} classes; lower way, shot or query, or widen the split"
        )
    assert build(pipeline(f"evaluate.way=[3, {val + 1}]"), train=False).tasks is None


def test_a_gpu_that_is_not_there_is_refused(pipeline, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ConfigError) as caught:
            build(pipeline(f"device={name}"))
        assert str(caught.value) == f"device: torch sees no GPU, got {name!r}; use device=cpu or auto"


def test_auto_takes_the_gpu_where_there_is_one(pipeline, monkeypatch) -> None:
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert chosen_device(pipeline("device=auto")).type == kind


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.image_size=8", "model.backbone: conv4 needs images of at least 16x16 pixels, got 8x8; raise dataset.image_size"),
        ("dataset.train=[georgian]", "dataset: train and test must not share a script, got georgian in both; remove it from one"),
        ("inner.rule={name: sgd, nesterov: true}", "inner.rule: nesterov needs momentum, got momentum 0; set momentum, such as 0.9, or leave nesterov out"),
    ],
)
def test_what_a_component_refuses_bears_its_path(pipeline, override, message) -> None:
    with pytest.raises(ConfigError) as caught:
        build(pipeline(override))
    place = str(caught.value).removesuffix(f": {message}")
    assert re.search(r"p\.yaml:\d+:\d+$", place) or place.startswith(f"--set {override}")


def test_an_operation_that_is_refused_bears_its_place(pipeline) -> None:
    crop = "{name: RandomCrop, size: [8, 8]}"
    with pytest.raises(ConfigError, match=r"^augment\.1: RandomCrop does not work on examples of shape \(1, 28, 28\): .* must keep their shape"):
        build(pipeline(f"augment=[RandomInvert, {crop}]"))


FLOATS = '''
import torch

from metaflowkit.config.registry import DATASETS
from metaflowkit.types import ImageSet


@DATASETS.register("floats")
class Floats:
    """Six classes of float images, as a plugin may give them.

    Args:
        scale: of the images, which lie in 0..1 at 1.
        labels: whether training images have labels.
    """

    def __init__(self, scale: float = 1.0, labels: bool = True) -> None:
        self.scale, self.labels = scale, labels

    def load(self):
        x = torch.linspace(0, self.scale, 60 * 256).reshape(60, 1, 16, 16)
        y = torch.arange(6).repeat_interleave(10)
        names = tuple("abcdef")
        train = ImageSet(x[:30], y[:30], names[:3]) if self.labels else ImageSet(x[:30], y[:0], ())
        return {"train": train, "test": ImageSet(x[30:], y[30:] - 3, names[3:])}
'''


@pytest.fixture
def floats(pipeline, write, tmp_path, monkeypatch):
    """Read the small pipeline on float images of a plugin."""
    monkeypatch.syspath_prepend(str(tmp_path))
    write(FLOATS, "float_images.py")
    return lambda settings="", *overrides: pipeline("plugins=[float_images]", f"dataset={{name: floats{settings}}}", "augment=[]", *overrides)


def test_float_images_of_a_plugin_are_not_scaled_again(floats) -> None:
    flow = build(floats())
    x = torch.linspace(0, 1, 60 * 256).reshape(60, 1, 16, 16)[:30]
    for image in flow.episode(1).query.x.flatten(0, 1):
        assert (x == image).flatten(1).all(1).any()
    assert torch.equal(flow.inputs(x.double()), x)
    assert flow.inputs(x.double()).dtype == torch.float32


def test_a_data_set_that_breaks_its_contract_is_refused_before_the_run(floats) -> None:
    with pytest.raises(DataError) as caught:
        build(floats(", scale: 255.0"))
    assert str(caught.value) == "dataset 'floats', split 'train': float images must lie in 0..1, got 0 to 127.492; scale them, or give uint8"


def test_tasks_that_read_labels_are_refused_where_there_are_none(floats) -> None:
    build(floats(", labels: false"))
    with pytest.raises(DataError) as caught:
        build(floats(", labels: false", "tasks=labelled", "inner.loss=cross_entropy"))
    assert str(caught.value) == (
        "tasks: 'labelled' reads labels, and the training images have no classes; choose tasks: views, or give images in a folder per class"
    )


def test_more_pseudo_classes_than_images_are_refused(flow, pipeline) -> None:
    have = len(flow.tasks.images)
    with pytest.raises(DataError, match=rf"^tasks\.way: {have + 1} pseudo-classes need {have + 1} images, the training split has {have};"):
        build(pipeline(f"tasks.way={have + 1}"))


def test_a_flow_is_a_value(flow) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        flow.splits = {}
    assert flow.shape == GREY
    assert flow.device == CPU


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["inner.adapt=['haed.bias']"],
            r"--set inner\.adapt=\['haed\.bias'\]:1:2: inner\.adapt\.0: matches no parameter, got 'haed\.bias'; did you mean 'head\.bias'\?",
        ),
        (["inner.adapt=[]"], r"inner\.adapt: must name at least one pattern, got none; write such as \[head\], or null for all"),
    ],
)
def test_what_the_inner_loop_cannot_do_bears_its_place(pipeline, overrides, says) -> None:
    with pytest.raises(ConfigError, match=says):
        learner_of(pipeline("model.head=linear", "evaluate.way=3", *overrides))


@pytest.mark.parametrize("others", ["shared", "frozen"])
def test_patterns_choose_what_adapts_and_what_is_learned(pipeline, others) -> None:
    changed = pipeline(
        "model.head=linear",
        "evaluate.way=3",
        "inner.loss=cross_entropy",
        "inner.adapt=['head.*']",
        f"inner.others={others}",
        "inner.learn={lr: {per: layer, per_step: true}}",
        "inner.steps=3",
    )
    learner = learner_of(changed)
    names = {name for name, _ in learner.model.named_parameters()}
    assert learner.adapts == {"head.weight", "head.bias"}
    assert learner.model.rule.get_parameter("lr/head").shape == (3,)
    body = {name for name in names if name.startswith("backbone.")}
    assert learner.frozen == (body if others == "frozen" else set())
    gradients = learner.outcome(build(changed).episode(1)).gradients
    assert set(gradients) == names - learner.frozen
    assert gradients["rule.lr/head"].shape == (3,)


@pytest.mark.parametrize("engine", ["higher", "vectorized"])
@pytest.mark.parametrize("objective", ["prototype_contrastive", "nt_xent"])
def test_objectives_on_features_embed_each_view_once(engine, objective, write, monkeypatch) -> None:
    flow = build(read(write(SMALL), [f"inner.engine={engine}", f"objective={objective}", "inner.steps=0", "inner.loss=task", "model.head=prototype"]))
    embedded = []
    monkeypatch.setattr(Conv4, "forward", lambda self, x: embedded.append(len(x)) or self.blocks(x).flatten(1))
    flow.learner.outcome(flow.episode(1))
    assert embedded == [3 * (2 + 1)]


def test_a_gpu_is_waited_for_and_a_cpu_is_not(monkeypatch) -> None:
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for name in ("cpu", "cuda:1"):
        wait_for(torch.device(name))
    assert waited == [torch.device("cuda:1")]
