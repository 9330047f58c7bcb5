"""The frame of the HTML pages: one file that opens offline; every text is escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; background: #fff }
img { max-width: 100%; height: auto }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; padding: 1em }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { text-align: left; padding: .3em .8em; border-bottom: 1px solid #ddd; white-space: nowrap }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A page.

    Args:
        title: of the page, its first heading as well.
        parts: HTML, as the other functions make it.
    """
    name = html.escape(title)
    head = f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{name}</title>"
    return "\n".join([f"{head}<style>{STYLE}</style></head>", f"<body><main><h1>{name}</h1>", *parts, "</main></body></html>\n"])


def heading(text: str) -> str:
    """A second-level heading."""
    return f"<h2>{html.escape(text)}</h2>"


def preformatted(lines: Iterable[str]) -> str:
    """Lines as they are printed."""
    return f"<pre tabindex='0'>{html.escape(chr(10).join(lines))}</pre>"


def folded(title: str, text: str) -> str:
    """A text that is shown when its title is clicked on."""
    return f"<details><summary>{html.escape(title)}</summary>{preformatted([text])}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table tabindex='0'><thead><tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr></thead>\n<tbody>{body}</tbody></table>"


def picture(title: str, figure: Any, **saving: Any) -> str:
    """A figure of matplotlib under its title.

    Args:
        title: heading, and text for those who do not see the picture.
        figure: the figure.
        saving: further arguments of ``savefig``.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, **saving)
    return f"{heading(title)}\n<img alt='{html.escape(title)}' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
