"""The templates of docs/distributed.md: their syntax, their schema, and their commands on one machine."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests import small
from tests.test_docs import blocks

PAGE = "distributed.md"
SCRIPTS = dict(blocks(PAGE, "bash"))
MANIFESTS = dict(blocks(PAGE, "yaml"))
KUBERNETES = "1.31"
TASKS = small.SMALL.replace("meta_batch: 1", "meta_batch: 4")
SEARCH = "{pipeline: pipeline.yaml, space: {inner.steps: [0, 1, 2]}, trials: 3, sampler: grid, pruner: none, metrics: {val/accuracy: maximize}}\n"
SRUN = """#!/bin/bash
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do SLURM_NODEID=$node "$@" & jobs+=($!); done
for job in "${jobs[@]}"; do wait $job || code=$?; done
exit ${code:-0}
"""


def documents() -> list[dict]:
    return [document for text in MANIFESTS.values() for document in yaml.safe_load_all(text)]


@pytest.mark.parametrize("title", SCRIPTS)
def test_scripts_are_valid_bash(title) -> None:
    subprocess.run(["bash", "-n"], input=SCRIPTS[title], text=True, check=True)


@pytest.mark.parametrize("document", documents(), ids=lambda d: f"{d['kind']} {d['metadata']['name']}")
def test_manifests_satisfy_the_schema_of_kubernetes(document) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)
    broken = {**document, "spec": {**document["spec"], "completion": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_the_jobs_of_a_service_are_those_that_are_started() -> None:
    service, job, _ = documents()
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert {"name": "FIRST", "value": f"{job['metadata']['name']}-0.{service['metadata']['name']}"} in container["env"]
    assert f"--nnodes {job['spec']['completions']}" in container["args"][0]


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """A folder with a pipeline and a search, in an environment with the programs of a cluster."""
    programs = tmp_path / "programs"
    programs.mkdir()
    mfk = f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -m metaflowkit "$@"\n'
    torchrun = f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -m torch.distributed.run "$@"\n'
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/bash\necho localhost\necho localhost\n", "mfk": mfk, "torchrun": torchrun}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(TASKS)
    (folder / "search.yaml").write_text(SEARCH)
    return folder


def on_a_free_port(text: str) -> str:
    """A script whose meeting point is another than that of a run beside it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return text.replace(":29500", f":{listener.getsockname()[1]}")


def start(text: str, folder: Path, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(["bash", "-c", text], cwd=folder, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outputs(*processes: subprocess.Popen) -> list[str]:
    """What the processes have printed, once all have ended well."""
    texts = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), texts
    return texts


@pytest.mark.slow
def test_one_machine(machine) -> None:
    outputs(start(SCRIPTS["machine.sh"], machine, GPUS="2"))
    assert (machine / "runs/mine/report.md").is_file()


@pytest.mark.slow
def test_slurm_on_two_nodes_and_the_job_once_more(machine) -> None:
    variables = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    outputs(start(on_a_free_port(SCRIPTS["run.sbatch"]), machine, **variables))
    report, metrics = (machine / "runs/7/report.md").read_bytes(), (machine / "runs/7/metrics.jsonl").read_bytes()
    (machine / "runs/7/report.md").unlink()
    outputs(start(on_a_free_port(SCRIPTS["run.sbatch"]), machine, SLURM_RESTART_COUNT="1", **variables))
    assert (machine / "runs/7/report.md").read_bytes() == report
    assert (machine / "runs/7/metrics.jsonl").read_bytes() == metrics


@pytest.mark.slow
def test_an_indexed_job_of_two_pods(machine) -> None:
    job = documents()[1]
    text = on_a_free_port(job["spec"]["template"]["spec"]["containers"][0]["args"][0])
    pods = [start(text, machine, JOB_COMPLETION_INDEX=str(i), GPUS="2", FIRST="localhost") for i in range(job["spec"]["completions"])]
    outputs(*pods)
    assert (machine / "runs/mine/report.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("system", ["slurm", "kubernetes"])
def test_workers_of_a_search(system, machine) -> None:
    if system == "slurm":
        text, variable = SCRIPTS["search.sbatch"], "SLURM_ARRAY_TASK_ID"
    else:
        text, variable = documents()[2]["spec"]["template"]["spec"]["containers"][0]["args"][0], "JOB_COMPLETION_INDEX"
    database = f"sqlite:///{machine}/study.db"
    first, _ = outputs(*(start(text, machine, METAFLOWKIT_STORAGE=database, **{variable: str(i)}) for i in (0, 1)))
    assert "best" in first
    trials = sorted(path.name for path in (machine / "studies/search/trials").iterdir())
    assert len(trials) == 3
