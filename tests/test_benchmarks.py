"""The benchmark runs its smallest case: contenders agree, and table, figures and plot are written."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click import ClickException
from click.testing import CliRunner
from PIL import Image

from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import pipeline_of
from metaflowkit.datasets.images import Decoding
from metaflowkit.datasets.one_shot_runs import read_one_shot_runs
from metaflowkit.distances import prototypes, similarity
from metaflowkit.errors import DataError
from metaflowkit.evaluation.embedding import embed
from tests.small import SMALL

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., str]:
    """Runs a script of benchmarks/ in this process and gives what it printed."""

    def run_script(*arguments: object, script: str = "meta_gradient.py") -> str:
        monkeypatch.syspath_prepend(ROOT / "benchmarks")
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        try:
            runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")
        except SystemExit as end:  # click ends a script with it
            assert not end.code, capsys.readouterr().err
        return capsys.readouterr().out

    return run_script


@pytest.mark.parametrize("memory", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["in one process", "with the memory of each"])
def test_smallest_case(memory, tmp_path, run) -> None:
    out = run("--case", "small", "--repeats", 1, "--float32", 3, "--processes", memory, "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    results = json.loads((tmp_path / "a.json").read_text())["results"]
    names = [result["contender"] for result in results]
    assert names[:4] == ["plain higher", "functional_call", "this, auto", "this, higher"]
    assert all(result["agree"] < 1e-9 and result["floor"] > 0 and result["median"] > 0 for result in results)
    assert all(name in out for name in names)
    here = [result for result in results if result["contender"] != "this, freed memory kept"]
    assert len(here) == len(results) - 1
    assert all(result["float32"] < 1e-3 for result in here if "channels last" not in result["contender"])
    assert all(result["MiB"] > 0 for result in here) == bool(memory)
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.slow
def test_memory_grows_with_the_inner_steps_and_hardly_with_remat(run) -> None:
    table = run("--way", 64, "--case", "K = 5, bootstrapped", "--case", "K = 5, remat", script="ways_memory.py").splitlines()
    assert table[0].split() == ["MiB", "64-way"]
    whole, remat = (float(line.split()[-1]) for line in table[1:])
    assert 0 < remat < 0.8 * whole


def test_one_shot_runs_are_within_an_alphabet_by_two_drawers(tmp_path, run) -> None:
    for alphabet, shade in (("Angelic", 1), ("Tibetan", 2)):
        for character in range(1, 23):
            for drawer in range(1, 4):
                path = tmp_path / "images" / alphabet / f"character{character:02}" / f"{character:04}_{drawer:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((4, 4), 100 * shade + 10 * drawer, dtype=np.uint8) + np.eye(4, dtype=np.uint8) * character).save(path)
    for name in ("a.zip", "b.zip"):
        assert run(tmp_path / "images", tmp_path / name, script="one_shot_runs.py") == "4 runs\n"
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    for i, each in enumerate(read_one_shot_runs(tmp_path / "a.zip", Decoding(4, "grey"))):
        (shown, classified), own = (set(x[:, 0, 0, 1].tolist()) for x in (each.training, each.test)), each.training[each.labels]
        assert len(each.training) == len(each.test) == len(each.training[:, 0, 0, 0].unique()) == 20
        assert len(shown) == len(classified) == 1
        assert shown != classified
        assert {value // 100 for value in shown | classified} == {1 + i // 2}
        characters = [x[:, 0, 0, 0].int() - x[:, 0, 0, 1].int() for x in (own, each.test)]
        assert torch.equal(*characters)
    for path in (tmp_path / "images" / "Angelic").rglob("*_0[12].png"):
        path.unlink()
    with pytest.raises(DataError, match="Angelic has 22 characters by 1 drawers; a run needs 20 by 2"):
        run(tmp_path / "images", tmp_path / "c.zip", script="one_shot_runs.py")


def test_unknown_names(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from meta_gradient import main

    for option, name, says in (
        ("--case", "smal", "there is no case 'smal'; use one of conv4-64"),
        ("--contender", "this", "there is no contender 'this'; use"),
    ):
        done = CliRunner().invoke(main, [option, name])
        assert done.exit_code == 2
        assert says in done.output


def test_chosen_contenders(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from meta_gradient import main

    options = ["--case", "small", "--repeats", "1", "--float32", "0", "--processes", "0", "--contender", "plain higher", "--contender", "this, auto"]
    lines = CliRunner().invoke(main, options).output.splitlines()
    assert [line[:14].strip() for line in lines[-2:]] == ["plain higher", "this, auto"]


def test_the_loop_around_the_meta_gradient(run) -> None:
    small = ["model.backbone.width=2", "dataset.train=[cyrillic]", "dataset.val_script=cyrillic", "tasks.way=3"]
    settings = [word for override in small for word in ("--set", override)]
    out = run(ROOT / "pipelines" / "quickstart.yaml", *settings, "--steps", 7, script="training_loop.py")
    assert re.search(r"meta-gradient 0\.\d+ s; around it \d+\.\d % more \(median of 2 steps\)", out)


def test_a_first_block_computed_once(run) -> None:
    small = [
        "model.backbone.width=2",
        "dataset.train=[cyrillic]",
        "dataset.val_script=cyrillic",
        "dataset.test=[georgian]",
        "evaluate.episodes=200",
        "evaluate.shot=[1, 5]",
    ]
    settings = [word for override in small for word in ("--set", override)]
    lines = run(ROOT / "pipelines" / "quickstart.yaml", *settings, "--rounds", 1, script="first_block.py").splitlines()
    text = r"5-way (\d)-shot, 200 episodes: set by set [\d.]+ s \(.*\), first block once [\d.]+ s \(.*\): [\d.]+ x as fast; accuracy differs in [0-3] of 200"
    assert [re.fullmatch(text, line)[1] for line in lines] == ["1", "5"]


def test_shares_of_a_targets_steps(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from meta_gradient import CASES, shares

    (case,) = [case for case in CASES if case.name == "delta-5"]
    seconds = {"student alone": 1.0, "this, auto": 2.0, "target of no step": 1.5, "target, not grounded": 1.75, "5 more differentiated steps": 3.0}
    drifting = {name: [s, s + 7, s + 1] for name, s in seconds.items()}  # a slower moment for all of them changes nothing
    assert shares(case, drifting) == "of as many differentiated steps: the target's steps 0.12; grounded on the query set and read out 0.50"


@pytest.mark.slow
def test_workers_of_a_search(run) -> None:
    small = ["model.backbone.width=2", "dataset.train=[cyrillic]", "dataset.val_script=cyrillic", "tasks.way=3", "outer.steps=2", "evaluate.val_episodes=2"]
    settings = [word for override in small for word in ("--set", override)]
    options = ("--trials", 2, "--repeats", 1, "--cores", 2)
    out = run(ROOT / "pipelines" / "quickstart.yaml", *settings, *options, script="search_workers.py")
    assert re.findall(r"^workers (\d), threads each (\d): +\d+ trials/h", out, re.MULTILINE) == [("1", "1"), ("1", "2"), ("2", "1")]
    assert re.search(r"the search around the runs takes \d+\.\d\d % of their time", out)


def test_text_baselines_on_texts_whose_intents_have_words_of_their_own(questions, run) -> None:
    domains = ["dataset.train=[money]", "dataset.val=[home]", "dataset.test=[travel]", f"dataset.root={questions}"]
    evaluate = "evaluate={way: 2, shot: [1, 5], query: 5, episodes: 20}"
    sets = [part for change in [*domains, evaluate] for part in ("--set", change)]
    out = run(ROOT / "pipelines" / "clinc150_bmssl.yaml", *sets, script="text_baselines.py")
    shares = {(line.split()[0], line.split()[-1]): float(line.split()[1]) for line in out.splitlines()}
    assert shares.keys() == {(name, shot) for name in ("words", "TF-IDF") for shot in ("1-shot", "5-shot")}
    assert min(shares.values()) > 90  # two words of six are the intent's own


def test_lines_of_code_leave_out_comments_and_docstrings(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from end_to_end_comparison import code_lines

    program = tmp_path / "program.py"
    program.write_text('"""One.\n\nTwo."""\n\nimport os  # counts\n\n# not\ndef f(\n    x,\n):\n    """Not."""\n    y = """a\nb"""\n    return x, y\n')
    assert code_lines(program) == 1 + 3 + 2 + 1
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text("# not\na: 1  # counts\n\nb: {c: 2}\n")
    assert code_lines(pipeline) == 2


@pytest.mark.slow
def test_programs_end_to_end(data, tmp_path, monkeypatch, run) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = run(data / "omniglot", "--rounds", 1, "--steps", 2, "--json", tmp_path / "a.json", script="end_to_end_comparison.py")
    results = json.loads((tmp_path / "a.json").read_text())["results"]
    assert {"higher", "metaflowkit"} <= {row["program"] for row in results}
    assert all(row["seconds"] > row["training"] > 0 and row["mebibytes"] > 0 and 15 < row["accuracy"] < 60 for row in results)
    assert len(re.findall(r"^\| (exact|first) \|", out, re.MULTILINE)) == len(results)


@pytest.mark.slow
def test_memory_of_long_runs(run) -> None:
    out = run("memory", "--steps", 60, "--every", 10, script="soak.py")
    assert re.findall(r"^\| (vectorized|higher) \| 60 \| 6 \| \d+ \|", out, re.MULTILINE) == ["vectorized", "higher"]


@pytest.mark.slow
def test_killed_runs_processes_and_searches(run, tmp_path) -> None:
    out = run("kills", "--training", 2, "--processes", 1, "--search", 1, "--folder", tmp_path, script="soak.py")
    assert [int(kills) for kills in re.findall(r"^\|.*?\| (\d+) \| \d+ \| \d+ \|$", out, re.MULTILINE)] == [2, 1, 1]


def test_a_run_that_differs_from_its_reference_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from soak import require_equal

    for name, weight in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        torch.save({"model": {"w": torch.tensor(weight)}}, tmp_path / name / "checkpoints" / "best.pt")
        for log in ("metrics.jsonl", "evaluations.jsonl"):
            (tmp_path / name / log).write_text("same")
    require_equal(tmp_path / "b", tmp_path / "a")
    with pytest.raises(ClickException, match=r"c: the weights w differ from those of the run that nothing interrupted"):
        require_equal(tmp_path / "c", tmp_path / "a")
    (tmp_path / "b" / "metrics.jsonl").write_text("other")
    with pytest.raises(ClickException, match=r"b: metrics.jsonl differs"):
        require_equal(tmp_path / "b", tmp_path / "a")


@pytest.mark.slow
def test_the_stages_of_a_whole_program_add_up(run) -> None:
    settings = ["--set", "outer.steps=4", "--set", "evaluate.every=2", "--set", "evaluate.episodes=40", "--set", "evaluate.val_episodes=20"]
    lines = run(ROOT / "pipelines" / "quickstart.yaml", "--rounds", 1, *settings, script="program_stages.py").splitlines()
    seconds = {line[:12].strip(): float(line[12:].split()[0]) for line in lines}
    assert list(seconds) == ["start-up", "outer steps", "validations", "tests", "report", "end", "in all"]
    whole = seconds.pop("in all")
    assert sum(seconds.values()) == pytest.approx(whole, abs=0.4)  # each is rounded to a tenth
    assert all(value > 0 for name, value in seconds.items() if name != "end")
    for line in lines:
        if line.startswith(("validations", "tests")):
            assert 0 < float(line.rsplit(maxsplit=1)[1]) <= seconds[line[:12].strip()] + 0.1


def test_a_projection_is_trained_and_is_no_part_of_the_embedding(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    settings = ["plugins=[contrastive_ingredients]", "model.head={name: projected_prototype, width: 8}", "objective=query_loss", "inner.steps=0"]
    flow = build(pipeline_of(yaml.safe_load(SMALL), settings))
    episode = flow.episode(1)
    gradients = flow.learner.outcome(episode).gradients
    assert all(gradients[f"head.project.{layer}.weight"].norm() > 0 for layer in (0, 2))
    before = embed(flow.model, episode.query.x)
    with torch.no_grad():
        flow.model.head.project[2].weight.mul_(2)
    assert torch.equal(embed(flow.model, episode.query.x), before)


def test_queued_prototypes_are_wrong_answers_of_the_tasks_before(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    settings = ["plugins=[contrastive_ingredients]", "objective={name: queued_prototypes, tasks: 2}", "inner.steps=0", "tasks.meta_batch=1"]
    flow = build(pipeline_of(yaml.safe_load(SMALL), settings))
    values = [flow.learner.outcome(flow.episode(1)).value for _ in range(4)]
    (support, support_y), (query, y) = ((x[0], y[0]) for x, y in flow.episode(1)[:2])
    z = flow.model.backbone(torch.cat([support, query]))
    own = prototypes(z[: len(support)], support_y, 3)
    for kept, value in zip((0, 1, 2, 2), values, strict=True):  # the same task again: its prototypes stand beside themselves
        scores = similarity(z[len(support) :], torch.cat([own] * (1 + kept)), "semi_normalised")
        torch.testing.assert_close(value, torch.nn.functional.cross_entropy(scores, y), rtol=1e-4, atol=1e-5)
