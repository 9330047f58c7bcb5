"""Every rule x network x order through every engine, in float64, and the table of it: ``pytest -m slow -s tests/conformance/test_product.py``."""

from __future__ import annotations

import pytest
import torch

from metaflowkit.config import registry as r
from metaflowkit.config.choice import Choice
from metaflowkit.engines.higher_loop import HigherEngine
from metaflowkit.engines.safety import unsafe
from metaflowkit.engines.vectorized import VectorizedEngine
from metaflowkit.losses.contrastive import Contrastive
from metaflowkit.models.heads.prototype import Prototype
from metaflowkit.objectives.bootstrapped_kl import BootstrappedKL
from metaflowkit.orders import Exact, First, Implicit, Reptile, Truncate
from tests.conformance.test_engines import BACKBONES, RULES
from tests.conformance.test_networks import NETWORKS, OWN_MASKS, Rows
from tests.oracles import make_episode, make_learner, relative

ENGINES = {"task by task": VectorizedEngine(1, 1), "side by side": VectorizedEngine(1, 2), "vmap": VectorizedEngine()}  # held against the one on higher
ORDERS = {"exact": Exact(), "first": First(), "truncate": Truncate(1), "reptile": Reptile(), "implicit": Implicit(iterations=3)}
SHIPPED = {name: settings for name, settings in BACKBONES.items() if name != "resnet18"}  # which is left to the product in test_engines


def network(name: str) -> torch.nn.Module:
    if name in NETWORKS:
        return Rows(NETWORKS[name])
    torch.manual_seed(0)
    return r.BACKBONES.build(Choice(name.split("-")[0], SHIPPED[name]), shape=(1, 16, 16))


def distances(rule: Choice, name: str, order: str) -> dict[str, float | None]:
    """Relative distance of each engine's meta-gradient from that of the engine on higher; None where the network is refused or draws other masks."""
    proximal = 1.0 if order == "implicit" else 0.0
    learner = make_learner(
        r.RULES.build(rule), Contrastive(1.0), BootstrappedKL(1), Prototype(temperature=1.0), network(name), order=ORDERS[order], proximal=proximal
    )
    episode = make_episode(shape=(1, 8, 8) if name in NETWORKS else (1, 16, 16))._replace(seed=3)
    reference = HigherEngine().outcome(learner, episode).gradients
    distance_of: dict[str, float | None] = {}
    for engine, runs in ENGINES.items():
        left_out = unsafe(learner.model, vmap=runs.batches, second=True) or (name in OWN_MASKS and runs.batches)
        distance_of[engine] = None if left_out else relative(runs.outcome(learner, episode).gradients, reference)
    return distance_of


def worst(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{max(known):.0e}" if known else "-"


def row(title: str, cells: list[str]) -> str:
    return f"{title[:44]:<46}" + "".join(f"{cell:>14}" for cell in cells)


@pytest.mark.slow
def test_the_whole_product() -> None:
    distance_of = {(str(rule), name, order): distances(rule, name, order) for rule in RULES for name in [*NETWORKS, *SHIPPED] for order in ORDERS}
    for place, title in ((0, "rule, over networks and engines"), (1, "network, over rules and engines")):
        print("\n" + row(title, list(ORDERS)))
        for key in dict.fromkeys(k[place] for k in distance_of):
            print(row(key, [worst([v for k, e in distance_of.items() if k[place] == key and k[2] == order for v in e.values()]) for order in ORDERS]))
    print("\n" + row("engine, over rules and networks", list(ORDERS)))
    for engine in ENGINES:
        print(row(engine, [worst([e[engine] for k, e in distance_of.items() if k[2] == order]) for order in ORDERS]))
    print(
        f"{sum(v is not None for e in distance_of.values() for v in e.values())} compared, {sum(v is None for e in distance_of.values() for v in e.values())} refused"
    )
    assert all(v is None or v < 1e-8 for e in distance_of.values() for v in e.values())
