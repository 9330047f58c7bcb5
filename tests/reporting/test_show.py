"""mfk show: every setting with its origin, the way of the data, and a cost that is near the measured one."""

from __future__ import annotations

import re
import time

import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from metaflowkit.composition.cost import step_cost
from metaflowkit.composition.flow import build
from metaflowkit.config.pipeline import read
from metaflowkit.reporting.show import settings
from tests.small import SMALL


def mfk(*arguments: object) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_settings_are_the_pipeline_with_the_origin_of_each(write) -> None:
    path = write(SMALL + "objective: {name: weighted_sum, terms: [bootstrapped_kl, {name: nt_xent, temperature: 0.2}]}\n")
    pipeline = read(path, ["inner.rule.momentum=0.5", "inner.loss=prototype"])
    lines = settings(pipeline)
    assert read(write("\n".join(lines), "shown.yaml")).plain() == pipeline.plain()
    origins = {line.partition("#")[0].strip(): line.partition("# ")[2] for line in lines}
    assert origins["width: 4"] == f"{path}:5:33"
    assert origins["momentum: 0.5"] == "--set inner.rule.momentum=0.5"
    assert origins["name: prototype"] in ("--set inner.loss=prototype", "default")  # the loss, and the head
    assert [line.partition("# ")[2] for line in lines if line.strip().startswith("name: prototype")] == ["default", "--set inner.loss=prototype"]
    assert origins["nesterov: false"] == "default"
    assert origins["level: 1"] == f"{path}:3:11"
    assert any(line.startswith("  terms: [") and f"# {path}:9:" in line for line in lines)


def test_the_way_of_the_data_and_what_a_run_costs(write) -> None:
    text = mfk("show", write(SMALL), "--set", "tasks.meta_batch=2")
    flow = text.partition("\n\n")[2].splitlines()
    assert re.fullmatch(r"\d+ training images, val \d+ classes, test \d+ classes", flow[0])
    assert flow[1] == "-> 2 tasks (views), 18 images in an outer step"
    assert flow[2].startswith("-> augmentation: level 1: RandomAffine")
    parameters = sum(p.numel() for p in build(read(write(SMALL))).model.parameters())
    assert flow[3] == f"-> conv4 and head prototype: {parameters:,} parameters"
    some = next(line for line in mfk("show", write(SMALL), "--set", "model.frozen=[backbone.blocks.0]").splitlines() if line.startswith("-> conv4"))
    assert some == f"-> conv4 and head prototype: {parameters:,} parameters, {parameters - 9 * 4 - 2 * 4:,} of them trained"
    assert flow[4].startswith("-> 1 inner step of sgd on contrastive, exact order; engine vectorized")
    assert flow[5:7] == ["-> bootstrapped_kl toward 5 further steps", "-> adam, 4 outer steps"]
    assert re.fullmatch(
        r"an outer step takes about [\d.]+ s and \d+ MiB beyond what is loaded, and [\d.]+ billion operations; 4 of them take about \d+ s, without validation",
        flow[7],
    )


def test_without_its_data_the_settings_are_shown(write, tmp_path) -> None:
    text = mfk("show", write(SMALL), "--set", f"dataset={{name: folder, root: {tmp_path}}}")
    assert "root: " in text
    assert f"data flow and cost are not shown, since the data cannot be read: {tmp_path}: holds no image" in text


@pytest.mark.parametrize("engine", ["vectorized", "higher"])
def test_the_operations_are_those_of_the_layers(write, engine) -> None:
    """Without inner loop: forward, gradient of the weights, and of every layer's input but the first, of all convolutions; and the prototypes' products."""
    text = SMALL.replace("inner: {steps: 1}", f"inner: {{steps: 0, loss: task, engine: {engine}}}\nobjective: query_loss").replace(
        "way: 3, shot: 2", "way: 3, shot: 1"
    )
    flow = build(read(write(text)))
    images, width, side, total = 3 * 2, 4, 28, 0
    for layer in range(4):
        multiply_adds = images * side**2 * 9 * width * (1 if layer == 0 else width)
        total += 2 * multiply_adds * (2 if layer == 0 else 3)
        side //= 2
    assert total < step_cost(flow).operations < 1.02 * total


@pytest.mark.slow
def test_the_cost_of_many_tasks_is_near_that_of_the_whole_step(write, monkeypatch) -> None:
    flow = build(read(write(SMALL), ["tasks.meta_batch=12", "tasks.way=20"]))
    whole = step_cost(flow)
    monkeypatch.setattr("metaflowkit.composition.cost.SHORT", 0.0)
    part = step_cost(flow)
    assert part.operations == whole.operations
    started = time.perf_counter()
    flow.learner.outcome(flow.episode(1))
    seconds = time.perf_counter() - started
    for cost in (whole, part):
        assert seconds / 4 < cost.seconds < 4 * seconds
