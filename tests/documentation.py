"""What the tests read of the documentation: pages, their headings, tables and code blocks with the marks before them.

A block is marked by a comment in the line before it, which no reader sees: ``<!-- dag -->`` is a DAG file, what
``<!-- tasks -->`` marks stands within a DAG, ``<!-- run -->`` is run against the sandbox, ``<!-- test -->`` is a test,
and ``<!-- file: path -->`` a file of the tutorial.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md")))
_BLOCK = re.compile(r"^(?:<!-- (?P<mark>.+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A code block of a page.

    :param line: where its code begins, from 1.
    """

    page: str
    line: int
    mark: str
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def text_of(name: str) -> str:
    """Return a page by its path in the repository."""
    return (ROOT / name).read_text("utf-8")


def blocks(*languages: str, page: str | None = None) -> list[Block]:
    """Return the code blocks of some languages, of one page or of all, in their order."""
    paths = [ROOT / page] if page else PAGES
    return [
        Block(
            str(path.relative_to(ROOT)),
            text.count("\n", 0, found.start("code")) + 1,
            *(found[name] or "" for name in ("mark", "language", "code")),
        )
        for path in paths
        for text in [path.read_text("utf-8")]
        for found in _BLOCK.finditer(text)
        if found["language"] in languages
    ]


def rows(text: str, heading: str) -> list[str]:
    """Return the rows of the first table below a line, without its head."""
    below = text.split(f"{heading}\n", 1)[1].split("| --- |", 1)[1]
    return [line for line in below.split("\n\n", 1)[0].splitlines() if line.startswith("| ")]


def without_code(text: str) -> str:
    """Return a page's text without its code blocks."""
    return _BLOCK.sub("", text)


def links(text: str) -> list[str]:
    """Return where a page's links and pictures lead."""
    return _LINK.findall(without_code(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
