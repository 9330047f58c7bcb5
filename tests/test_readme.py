"""What the README shows is run: its YAML, its plugin, its Python names, its test command."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from click.testing import CliRunner

import metaflowkit
from metaflowkit.cli import main
from metaflowkit.config.pipeline import read
from metaflowkit.config.registry import KINDS
from metaflowkit.search.specification import read_search
from metaflowkit.training import checkpoint
from tests.small import SMALL

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_annotated_pipeline_is_the_shipped_one(write) -> None:
    shown = read(write(blocks("yaml")[0]))
    assert shown.plain() == read(ROOT / "pipelines" / "omniglot_bmssl_5w1s.yaml").plain()


def test_the_inner_loop_that_is_shown_learns_what_it_says(write) -> None:
    text = "dataset: glyphs\ntasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}\nevaluate: {way: 3}\n"
    flow = metaflowkit.build(read(write(text + blocks("yaml")[1])))
    gradients = flow.learner.outcome(flow.episode(1)).gradients
    assert {n for n in gradients if n.startswith("rule.")} == {"rule.lr/head", "rule.momentum"}
    assert gradients["rule.lr/head"].shape == (5,)
    assert all(g.abs().sum() > 0 for g in gradients.values())


def test_the_search_that_is_shown_is_right(write) -> None:
    search = read_search(write(blocks("yaml")[2].replace("../pipelines", str(ROOT / "pipelines"))))
    assert search.baseline["inner.rule"] == "sgd"


def test_the_component_of_your_own_works(write, tmp_path, monkeypatch) -> None:
    source = next(block for block in blocks("python") if "@OBJECTIVES.register" in block)
    write(source, "my_lab.py")
    monkeypatch.syspath_prepend(tmp_path)
    text = "dataset: glyphs\ntasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}\nmodel: {backbone: {name: conv4, width: 4}}\n"
    flow = metaflowkit.build(read(write(text + blocks("yaml")[3])))
    assert flow.learner.objective.temperature == 0.3
    assert flow.learner.outcome(flow.episode(1)).value > 0


def test_names_and_the_test_command_are_real() -> None:
    python = next(block for block in blocks("python") if "import metaflowkit" in block)
    assert set(re.findall(r"metaflowkit\.(\w+)\(", python)) == set(metaflowkit.__all__)
    assert set(KINDS) - {"AUGMENTATIONS"} == set(re.findall(r"`([A-Z]+)`", README)) - {"AUGMENTATIONS"}
    commands = README.split("```")[1].strip().splitlines()
    assert commands[1] == (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert (ROOT / commands[0].split()[-1]).is_file()


def test_the_python_that_is_shown_trains_and_measures_what_was_trained(write, tmp_path, monkeypatch, capsys) -> None:
    code = next(block for block in blocks("python") if "import metaflowkit" in block)
    (tmp_path / "pipelines").mkdir()
    write(SMALL.replace("val_script: cyrillic", "val_script: cyrillic, val_fraction: 0.4") + "objective: bootstrapped_kl\n", "pipelines/quickstart.yaml")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert "run directory: runs/first" in capsys.readouterr().out
    untrained = metaflowkit.evaluate(names["flow"], "val", 5, 1, 5, 200, ["prototype"])
    (score,) = names["scores"]
    assert score.accuracy != untrained[0].accuracy
    assert score.each != untrained[0].each
    best = checkpoint.load(tmp_path / "runs" / "first" / "checkpoints" / "best.pt").model
    assert all(torch.equal(value.cpu(), best[name]) for name, value in names["trained"].learner.model.state_dict().items())
    assert set(names["outcome"].gradients) == {name for name, _ in names["flow"].learner.model.named_parameters()}


def test_the_mistakes_that_are_shown_are_answered_like_that(write, monkeypatch, tmp_path) -> None:
    _, command, after = README.partition("$ mfk check my.yaml\n")
    monkeypatch.chdir(tmp_path)
    write("# a pipeline\n\ndataset: glyfs\n\ninner: {steps: two}\n", "my.yaml")
    done = CliRunner().invoke(main, command.split()[2:])
    assert (done.exit_code, done.output) == (2, after.partition("```")[0])
