"""The command line, a file for each verb. Heavy imports stand inside the commands, so that ``mfk --help`` answers at once."""

from __future__ import annotations

import click

from metaflowkit import __version__
from metaflowkit.cli.base import Commands
from metaflowkit.cli.cache import cache
from metaflowkit.cli.check import check
from metaflowkit.cli.components import components
from metaflowkit.cli.doctor import doctor
from metaflowkit.cli.evaluate import evaluate
from metaflowkit.cli.run import run
from metaflowkit.cli.search import search


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mfk")
def main() -> None:
    """Meta-learning through differentiable inner optimisers, described in a YAML file."""


for command in (run, check, doctor, components, cache, evaluate, search):
    main.add_command(command)
