"""What README and docs show is run: YAML, plugins, Python, the test command."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from click.testing import CliRunner

import metaflowkit
from metaflowkit.cli import main
from metaflowkit.config.pipeline import read
from metaflowkit.search.specification import read_search
from metaflowkit.training import checkpoint
from tests.small import SMALL
from tests.test_docs import blocks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_two_commands_are_real_and_the_page_is_short() -> None:
    commands = README.split("```")[1].strip().splitlines()
    assert commands[1] == (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert (ROOT / commands[0].split()[-1]).is_file()
    assert len(README.splitlines()) <= 120
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


def test_the_pipelines_that_are_shown_are_the_shipped_one(write) -> None:
    shipped = read(ROOT / "pipelines" / "omniglot_bmssl_5w1s.yaml").plain()
    assert read(write(blocks("pipelines.md", "yaml")[0][1])).plain() == shipped
    assert read(write(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])).plain() == shipped


def test_the_python_that_is_shown_learns() -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    torch.manual_seed(0)
    names: dict = {}
    exec(code.replace("range(100)", "range(1)"), names)
    first = names["outcome"].value
    exec(code, names)
    assert names["outcome"].value < first
    assert set(names["outcome"].gradients) == {name for name, _ in names["net"].named_parameters()}


def test_the_inner_loop_that_is_shown_learns_what_it_says(write) -> None:
    text = "dataset: glyphs\ntasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}\nevaluate: {way: 3}\n"
    flow = metaflowkit.build(read(write(text + blocks("pipelines.md", "yaml")[1][1])))
    gradients = flow.learner.outcome(flow.episode(1)).gradients
    assert {n for n in gradients if n.startswith("rule.")} == {"rule.lr/head", "rule.momentum"}
    assert gradients["rule.lr/head"].shape == (5,)
    assert all(g.abs().sum() > 0 for g in gradients.values())


def test_the_search_that_is_shown_is_right(write) -> None:
    search = read_search(write(blocks("search.md", "yaml")[0][1].replace("../pipelines", str(ROOT / "pipelines"))))
    assert search.baseline["inner.rule"] == "sgd"


def test_the_python_that_is_shown_trains_and_measures_what_was_trained(write, tmp_path, monkeypatch, capsys) -> None:
    code = dict(blocks("library.md", "python"))["a pipeline"]
    (tmp_path / "pipelines").mkdir()
    write(SMALL.replace("val_script: cyrillic", "val_script: cyrillic, val_fraction: 0.4") + "objective: bootstrapped_kl\n", "pipelines/quickstart.yaml")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert "run directory: runs/first" in capsys.readouterr().out
    untrained = metaflowkit.evaluate(names["flow"], "val", 5, 1, 5, 200, ["prototype"])
    (score,) = names["scores"]
    assert score.value != untrained[0].value
    assert score.each != untrained[0].each
    best = checkpoint.load(tmp_path / "runs" / "first" / "checkpoints" / "best.pt").model
    assert all(torch.equal(value.cpu(), best[name]) for name, value in names["trained"].learner.model.state_dict().items())
    assert set(names["outcome"].gradients) == {name for name, _ in names["flow"].learner.model.named_parameters()}


def test_the_mistakes_that_are_shown_are_answered_like_that(write, monkeypatch, tmp_path) -> None:
    _, command, after = (ROOT / "docs" / "pipelines.md").read_text().partition("$ mfk check my.yaml\n")
    monkeypatch.chdir(tmp_path)
    write("# a pipeline\n\ndataset: glyfs\n\ninner: {steps: two}\n", "my.yaml")
    done = CliRunner().invoke(main, command.split()[2:])
    assert (done.exit_code, done.output) == (2, after.partition("```")[0])


def test_public_names_are_there() -> None:
    assert all(getattr(metaflowkit, name) is not None for name in metaflowkit.__all__)
