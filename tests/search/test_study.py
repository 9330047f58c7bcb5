"""Studies are made once, entered again, joined by name or folder, and refused where they search something else."""

from __future__ import annotations

import json

import optuna
import pytest

from metaflowkit.errors import ConfigError, RunError
from metaflowkit.search.launcher import run_search
from metaflowkit.search.specification import read_search
from metaflowkit.search.study import enter, join
from tests.search.small import SPACE, search_file


@pytest.fixture(params=["journal", "sqlite"])
def location(request, tmp_path):
    return None if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"


def _enter(tmp_path, location, space: str = SPACE, more: str = "", **given):
    return enter(read_search(search_file(tmp_path, space, more), **given), tmp_path / "study", location)


def test_the_same_file_goes_on_and_may_ask_for_more(tmp_path, location) -> None:
    _enter(tmp_path, location, trials=2)
    study = _enter(tmp_path, location, more="sampler: random\npruner: none\nseed: 3", trials=4)
    assert len(study.queue.trials()) == 4
    joined = join(str(tmp_path / "study"), location)
    assert joined.search.written_out() == study.search.written_out()
    assert joined.search.settings.sampler.name == "random"
    assert (joined.folder, joined.location) == (study.folder, location)


@pytest.mark.parametrize(
    ("space", "more", "says"),
    [
        (SPACE.replace("0.5", "0.6"), "", "space.inner.rule.lr.high is 0.5 there and 0.6 here"),
        (SPACE + "\n  inner.steps: [1, 2]", "", "space.inner.steps is None there and [1, 2] here"),
        (SPACE, "set: {outer.steps: 5}", "pipeline.outer.steps is 4 there and 5 here"),
        (SPACE, "metrics: {seconds: minimize}", "metrics.val/accuracy is maximize there and None here"),
    ],
)
def test_another_space_under_the_same_name_is_refused_with_the_difference_and_the_way_out(tmp_path, location, space, more, says) -> None:
    _enter(tmp_path, location, trials=2)
    with pytest.raises(ConfigError) as caught:
        _enter(tmp_path, location, space, more, trials=2)
    assert f"the study 's' there searches something else; {says}" in str(caught.value)
    assert "put these back, or give the new one a name and --study-dir of its own" in str(caught.value)
    assert len(join(str(tmp_path / "study"), location).queue.trials()) == 2


def test_a_database_holds_several_studies(tmp_path) -> None:
    location = f"sqlite:///{tmp_path}/study.db"
    _enter(tmp_path, location, trials=1)
    other = enter(read_search(search_file(tmp_path, SPACE, "name: t"), trials=1), tmp_path / "other", location)
    assert join("t", location, tmp_path / "third").search.settings.name == "t"
    assert len(other.queue.trials()) == 1
    with pytest.raises(ConfigError, match=r"u: there is no such study in sqlite:///.*; it holds s, t"):
        join("u", location)


def test_what_cannot_be_joined(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: is no folder of a study; give the --study-dir that mfk search named"):
        join("nowhere")
    location = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(study_name="foreign", storage=location)
    with pytest.raises(ConfigError, match=r"foreign: is a study, but none of mfk search; give another"):
        join("foreign", location)


def test_a_password_is_not_written_and_asked_for(tmp_path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"name": "s", "storage": "postgresql://me:***@host/base"}))
    with pytest.raises(ConfigError, match=r"--storage: the study in .* is kept in postgresql://me:\*\*\*@host/base; give its URL with the password"):
        join(str(tmp_path))


def test_nothing_is_left_where_nothing_came_of_it(tmp_path) -> None:
    with pytest.raises(RunError, match="the database does not answer"):
        run_search(read_search(search_file(tmp_path)), tmp_path / "study", "sqlite:////nowhere/at/all.db")
    assert not (tmp_path / "study").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file: cannot hold a study \(.*\); choose another --study-dir"):
        run_search(read_search(search_file(tmp_path)), tmp_path / "file", None)


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"study: is not empty and no study; choose another --study-dir"):
        _enter(tmp_path, None)
