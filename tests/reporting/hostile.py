"""A run whose data, file and directory bear names that would be markup, mathematics or terminal sequences where they are not escaped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from metaflowkit.cli import main

SCRIPT = "<script>window.injected = true</script>"
NAMES = [
    "<img src=x onerror=window.injected=true>", "'><svg onload=window.injected=true>", "$\\frac{1$", "_under", "\x1b[31mred", "\u202egnp.exe", "猫", "a&b", "new\nline", "{{7*7}}",
]  # fmt: skip


def hostile_run(folder: Path) -> Path:
    """Train for two steps on drawings of ten classes with such names, and return the run directory."""
    drawn = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for i, name in enumerate(NAMES):
            of_class = folder / "data" / split / name
            of_class.mkdir(parents=True)
            for j in range(8):
                pixels = drawn.integers(0, 256, (16, 16), dtype=np.uint8) // 2 + 12 * i
                Image.fromarray(pixels.astype(np.uint8)).save(of_class / f"{j}.png")
    name = "a<b onmouseover=alert(1)>'\"&"
    (folder / f"{name}.yaml").write_text(
        "dataset: {name: folder, root: data, layout: splits, split_by: image, mode: grey, image_size: 16}\n"
        "augment: {level: 1}\ntasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}\nmodel: {backbone: {name: conv4, width: 4}}\ninner: {steps: 1}\n"
        "outer: {steps: 2}\nevaluate: {every: 1, way: 3, query: 2, episodes: 4, val_episodes: 4}\n"
    )
    run = folder / f"run {name}"
    arguments = ["run", str(folder / f"{name}.yaml"), "--set", f"dataset.root={folder / 'data'}", "--run-dir", str(run), "--quiet"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return run
