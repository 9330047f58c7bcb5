"""``mfk predict``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import as_json, examples, loading, say, say_json
from metaflowkit.cli.completion import readouts


@click.command(
    epilog=examples(
        "mfk predict runs/mine --support labelled --images new -o answers.csv --sheet answers.png",
        "mfk predict runs/mine --support labelled --images a.jpg --json",
    )
)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--support", required=True, type=click.Path(path_type=Path), metavar="FOLDER|ZIP", help="A folder per class with a few labelled images each.")
@click.option(
    "--images",
    "images",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="What to classify: a file, folder or zip; may be repeated.",
)
@click.option("-o", "--output", "path", type=click.Path(path_type=Path, dir_okay=False), help="A table, .csv or .json; else it is printed.")
@as_json
@click.option("--sheet", type=click.Path(path_type=Path, dir_okay=False), help="A contact sheet as PNG: each class with the images that were given it.")
@click.option("--readout", default="prototype", show_default=True, shell_complete=readouts, help="How to classify (mfk components readout).")
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option(
    "--reject",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of images of these classes that may be called none of these; 0 for none.",
)
@click.option("--invert/--no-invert", default=None, help="Swap black and white; by default as the run's data set does.")
@click.option("--transductive", is_flag=True, help="Let images share the statistics of normalisation.")
def predict(
    run_dir: Path,
    support: Path,
    images: tuple[Path, ...],
    path: Path | None,
    as_json: bool,
    sheet: Path | None,
    readout: str,
    weights: str,
    reject: float,
    invert: bool | None,
    transductive: bool,
) -> None:
    """Classify images with the weights of RUN, by a few labelled images of each class.

    An image's answer does not depend on the other images, unless --transductive is given. "none of these" is an image that is further from every class
    than the labelled images are.
    """
    with loading():
        from metaflowkit.config.yaml import write_atomic
        from metaflowkit.prediction.classifier import Classifier
        from metaflowkit.prediction.command import counts, write_table
        from metaflowkit.prediction.command import predict as predicted
        from metaflowkit.reporting.prediction_sheet import prediction_sheet

    classifier = Classifier.from_run(run_dir, weights=weights, readout=readout, reject=reject, invert=invert, transductive=transductive)
    rows, by_class = predicted(classifier, support, images)
    table = write_table(rows, path)
    if sheet is not None:
        write_atomic(sheet, prediction_sheet(rows, by_class))
    if as_json:
        say_json([row.plain() for row in rows])
    elif path is None:
        for line in table.splitlines():
            say(line)
    if path is not None or sheet is not None:
        say(f"written: {', '.join(str(each) for each in (path, sheet) if each is not None)}", err=as_json)
    say(f"{len(rows)} images: {counts(rows)}", err=path is None)
