"""The frame of the HTML pages: one file that opens offline; every text is escaped."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metaflowkit.errors import printable

STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; background: #fff }
img { max-width: 100%; height: auto }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; padding: 1em }
.lead { font-size: 1.3em }
.gallery { display: flex; flex-wrap: wrap; gap: .5em }
.warning { border-left: .4em solid #b00020; padding: .1em 1em; background: #fdf0f1; overflow-wrap: anywhere }
p { overflow-wrap: anywhere }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { text-align: left; padding: .3em .8em; border-bottom: 1px solid #ddd; white-space: nowrap }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A page.

    Args:
        title: of the page, its first heading as well.
        parts: HTML, as the other functions make it.
    """
    name = escaped(title)
    head = f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{name}</title>"
    return "\n".join([f"{head}<style>{STYLE}</style></head>", f"<body><main><h1>{name}</h1>", *parts, "</main></body></html>\n"])


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escaped(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escaped(text)}</p>"


def lead(text: str) -> str:
    """The sentence that a reader should see first."""
    return f"<p class='lead'>{escaped(text)}</p>"


def warning(title: str, lines: Iterable[str]) -> str:
    """A list that must not be overlooked."""
    return f"<section class='warning'><p><strong>{escaped(title)}</strong></p><ul>{''.join(f'<li>{escaped(line)}</li>' for line in lines)}</ul></section>"


def escaped(text: str) -> str:
    """A text as HTML in which nothing is markup, and characters that would hide or reorder others are visible."""
    return html.escape(printable(text))


def preformatted(lines: Iterable[str]) -> str:
    """Lines as they are printed."""
    return f"<pre tabindex='0'>{chr(10).join(escaped(line) for text in lines for line in text.split(chr(10)))}</pre>"


def folded(title: str, text: str) -> str:
    """A text that is shown when its title is clicked on."""
    return f"<details><summary>{escaped(title)}</summary>{preformatted([text])}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    body = "".join(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table tabindex='0'><thead><tr>{''.join(f'<th>{escaped(cell)}</th>' for cell in head)}</tr></thead>\n<tbody>{body}</tbody></table>"


def picture(title: str, figure: Any, **saving: Any) -> str:
    """A figure of matplotlib under its title.

    Args:
        title: heading, and text for those who do not see the picture.
        figure: the figure.
        saving: further arguments of ``savefig``.
    """
    return f"{heading(title)}\n{drawn(title, figure, **saving)}"


def gallery(figures: Mapping[str, Any]) -> str:
    """Small figures of matplotlib beside each other, as many as the page has room for, by what they show."""
    return f"<div class='gallery'>{''.join(drawn(title, figure) for title, figure in figures.items())}</div>"


def drawn(description: str, figure: Any, **saving: Any) -> str:
    """A figure of matplotlib.

    Args:
        description: for those who do not see it.
        figure: the figure.
        saving: further arguments of ``savefig``.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that matplotlib's font lacks: it draws a box
        figure.savefig(buffer, format="png", dpi=110, **saving)
    return image(description, buffer.getvalue())


def image(description: str, png: bytes) -> str:
    """A picture that is part of the page.

    Args:
        description: for those who do not see it.
        png: its file.
    """
    return f"<img alt='{escaped(description)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
