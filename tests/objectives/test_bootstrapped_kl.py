"""The bootstrapped KL against torch's kl_div on the scores of a stand-in student and target."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metaflowkit.criteria import Classification
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.types import Adapted, Episode, Labelled

G = torch.Generator().manual_seed(0)
STUDENT, FURTHER = (torch.randn(4, 3, generator=G, dtype=torch.float64) for _ in range(2))
QUERY = Labelled(torch.zeros(4, 1), torch.tensor([0, 1, 2, 0]))


def adapted(taken: list) -> Adapted:
    """A student whose score is its only parameter; a further step leads to FURTHER."""

    def advance(params, state, steps):
        taken.append(("advance", steps))
        assert not params["scores"].requires_grad
        return ({"scores": FURTHER} if steps else params), state

    def descend(params, state, loss):
        taken.append(("descend", loss(params).item()))
        return params, state

    student = {"scores": STUDENT.clone().requires_grad_()}
    return Adapted(student, {}, lambda params, x: params["scores"], advance, descend, lambda params, draw: QUERY, Classification(), None)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_value_and_gradient(direction, temperature) -> None:
    value, _ = BootstrappedKL(2, direction, False, temperature)(a := adapted([]), Episode(QUERY, QUERY, 3))
    scores = STUDENT.clone().requires_grad_()
    log_s, log_t = (scores / temperature).log_softmax(1), (FURTHER / temperature).log_softmax(1)
    expected = (
        F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
        if direction == "forward"
        else F.kl_div(log_t, log_s, reduction="batchmean", log_target=True)
    )
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, x)[0] for v, x in ((value, a.params["scores"]), (expected, scores))))


def test_the_last_of_the_delta_steps_is_grounded_on_the_query() -> None:
    taken: list = []
    BootstrappedKL(5)(adapted(taken), Episode(QUERY, QUERY, 3))
    assert taken == [("advance", 4), ("descend", pytest.approx(F.cross_entropy(FURTHER, QUERY.y).item()))]
    taken.clear()
    BootstrappedKL(5, grounded=False)(adapted(taken), Episode(QUERY, QUERY, 3))
    assert taken == [("advance", 5)]


def test_no_steps_and_no_grounding() -> None:
    a = adapted([])
    value, _ = BootstrappedKL(0, grounded=False)(a, Episode(QUERY, QUERY, 3))
    assert value.item() == 0
    assert torch.equal(torch.autograd.grad(value, a.params["scores"])[0], torch.zeros_like(STUDENT))
    with pytest.raises(ValueError, match="delta must be at least 1, got 0; raise delta or set grounded: false"):
        BootstrappedKL(0)


def test_delta_changes_linearly_over_the_outer_steps() -> None:
    objective = BootstrappedKL(2, last_delta=8, outer_steps=4)
    assert objective.further_steps == 8
    steps = []
    for step in (0, 1, 2, 3, 4, 9):
        taken: list = []
        objective(adapted(taken), Episode(QUERY, QUERY, 3, step=step))
        steps.append(taken[0][1] + 1)  # the last one is grounded
    assert steps == [2, 2, 4, 6, 8, 8]
    assert BootstrappedKL(8, last_delta=2, outer_steps=1).target.steps_at(1) == 8
    with pytest.raises(ValueError, match="last_delta changes delta over the outer steps of a run, and their number is not known here; give outer_steps"):
        BootstrappedKL(2, last_delta=8)
    with pytest.raises(ValueError, match="delta must be at least 1, got 0"):
        BootstrappedKL(2, last_delta=0, outer_steps=4)


def test_after_a_small_grounded_step_the_gradient_is_that_of_the_query_loss_times_the_curvature() -> None:
    generator, rate = torch.Generator().manual_seed(1), 1e-6
    x, w = torch.randn(4, 5, generator=generator, dtype=torch.float64), torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()

    def call(params, _):
        return (x @ params["w"]).tanh()

    def descend(params, state, loss):
        leaf = params["w"].detach().requires_grad_()
        (g,) = torch.autograd.grad(loss({"w": leaf}), leaf)
        return {"w": leaf.detach() - rate * g}, state

    student = Adapted({"w": w}, {}, call, lambda params, state, steps: (params, state), descend, lambda params, draw: QUERY, Classification(), None)
    (gradient,) = torch.autograd.grad(BootstrappedKL(1)(student, Episode(QUERY, QUERY, 3))[0], w)
    (of_loss,) = torch.autograd.grad(F.cross_entropy(call({"w": w}, None), QUERY.y), w)
    scores, shift = torch.autograd.functional.jvp(lambda v: call({"w": v}, None), w.detach(), of_loss)
    p = scores.softmax(1)
    curved = p * shift - p * (p * shift).sum(1, keepdim=True)  # (diag p - p p') J g
    (expected,) = torch.autograd.grad(call({"w": w}, None), w, curved / len(x))
    assert (gradient - rate * expected).norm() < 1e-5 * (rate * expected).norm()
    assert F.cosine_similarity(gradient.flatten(), of_loss.flatten(), 0) < 0.99
