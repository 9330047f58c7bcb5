"""The command line, a file for each verb. Heavy imports are inside the commands, so that ``mfk --help`` is fast."""

from __future__ import annotations

import click

from metaflowkit import __version__
from metaflowkit.cli import (
    cache,
    check,
    compare,
    completion,
    components,
    consistency,
    doctor,
    evaluate,
    export,
    init,
    ls,
    predict,
    preview,
    report,
    run,
    schema,
    search,
    show,
    version,
)
from metaflowkit.cli.base import Commands


@click.group(
    cls=Commands,
    commands=[
        init.init,
        ls.ls,
        show.show,
        preview.preview,
        run.run,
        check.check,
        doctor.doctor,
        consistency.consistency,
        compare.compare,
        components.components,
        schema.schema,
        cache.cache,
        evaluate.evaluate,
        report.report,
        predict.predict,
        export.export,
        search.search,
        completion.completion,
        version.version,
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="mfk")
def main() -> None:
    """Meta-learning through differentiable inner optimisers, described in a YAML file."""
