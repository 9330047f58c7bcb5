"""Settings of samplers and pruners that took Optuna's names are refused with the new name."""

from __future__ import annotations

import pytest

from metaflowkit.errors import ConfigError
from metaflowkit.search.specification import read_search


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sampler: {name: tpe, startup: 5}", "sampler.startup: sampler 'tpe' has no such setting; it is called n_startup_trials now"),
        ("sampler: {name: nsga2, population: 5}", "sampler.population: sampler 'nsga2' has no such setting; it is called population_size now"),
        ("pruner: {name: median, warmup: 5}", "pruner.warmup: pruner 'median' has no such setting; it is called n_warmup_steps now"),
        ("pruner: {name: hyperband, factor: 2}", "pruner.factor: pruner 'hyperband' has no such setting; it is called reduction_factor now"),
        ("pruner: {name: wilcoxon, p: 0.2}", "pruner.p: pruner 'wilcoxon' has no such setting; it is called p_threshold now"),
    ],
)
def test_a_setting_that_took_optunas_name_is_named(write, old, new) -> None:
    write("dataset: glyphs")
    with pytest.raises(ConfigError) as caught:
        read_search(write(f"pipeline: p.yaml\nspace: {{objective.delta: [1, 5]}}\n{old}\n", "s.yaml"))
    assert new in str(caught.value)
