"""Backbones of a plugin, run end to end: what a run says of them is true, and what it may not change stays as it was."""

from __future__ import annotations

import pytest
import torch

import metaflowkit
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.doctor.reduced import in_double
from metaflowkit.engines.recomputation import REFUSAL
from metaflowkit.errors import ConfigError
from metaflowkit.evaluation.embedding import embed
from metaflowkit.evaluation.episodes import evaluate
from metaflowkit.evaluation.measurement import protocol
from metaflowkit.evaluation.protocol import depends_on_others
from metaflowkit.training import checkpoint
from metaflowkit.training.run_directory import Run
from tests.oracles import finite_difference, relative
from tests.small import SMALL

CURRENT = "batch normalisation uses the statistics of the current set (transductive)"
RUNNING = "batch normalisation uses the running statistics it was built with (inductive)"
NOTHING = "no statistics are shared between images (inductive)"


@pytest.fixture
def pipeline(write):
    path = write(f"device: cpu\nplugins: [tests.outside.networks]\n{SMALL}")
    return lambda backbone, *overrides: read(path, [f"model.backbone={backbone}", *overrides])


def state(flow) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in flow.learner.model.state_dict().items()}


def unchanged(flow, before) -> bool:
    after = flow.learner.model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], x) for name, x in before.items())


STATEMENTS = [
    ("outside_running", CURRENT, True),
    ("{name: outside_running, evaluating: true}", RUNNING, False),
    (
        "outside_mixed",
        "batch normalisation uses the running statistics it was built with, in other layers the statistics of the current set (transductive)",
        True,
    ),
    ("outside_instance", NOTHING, False),
    ("outside_group", NOTHING, False),
    ("outside_noisy", NOTHING, False),
    ("outside_whitened", "an image's features depend on the other images of its set (transductive)", True),
    ("outside_resnet", CURRENT, True),
    ("{name: outside_resnet, evaluating: true}", RUNNING, False),
    ("{name: conv4, width: 4, norm: group}", NOTHING, False),
    ("{name: conv4, width: 4}", CURRENT, True),
]


@pytest.mark.parametrize(("backbone", "says", "shared"), STATEMENTS, ids=[name for name, _, _ in STATEMENTS])
def test_the_protocol_follows_from_the_modules_and_what_they_do(pipeline, backbone, says, shared) -> None:
    flow = build(pipeline(backbone))
    before = state(flow)
    assert protocol(flow, ["prototype"]).startswith(f"{says}; episodes are drawn")
    assert depends_on_others(flow.model, flow.interface) is shared
    if "noisy" not in backbone:
        images = torch.rand(2, 6, *flow.shape)
        images[:, :2] = images[0, :2].clone()
        alone, beside = (embed(flow.model, x[None])[0, :2] for x in images)
        assert torch.allclose(alone, beside, rtol=1e-4, atol=1e-6) is not shared
    assert unchanged(flow, before)


@pytest.mark.parametrize(("model", "says"), [("resnet10t", CURRENT), ("convnext_atto", NOTHING)])
def test_networks_of_timm(pipeline, model, says) -> None:
    pytest.importorskip("timm")
    flow = build(pipeline(f"{{name: outside_timm, model: {model}}}"))
    before = state(flow)
    assert protocol(flow, ["prototype"]).startswith(f"{says}; episodes are drawn")
    gradients = flow.learner.outcome(flow.episode(1)).gradients
    assert all(g.isfinite().all() for g in gradients.values())
    evaluate(flow, "test", 3, 1, 2, 4, ["prototype", "adapted"])
    assert unchanged(flow, before)


@pytest.mark.parametrize("backbone", ["outside_running", "outside_instance", "outside_counting", "{name: outside_running, evaluating: true}"])
def test_measuring_and_meta_gradients_write_to_no_buffer(pipeline, backbone) -> None:
    for engine in ("higher", "{name: vectorized, chunk: 1}"):
        flow = build(pipeline(backbone, f"inner.engine={engine}"))
        before = state(flow)
        first = embed(flow.model, flow.episode(1).support.x)
        evaluate(flow, "test", 3, 1, 2, 4, ["prototype", "adapted", "logistic"])
        flow.learner.outcome(flow.episode(1))
        flow.calibrate(start=True)
        assert torch.equal(embed(flow.model, flow.episode(1).support.x), first)
        assert unchanged(flow, before)


def test_statistics_of_training_tasks_beside_running_ones_leave_those_alone(pipeline) -> None:
    """Calibration embeds training tasks in the model itself."""
    flow = build(pipeline("{name: conv4, width: 4, norm: frozen}"))
    extra = torch.nn.BatchNorm1d(flow.learner.model.backbone.features)
    flow.learner.model.backbone.blocks.append(torch.nn.Sequential(torch.nn.Flatten(), extra))
    flow.calibrate(start=True)
    assert not extra.running_mean.any()
    assert extra.num_batches_tracked == 0
    assert protocol(flow, ["prototype"]).startswith(
        "batch normalisation uses statistics of training tasks under the untrained weights, in other layers the statistics of the current set (transductive)"
    )


@pytest.mark.parametrize("backbone", ["outside_running", "outside_counting", "outside_hooked", "outside_frozen", "outside_whitened"])
def test_a_run_trains_and_leaves_buffers_and_frozen_parameters_to_the_bit(pipeline, tmp_path, backbone) -> None:
    chosen = pipeline(backbone, "evaluate.readouts=[prototype, adapted]", "outer.optimizer={name: adamw, lr: 0.01, weight_decay: 0.1}")
    start = state(build(chosen))
    report = metaflowkit.train(chosen, tmp_path / "run")
    assert protocol(build(chosen)) in "\n".join(report.lines())
    end = Run(tmp_path / "run").latest().model
    flow = build(chosen)
    still = {name for name, _ in flow.learner.model.named_buffers()} | {name for name, p in flow.learner.model.named_parameters() if not p.requires_grad}
    assert len(still) == {"outside_running": 6, "outside_counting": 1, "outside_frozen": 4}.get(backbone, 0)
    for name, x in end.items():
        assert torch.equal(x, start[name]) is (name in still), name
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "best.pt").model.keys() == start.keys()


@pytest.mark.parametrize("backbone", ["outside_running", "outside_counting", "outside_hooked", "outside_frozen"])
def test_the_engine_of_auto_gives_the_gradient_of_the_network(pipeline, backbone) -> None:
    flow = build(pipeline(backbone, "objective=query_loss", "inner.steps=2", "model.head={name: prototype, temperature: 1.0}"))
    flow.learner.model.double()
    learner, episode = flow.learner, in_double(flow.episode(1))
    gradients = flow.learner.engine.outcome(learner, episode).gradients
    if backbone != "outside_hooked":
        higher = build(pipeline(backbone, "inner.engine=higher")).learner.engine.outcome(learner, episode).gradients
        assert relative(higher, gradients) < 1e-9
    ((differences, exact),) = finite_difference(flow.learner.engine, learner, episode, directions=1, h=1e-7)
    assert exact == pytest.approx(differences, rel=1e-4)


@pytest.mark.parametrize("reentrant", ["true", "false"])
def test_checkpointing_inside_a_network_is_refused_before_anything_is_written(pipeline, tmp_path, reentrant) -> None:
    chosen = pipeline(f"{{name: outside_saving, reentrant: {reentrant}}}")
    with pytest.raises(ConfigError) as caught:
        metaflowkit.train(chosen, tmp_path / "run")
    assert str(caught.value) == REFUSAL
    assert not (tmp_path / "run").exists()
    flow = build(chosen)
    with pytest.raises(ConfigError, match=r"inner\.remat: the network calls torch\.utils\.checkpoint"):
        flow.learner.outcome(flow.episode(1))


def test_hooks_that_the_chosen_engine_drops_are_refused_with_their_place(pipeline) -> None:
    with pytest.raises(ConfigError) as caught:
        build(pipeline("outside_hooked", "inner.engine=higher"))
    assert [problem.partition("backbone.")[2] for problem in caught.value.problems] == [
        f"{layer} (Conv2d): the engine on higher drops its forward hooks; "
        "choose inner.engine: {name: vectorized, chunk: 1}, with one of this library's rules, or remove them"
        for layer in ("layers.0", "layers.3")
    ]
    assert all("inner.engine: " in problem for problem in caught.value.problems)
    with pytest.raises(ConfigError, match="the engine on higher drops its forward hooks"):
        build(pipeline("outside_hooked", "inner.rule={name: higher, optimizer: SGD, options: {lr: 0.1}}"))


@pytest.mark.parametrize(
    ("backbone", "overrides", "says"),
    [
        (
            "outside_frozen",
            ["inner.adapt=['*layers.0.*', '*layers.1.*']"],
            "the inner steps move nothing, since every parameter that it names has requires_grad=False, "
            "got ['*layers.0.*', '*layers.1.*']; name others, leave some of them trainable, or set inner.steps: 0",
        ),
        ("{name: outside_frozen, whole: true}", [], "got all; name others, leave some of them trainable, or set inner.steps: 0"),
        (
            "{name: outside_frozen, whole: true}",
            ["inner.steps=0"],
            "model: has no parameter to learn, since all have requires_grad=False; leave some of them trainable",
        ),
    ],
    ids=["patterns", "all", "nothing to learn"],
)
def test_a_loop_that_would_move_nothing_is_refused(pipeline, backbone, overrides, says) -> None:
    with pytest.raises(ConfigError) as caught:
        build(pipeline(backbone, *overrides))
    assert str(caught.value).endswith(says)


def test_a_frozen_network_can_be_measured(pipeline) -> None:
    flow = build(pipeline("{name: outside_frozen, whole: true}", "inner.steps=0"), train=False)
    assert evaluate(flow, "test", 3, 1, 2, 4, ["prototype", "logistic"])


def test_parameters_frozen_after_the_build_stay_too(pipeline) -> None:
    flow = build(pipeline("outside_group"))
    flow.learner.model.backbone.layers[0].weight.requires_grad_(False)
    assert "backbone.layers.0.weight" not in flow.learner.outcome(flow.episode(1)).gradients
    adapted = flow.learner.adapt(flow.episode(1).support, flow.episode(1)).params["backbone.layers.0.weight"]
    assert torch.equal(adapted[0], flow.learner.model.backbone.layers[0].weight)


def test_learned_rates_and_a_linear_head_with_frozen_parameters(pipeline) -> None:
    chosen = pipeline("outside_frozen", "model.head=linear", "inner.loss=cross_entropy", "inner.learn={lr: parameter}", "evaluate.way=3")
    flow = build(chosen)
    flow.learner.model.head.bias.requires_grad_(False)
    gradients = flow.learner.outcome(flow.episode(1)).gradients
    names = {name for name, p in flow.learner.model.named_parameters() if p.requires_grad}
    assert gradients.keys() == names
    assert not any("layers/0" in name for name in names)
