"""The pages of docs/ are run: their Python in order, their pipelines and searches read, their links followed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from metaflowkit.config.pipeline import read

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """(title, text) of the code blocks of a page in a language."""
    return re.findall(rf'^```{language}(?: title="([^"]*)")?\n(.*?)^```', (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


def test_the_library_page_runs_and_both_programs_end_with_the_same_weights(capsys) -> None:
    names: dict = {"__name__": "library"}
    for title, code in blocks("library.md", "python"):
        if title == "a pipeline":
            continue  # run by tests/test_readme.py with a small pipeline
        exec(compile(code, title, "exec"), names)
        if title == "with metaflowkit":
            pairs = list(zip(names["with_higher"].parameters(), names["net"].parameters()))
            assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)
            assert not torch.equal(pairs[0][1], next(iter(names["network"]().parameters())))
    out = capsys.readouterr().out.splitlines()
    errors = [float(line.rsplit(" ", 1)[1]) for line in out if "mean squared error" in line]
    assert errors[0] > errors[1] > errors[2]
    assert "['error']" in out
    wrong, right = map(float, re.search(r"weight of the wrong ([\d.]+) and of the right ([\d.]+)", "\n".join(out)).groups())
    assert wrong < 0.3 < 0.6 < right
    assert "['rule.lr/net/0', 'rule.lr/net/2', 'rule.lr/net/4']" in out
    assert out[-2:] == ["['mean']", "tensor(True) 3"]


def test_the_tour_runs() -> None:
    names: dict = {}
    exec(blocks("index.md", "python")[0][1], names)
    assert all(p.grad is not None for p in names["net"].parameters())


@pytest.mark.parametrize("text", [text for _, text in blocks("tasks.md", "yaml")], ids=lambda text: text.split()[3])
def test_pipelines_on_the_page_of_tasks_are_those_that_are_shipped(text, write) -> None:
    shipped = read(ROOT / text.split()[3])
    assert read(write(text, shipped.name + ".yaml")).plain() == shipped.plain()


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda p: p.name)
def test_the_files_that_a_page_names_are_there(page) -> None:
    for path in re.findall(r"(?<![\w./])(?:(?:pipelines|benchmarks|metaflowkit|tests)/[\w./]*|search/\w+[.]yaml)", page.read_text()):
        assert (ROOT / path.rstrip(".")).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).is_file(), target
