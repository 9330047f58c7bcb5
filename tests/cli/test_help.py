"""Help, examples, completion and versions: what a terminal offers before anything is run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

import metaflowkit
from metaflowkit.cli import main
from metaflowkit.cli.completion import SHELLS, VARIABLE
from metaflowkit.config.registry import KINDS
from metaflowkit.config.shipped import shipped

MFK = Path(sys.executable).parent / "mfk"


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else "")
def test_every_help_has_examples_that_the_command_takes(path, command) -> None:
    text = CliRunner().invoke(main, [*(path if path[-1] != "start" else ["search", "start"]), "--help"]).output
    examples = re.findall(r"^    (.+)$", text.partition("Examples:\n")[2], re.MULTILINE)
    assert examples, text
    for line in examples:
        words = shlex.split(line.partition("   ")[0].removeprefix("eval ").strip('"$()').partition(" > ")[0])
        assert words[0] == "mfk"
        context = click.Context(main, info_name="mfk")
        name, found, rest = main.resolve_command(context, words[1:])
        found.make_context(name, rest, parent=context)  # raises where an option or a type is wrong


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "mfk: there is no command 'rnu'; did you mean 'run'? (mfk --help lists all)"),
        (["my.yaml"], "mfk: there is no command 'my.yaml'; start it with mfk run my.yaml (mfk --help lists all)"),
        (["\x1b[2J"], "mfk: there is no command '\\x1b[2J'; use one of"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(arguments, says) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.output.startswith(says)


def completions(*words: str) -> list[str]:
    return [item.value for item in BashComplete(main, {}, "mfk", VARIABLE).get_completions(list(words[:-1]), words[-1])]


def test_what_is_completed(tmp_path) -> None:
    assert completions("pre") == ["predict", "preview"]
    assert completions("init", "omniglot_b") == ["omniglot_bmssl_20w1s", "omniglot_bmssl_5w1s", "omniglot_bmssl_64w"]
    assert completions("init", "") == list(shipped())
    assert completions("components", "ob") == ["objective"]
    assert completions("components", "objective", "boot") == [name for name in KINDS["OBJECTIVES"].entries() if name.startswith("boot")]
    assert completions("run", "--set", "inner.rule.m") == ["inner.rule.momentum="]
    assert completions("run", "--set", "inner.loss=pro") == ["inner.loss=prototype"]
    assert completions("predict", "runs/mine", "--readout", "log") == ["logistic"]
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text("dataset: glyphs\ninner: {rule: adam}\n")
    assert "inner.rule.beta1=" in completions("show", str(pipeline), "--set", "inner.rule.")
    pipeline.write_text("dataset: [")
    assert "inner.rule.momentum=" in completions("show", str(pipeline), "--set", "inner.rule.")
    assert completions("check", "pipe") == ["pipe"]  # a file, which the shell completes


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_those_of_the_shells(shell) -> None:
    script = CliRunner().invoke(main, ["completion", shell]).output
    assert f"{VARIABLE}={shell}_complete" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(not MFK.exists() or shutil.which("bash") is None, reason="mfk is not installed beside this Python")
def test_bash_completes() -> None:
    program = 'eval "$(mfk completion bash)"; COMP_WORDS=(mfk init search/q); COMP_CWORD=2; _mfk_completion mfk search/q init; echo "${COMPREPLY[@]}"'
    environment = {**os.environ, "PATH": f"{MFK.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "search/quickstart\n"


def test_versions_for_a_bug_report() -> None:
    assert CliRunner().invoke(main, ["version"]).output == f"metaflowkit {metaflowkit.__version__}\n"
    text = CliRunner().invoke(main, ["version", "--all"]).output
    lines = dict(re.split(r" +", line, maxsplit=1) for line in text.splitlines())
    assert {"metaflowkit", "python", "torch", "higher", "kornia", "optuna", "processor", "memory", "gpu", "cache"} <= lines.keys()
    assert all(re.match(r"\d+\.\d+", lines[name]) for name in ("torch", "higher", "kornia", "optuna", "numpy"))
