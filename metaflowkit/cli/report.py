"""``mfk report``."""

from __future__ import annotations

from pathlib import Path

import click

from metaflowkit.cli.base import examples, say


@click.command(epilog=examples("mfk report runs/mine", "mfk report runs/one runs/other -o both.html"))
@click.argument("run_dirs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", "path", type=click.Path(path_type=Path, dir_okay=False), help="The page; by default report.html, of one run in its directory.")
def report(run_dirs: tuple[Path, ...], path: Path | None) -> None:
    """Write the page of each RUN again, finished or not; several runs side by side. mfk run writes it at its end."""
    from metaflowkit.reporting.run_page import write_pages

    say(f"written: {write_pages(run_dirs, path)}")
