"""MLflow's store in a local database, read by MLflow itself."""

from __future__ import annotations

import json
import sys

import pytest
from mlflow.tracking import MlflowClient

from metaflowkit.config.pipeline import read
from metaflowkit.errors import ConfigError
from metaflowkit.reporting.train import train
from tests.small import SMALL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its database layer


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts the files of runs in a store of the user's own


def stored(uri: str, experiment: str = "metaflowkit"):
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, runs


def test_parameters_metrics_scores_and_files(write, tmp_path) -> None:
    report = train(read(write(SMALL), ["loggers=[mlflow]"]), tmp_path / "run")
    client, (run,) = stored(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["inner.steps"] == "1"
    assert run.data.params["model.backbone.name"] == "conv4"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("train/objective", "val/accuracy"):
        history = {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}
        assert history == pytest.approx({line["step"]: line[name] for line in lines if name in line})
    for score in report.after:
        assert run.data.metrics[f"test/{score.setting.short}/trained".replace(",", "_")] == pytest.approx(score.value)
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} == {"pipeline.yaml", "evaluations.jsonl"}


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_one_and_others_beside_it(write, tmp_path) -> None:
    uri = f"sqlite:///{tmp_path / 'all.db'}"
    pipeline = read(write(SMALL), [f"loggers=[{{name: mlflow, uri: '{uri}', experiment: mine}}]"])
    train(pipeline, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-0000004.pt").unlink()
    train(pipeline, tmp_path / "run", resume=True)
    assert len(stored(uri, "mine")[1]) == 1
    train(pipeline, tmp_path / "other")
    assert {run.info.run_name for run in stored(uri, "mine")[1]} == {"run", "other"}


def test_without_mlflow_one_line_says_so(write, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"loggers\.0: needs mlflow, which is not installed; pip install 'metaflowkit\[mlflow\]'$"):
        train(read(write(SMALL), ["loggers=[mlflow]"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
