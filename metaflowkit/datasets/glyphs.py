"""Letters rendered from the typefaces that matplotlib installs: a real few-shot data set without a download."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metaflowkit.config.registry import DATASETS
from metaflowkit.config.schema import Count, Fraction, Natural, Side, nearest
from metaflowkit.datasets.cache import cached
from metaflowkit.datasets.source import digest, stamp
from metaflowkit.datasets.splits import draw_fractions, select
from metaflowkit.errors import DataError
from metaflowkit.memory import require_memory
from metaflowkit.types import ImageSet

FACES = [
    f"{family}{style}"
    for family, styles in {
        "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
        "STIXGeneral": ("", "Bol", "Italic", "BolIta"),
    }.items()
    for style in styles
]


ALIKE = 0.5
"""An evaluation letter that shares this part of its images with an earlier letter is taken to be the same letter, such as Greek Alpha and Latin A."""


@DATASETS.register("glyphs")
class Glyphs:
    """Letters in matplotlib's typefaces; classes are characters, examples are faces.

    A face draws only the letters that its character map holds, so the empty box never appears. Letters are white on black,
    scaled so that the face's tallest capitals and descenders fit, and centred by their ink.

    Some letters are drawn alike across scripts (Latin A, Greek Alpha) and within one (Greek tonos and oxia). An evaluation
    letter half of whose images or more equal, byte by byte, those of a training letter or of an earlier evaluation letter is
    left out; of one that shares fewer, only these images are, so that it may keep fewer than ``min_faces``. No evaluation
    image is then a training image, or one of another evaluation letter. By default this takes validation from 190 letters
    with 2,667 images to 178 with 2,458 (159 equalled training images), and test from 440 with 5,632 to 393 with 4,908 (389
    equalled training images, 404 equalled images of another test letter).

    Args:
        train: scripts to learn from, by the first word of their letters' Unicode names.
        test: scripts to be evaluated on.
        val_script: the training script that gives part of its letters to the validation classes.
        val_fraction: which part of it.
        faces: typefaces by the file names of matplotlib's fonts without ``.ttf``; null for the 16 text faces of DejaVu and STIX.
        image_size: side in pixels.
        min_faces: letters that fewer faces have are left out.
        split_seed: seed of the draw of validation letters.

    Reference:
        The DejaVu fonts (dejavu-fonts.github.io) and STIX fonts (stixfonts.org).
    """

    modality = "images"

    def __init__(
        self,
        train: list[str] = ["latin", "cyrillic"],  # noqa: B006, read as the schema's default and never changed
        test: list[str] = ["greek", "armenian", "georgian"],  # noqa: B006
        val_script: str = "latin",
        val_fraction: Fraction = 0.25,
        faces: list[str] | None = None,
        image_size: Side = 28,
        min_faces: Count = 10,
        split_seed: Natural = 0,
    ) -> None:
        if shared := {name.lower() for name in train} & {name.lower() for name in test}:
            raise ValueError(f"train and test must not share a script, got {', '.join(sorted(shared))} in both; remove it from one")
        self.train, self.test, self.val_script = [name.lower() for name in train], [name.lower() for name in test], val_script.lower()
        if min_faces > (16 if faces is None else len(faces)):  # 16 is len(FACES), as a literal that is read without importing
            raise ValueError(
                f"min_faces must be at most the number of faces, {16 if faces is None else len(faces)}, got {min_faces}; lower it or name more faces"
            )
        self.val_fraction = val_fraction
        self.faces = FACES if faces is None else faces
        self.image_size, self.min_faces, self.split_seed = image_size, min_faces, split_seed

    def load(self) -> dict[str, ImageSet]:
        """Render, or read from the cache, and split by script."""
        paths = _face_paths(self.faces)
        content = digest(f"{path} {stamp(path)}" for path in paths)
        key = {"glyphs": content, "faces": self.faces, "size": self.image_size, "min_faces": self.min_faces}
        x, y, names = cached(key, lambda: _render(paths, self.image_size, self.min_faces), f"glyphs, {self.image_size}x{self.image_size}")
        scripts = [_script(name) for name in names]
        for script in [*self.train, *self.test, self.val_script]:
            if script not in scripts:
                raise DataError(f"dataset: no letter of script {script!r} in {self.min_faces} of {len(paths)} faces; {nearest(script, sorted(set(scripts)))}")
        pool = [i for i, script in enumerate(scripts) if script == self.val_script]
        positions = draw_fractions(len(pool), {"val": self.val_fraction}, self.split_seed)["val"]
        val = [pool[i] for i in positions]
        validation = set(val)
        members = {
            "train": [i for i, s in enumerate(scripts) if s in self.train and i not in validation],
            "val": val,
            "test": [i for i, s in enumerate(scripts) if s in self.test and i not in validation],
        }
        return _without_duplicates({split: select(x, y, names, chosen) for split, chosen in members.items()})


def _without_duplicates(splits: dict[str, ImageSet]) -> dict[str, ImageSet]:
    """The splits without evaluation images that equal, byte by byte, an image of a training letter or of another evaluation letter.

    Validation letters come before test letters, each in the order of their code points; of two that share an image the
    later one loses it, or is left out altogether (see :data:`ALIKE`).
    """
    contents = {image.tobytes() for image in splits["train"].x.numpy()}
    kept_splits = {"train": splits["train"]}
    for split in ("val", "test"):
        images = splits[split]
        content = [image.tobytes() for image in images.x.numpy()]
        rows: list[int] = []
        classes: list[int] = []
        for c in range(len(images.classes)):
            members = torch.nonzero(images.y == c).flatten().tolist()
            unique = [row for row in members if content[row] not in contents]
            if len(members) - len(unique) >= ALIKE * len(members):
                continue
            classes.append(c)
            rows += unique
            contents.update(content[row] for row in unique)
        kept_splits[split] = select(images.x[rows], images.y[rows], images.classes, classes)
    return kept_splits


def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split()[0].lower()


def _is_letter(character: str) -> bool:
    """Letters of a script: Unicode category L, without signs that modify a letter but are none (U+0559, U+037A)."""
    category = unicodedata.category(character)
    name = unicodedata.name(character, "")
    return category in ("Lu", "Ll", "Lt", "Lo") or (category == "Lm" and ("SMALL LETTER" in name or "CAPITAL LETTER" in name))


def _face_paths(faces: list[str]) -> list[Path]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = sorted(path.stem for path in folder.glob("*.ttf"))
    for face in faces:
        if face not in names:
            raise DataError(f"dataset.faces: there is no typeface {face!r} in {folder}; {nearest(face, names)}")
    return [folder / f"{face}.ttf" for face in faces]


def _render(paths: list[Path], size: int, min_faces: int) -> tuple[Tensor, Tensor, list[str]]:
    from fontTools.ttLib import TTFont
    from PIL import ImageFont

    owners: dict[str, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        with TTFont(path, lazy=True) as face:
            for code in face.getBestCmap():
                if _is_letter(chr(code)):
                    owners[chr(code)].append(i)
    letters = sorted(letter for letter, faces in owners.items() if len(faces) >= min_faces)
    if not letters:
        raise DataError(f"dataset.min_faces: no letter is in {min_faces} of these {len(paths)} faces; lower it or name other faces")
    require_memory(
        sum(len(owners[letter]) for letter in letters) * size**2,
        f"dataset: {sum(len(owners[letter]) for letter in letters):,} letters of {size}x{size} pixels",
        "lower dataset.image_size",
    )
    fonts = [ImageFont.truetype(str(path), round(size * 0.75)) for path in paths]
    images, labels = [], []
    for label, letter in enumerate(letters):
        for i in owners[letter]:
            images.append(_draw(fonts[i], letter, size))
            labels.append(label)
    return torch.from_numpy(np.stack(images))[:, None], torch.tensor(labels), letters


def _draw(font, letter: str, size: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    from PIL import Image, ImageDraw

    left, top, right, bottom = font.getbbox(letter)
    canvas = Image.new("L", (max(size, right - left), max(size, bottom - top)))
    position = ((canvas.width - right + left) // 2 - left, (canvas.height - bottom + top) // 2 - top)
    ImageDraw.Draw(canvas).text(position, letter, fill=255, font=font)
    return np.asarray(canvas if canvas.size == (size, size) else canvas.resize((size, size), Image.Resampling.BOX), dtype=np.uint8)
