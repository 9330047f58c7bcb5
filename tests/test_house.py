"""The house rules that can be checked: which way imports run, how long modules and functions are, what each needs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metaflowkit"
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [
    {"errors", "stages", "__main__"},
    {"allocator", "seeding", "memory", "distributed"},
    {"config"},
    {"trees"},
    {"types"},
    {"distances", "criteria"},
    {"datasets", "augment", "models", "rules", "losses", "objectives"},
    {"tasks", "orders"},
    {"engines"},
    {"composition"},
    {"evaluation", "doctor"},
    {"training"},
    {"prediction"},
    {"reporting"},
    {"search", "comparison"},
    {"cli"},
]
HEIGHT = {name: i for i, layer in enumerate(LAYERS) for name in layer}
LEAVES = {"datasets", "augment", "models", "rules", "losses", "objectives"}
ALLOWED = {
    ("config", "augment"): "Kornia's operations and the levels are read when they are first asked for",
    ("config", "search"): "a search's keys are described beside a pipeline's",
    ("__main__", "cli"): "the entry point",
}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """The parts of the package that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "metaflowkit":
            names = [node.module] if node.module != "metaflowkit" else [f"metaflowkit.{alias.name}" for alias in node.names]
            found |= {name.split(".")[1] for name in names if name.split(".")[1:] and not name.split(".")[1].startswith("__")}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("metaflowkit.")}
    return found


@pytest.mark.parametrize("path", [p for p in FILES if p != PACKAGE / "__init__.py"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path) -> None:
    here = part(path)
    for there in imported(ast.parse(path.read_text())):
        if there == here or (here, there) in ALLOWED:
            continue
        assert HEIGHT[there] < HEIGHT[here], f"{here} imports {there}, which stands beside or above it"
        assert not {here, there} <= LEAVES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_are_short_and_documented(path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(tree) or path.name == "__main__.py"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            assert not (ast.get_docstring(node) or "").startswith("See "), node.name  # it must say what the thing does
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, node.name


def test_every_component_module_has_a_mirrored_test() -> None:
    tests = PACKAGE.parent / "tests"
    for path in FILES:
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] in LEAVES | {"tasks", "orders", "engines"} and path.name != "__init__.py" and "register(" in path.read_text():
            assert (tests / inside.parent / f"test_{path.name}").is_file(), inside
