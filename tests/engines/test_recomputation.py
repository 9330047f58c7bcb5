"""torch.utils.checkpoint inside a network is refused in every engine and order, in this thread alone, and torch is left as it was."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.utils import checkpoint as module
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.recomputation import REFUSAL, no_recomputation
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.errors import ConfigError
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.query_loss import QueryLoss
from metaflowkit.orders import Exact, First, Implicit, Reptile, Truncate
from metaflowkit.rules.sgd import SGD
from tests.oracles import Smooth, make_episode, make_learner, scores

ENGINES = {"one by one": VectorizedEngine(1, 1), "side by side": VectorizedEngine(1, 2), "all at once": VectorizedEngine(), "higher": HigherEngine()}


class Saving(Smooth):
    """Computes its first layers again on the way back, as a network that saves memory does."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        convolution, norm, *rest = self.layers
        h = checkpoint(lambda x: norm(convolution(x)), x, use_reentrant=self.reentrant)
        for layer in rest:
            h = layer(h)
        return h


def parts_of(reentrant, **more):
    torch.manual_seed(1)
    return make_learner(SGD(lr=0.3), Contrastive(1.0), QueryLoss(), Prototype(temperature=1.0), Saving(reentrant), **more)


@pytest.mark.parametrize("reentrant", [False, True], ids=["not reentrant", "reentrant"])
@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("order", [Exact(), First(), Truncate(1), Reptile(), Implicit()], ids=lambda order: type(order).__name__)
def test_it_is_refused_with_the_key_to_set(order, engine, reentrant) -> None:
    learner, episode = parts_of(reentrant, order=order, proximal=1.0), make_episode()
    for call in (lambda: ENGINES[engine].outcome(learner, episode), lambda: ENGINES[engine].adapt(learner, episode.support, episode)):
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == REFUSAL
    assert "take it out of the network and set inner.remat: true" in REFUSAL
    assert module._checkpoint_hook.__name__ == "_checkpoint_hook"
    assert "apply" not in vars(module.CheckpointFunction)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True], ids=["not reentrant", "reentrant"])
def test_nothing_is_refused_where_nothing_is_differentiated(reentrant) -> None:
    """Without inner steps the scores of a query set are read without a graph, in which nothing is computed again."""
    learner, episode = parts_of(reentrant, steps=0), make_episode()
    torch.manual_seed(1)  # the same weights
    plain = make_learner(SGD(lr=0.3), Contrastive(1.0), QueryLoss(), Prototype(temperature=1.0), Smooth(), steps=0)
    unbatched = [ENGINES["one by one"], ENGINES["higher"]]
    for engine in unbatched if reentrant or hasattr(module, "_NoopSaveInputs") else ENGINES.values():  # which older versions of torch cannot batch
        torch.testing.assert_close(scores(engine, learner, episode), scores(engine, plain, episode))


@pytest.mark.parametrize("reentrant", [False, True], ids=["not reentrant", "reentrant"])
def test_other_threads_may_go_on_with_it(reentrant) -> None:
    x = torch.ones(2, requires_grad=True)
    gradients = []

    def work() -> None:
        y = checkpoint(torch.sin, x, use_reentrant=reentrant) + checkpoint_sequential([torch.sin, torch.cos], 2, x, use_reentrant=reentrant)
        y.sum().backward()
        gradients.append(x.grad)

    with no_recomputation():
        with pytest.raises(ConfigError), no_recomputation():
            checkpoint(torch.sin, x, use_reentrant=reentrant)
        with pytest.raises(ConfigError):  # after one has left
            checkpoint_sequential([torch.sin, torch.cos], 2, x, use_reentrant=reentrant)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    torch.testing.assert_close(gradients[0], x.cos() - x.sin().sin() * x.cos())
    work()
