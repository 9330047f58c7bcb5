"""``python -m metaflowkit``."""

from metaflowkit.cli import main

main()
