"""Hooks on a user's modules: honoured with the gradient of what they compute, or refused with the way out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.modules.module as shared
from torch import nn
from torch.nn.utils import prune

from metaflowkit.engines.auto import auto
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.safety import lost_hooks
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.backbones.mlp import MLP
from metaflowkit.models.batch_statistics import norm_then_pool
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import First
from metaflowkit.rules.sgd import SGD
from tests.oracles import Smooth, finite_difference, make_episode, make_learner

ENGINES = {"one by one": VectorizedEngine(1, 1), "side by side": VectorizedEngine(1, 2), "all at once": VectorizedEngine(), "higher": HigherEngine()}


class Pooled(Smooth):
    """A network that pools right after its normalisation."""

    def forward(self, x):
        convolution, norm, softplus, _, flatten = self.layers
        return flatten(softplus(norm_then_pool(convolution(x), norm)))


def parts_of(backbone=None, **more):
    return make_learner(SGD(lr=0.3), Contrastive(1.0), QueryLoss(), Prototype(temperature=1.0), backbone or Smooth(), **more)


def bent(module, arguments, output):
    """A forward hook with a second derivative."""
    return output + output.sin()


def scaled(module, arguments):
    """A forward pre-hook."""
    return (arguments[0] * 1.5,)


def bent_norm(module, arguments, output):
    """A forward hook of all modules that looks for one sort."""
    return bent(module, arguments, output) if isinstance(module, nn.BatchNorm2d) else None


def scaled_norm(module, arguments):
    return scaled(module, arguments) if isinstance(module, nn.BatchNorm2d) else None


HOOKS = {
    "forward": lambda norm: norm.register_forward_hook(bent),
    "pre": lambda norm: norm.register_forward_pre_hook(scaled),
    "forward of all": lambda norm: shared.register_module_forward_hook(bent_norm),
    "pre of all": lambda norm: shared.register_module_forward_pre_hook(scaled_norm),
}


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("kind", list(HOOKS))
@pytest.mark.parametrize("network", [Smooth, Pooled])
def test_forward_hooks_are_part_of_the_function_or_refused(network, kind, engine) -> None:
    learner, episode = parts_of(network()), make_episode()
    learner.model.backbone.layers[1].eps = 0.1  # without it the normalisation undoes the pre-hook
    plain = ENGINES["one by one"].outcome(learner, episode).value
    handle = HOOKS[kind](learner.model.backbone.layers[1])
    try:
        if engine == "higher" and not kind.endswith("of all"):
            with pytest.raises(ConfigError, match=r"inner\.engine: backbone\.layers\.1 \(BatchNorm2d\): the engine on higher drops its forward hooks; choose "):
                ENGINES[engine].outcome(learner, episode)
            with pytest.raises(ConfigError, match=r"\{name: vectorized, chunk: 1\}, with one of this library's rules, or remove them"):
                ENGINES[engine].adapt(learner, episode.support, episode)
            return
        outcome = ENGINES[engine].outcome(learner, episode)
        assert (outcome.value - plain).abs() > 1e-6
        ((differences, exact),) = finite_difference(ENGINES[engine], learner, episode, directions=1, h=1e-6)
        assert exact == pytest.approx(differences, rel=1e-5)
    finally:
        handle.remove()


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(
    ("register", "says"),
    [
        (lambda m: m.backbone.layers[2].register_full_backward_hook(lambda *_: None), "backbone.layers.2 (Softplus): its backward hooks would change"),
        (lambda m: m.backbone.layers[2].register_full_backward_pre_hook(lambda *_: None), "backbone.layers.2 (Softplus): its backward hooks would change"),
        (lambda m: shared.register_module_full_backward_hook(lambda *_: None), "torch.nn.modules.module, for all modules: its backward hooks would change"),
        (lambda m: m.backbone.layers[0].weight.register_hook(lambda g: 2 * g), "backbone.layers.0.weight: its hooks are never called"),
        (lambda m: m.backbone.layers[0].weight.register_post_accumulate_grad_hook(lambda p: None), "backbone.layers.0.weight: its hooks are never called"),
    ],
    ids=["backward", "backward pre", "backward of all", "tensor", "accumulated"],
)
def test_hooks_on_gradients_are_refused(register, says, engine) -> None:
    learner, episode = parts_of(), make_episode()
    handle = register(learner.model)
    try:
        with pytest.raises(ConfigError) as caught:
            ENGINES[engine].outcome(learner, episode)
        assert str(caught.value).startswith(f"inner.engine: {says}")
        assert str(caught.value).endswith("; remove them, and read gradients from what flow.learner.outcome returns")
        with pytest.raises(ConfigError, match="hooks"):
            ENGINES[engine].adapt(learner, episode.support, episode)
    finally:
        handle.remove()


def test_hooks_see_the_user_s_own_modules_one_task_after_the_other() -> None:
    learner, episode = parts_of(), make_episode(tasks=4)
    seen = []
    norm = learner.model.backbone.layers[1]
    handle = norm.register_forward_hook(lambda module, arguments, output: seen.append(module))
    VectorizedEngine(1, 2).outcome(learner, episode)
    handle.remove()
    assert seen
    assert all(module is norm for module in seen)


def test_the_automatic_choice_calls_hooks_task_by_task() -> None:
    learner, episode = parts_of(MLP((1, 8, 8), [3])), make_episode(tasks=4)
    assert auto(learner.model).many.chunk == 16
    handle = learner.model.backbone.layers[0].register_forward_hook(lambda module, arguments, output: output * output.mean().item())  # not for vmap
    engine = auto(learner.model)
    assert engine.many.chunk == engine.few.chunk == 1
    assert engine.description == "vectorized, task by task (hooks of its modules are called for one task after the other)"
    assert engine.outcome(learner, episode).value.isfinite()
    handle.remove()


def test_older_weight_normalisation_works_first_order_and_pruning_does_throughout() -> None:
    """Both set a weight in a forward pre-hook, which higher drops."""
    first = parts_of(order=First())
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(first.model.backbone.layers[0])
    with pytest.raises(ConfigError, match=r"layers\.0 \(Conv2d\): the engine on higher drops its forward hooks"):
        HigherEngine().outcome(first, make_episode())
    assert VectorizedEngine(1).outcome(first, make_episode()).gradients["backbone.layers.0.weight_g"].any()
    pruned, episode = parts_of(), make_episode()
    VectorizedEngine(1).outcome(pruned, episode)
    prune.random_unstructured(pruned.model.backbone.layers[0], "weight", amount=0.5)
    for differences, exact in finite_difference(VectorizedEngine(1), pruned, episode):
        assert exact == pytest.approx(differences, rel=1e-6)
    mask = pruned.model.backbone.layers[0].weight_mask
    assert not VectorizedEngine(1).outcome(pruned, episode).gradients["backbone.layers.0.weight_orig"][mask == 0].any()


def test_parametrizations_are_no_hooks() -> None:
    layer = nn.Linear(2, 2)
    nn.utils.parametrizations.orthogonal(layer)
    assert lost_hooks(layer, forward=True) == []
    assert torch.equal(layer(torch.eye(2)), layer(torch.eye(2)))
