"""Sphinx's settings: the pages stay plain Markdown; what a site needs besides is made while it is built, offline."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, BaseSensorOperator

from airflow_cloudbilling import __version__
from airflow_cloudbilling.provider_info import get_provider_info

HERE = Path(__file__).parent
REFERENCE = HERE / "reference"  # not kept: made of the docstrings
PAGES = re.findall(r"\]\(([\w-]+)\.md\)", (HERE / "index.md").read_text("utf-8"))

project = "airflow-provider-cloudbilling"
release = version = __version__
project_copyright = ""
root_doc = "index"
exclude_patterns = ["pictures"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "alabaster"
html_theme_options = {
    "page_width": "1100px",
    "show_powered_by": False,
    "description": "Vendors' invoices for your ERP",
}
html_show_copyright = False
myst_heading_anchors = 3  # links to headings work as on GitHub
autodoc_typehints = "none"  # the signature has defaults, the docstring says what is meant
autodoc_member_order = "bysource"
suppress_warnings = ["misc.highlighting_failure"]  # psql's own commands are no SQL


def modules() -> Iterator[str]:
    """Yield the modules that users import from, by what the provider's metadata names."""
    info = get_provider_info()
    for kind in ("operators", "sensors", "hooks", "triggers"):
        yield from dict.fromkeys(name for entry in info[kind] for name in entry["python-modules"])
    yield from dict.fromkeys(name.rpartition(".")[0] for name in info["notifications"])


def write_reference(app: Any) -> None:
    """Write a page for each module, which autodoc fills."""
    REFERENCE.mkdir(exist_ok=True)
    for name in modules():
        head = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n   :show-inheritance:\n"
        page = REFERENCE / f"{name}.rst"
        if not page.exists() or page.read_text() != head:
            page.write_text(head)


def add_contents(app: Any, docname: str, source: list[str]) -> None:
    """Add the list of pages, which GitHub's readers have as links, to the first page and to that of the operators.

    Links to Markdown outside of this folder lead to the files themselves.
    """
    source[0] = re.sub(r"\]\((\.\./[^)#]+\.md)(?:#[^)]*)?\)", r"](path:\1)", source[0])
    toctree = "\n\n```{{toctree}}\n:hidden:\n:maxdepth: 1\n{}\n{}\n```\n"
    if docname == "index":
        source[0] += toctree.format("", "\n".join(PAGES))
    elif docname == "operators":
        pages = "\n".join(f"reference/{name}" for name in modules())
        source[0] += "\n## Reference\n" + toctree.format("", pages).replace(":hidden:\n", "")


def whole_signature(app: Any, what: str, name: str, one: Any, options: Any, signature: str, returned: str) -> Any:
    """Return an operator's arguments with those of its bases here, of which Python shows ``**kwargs`` only."""
    if what != "class" or not issubclass(one, (BaseOperator, BaseSensorOperator)):
        return None
    found: dict[str, inspect.Parameter] = {}
    for kind in one.__mro__:
        if kind.__module__.startswith("airflow_cloudbilling") and "__init__" in vars(kind):
            given = inspect.signature(inspect.unwrap(kind.__init__)).parameters.values()
            found |= {p.name: p for p in given if p.kind is p.KEYWORD_ONLY and p.name not in found}
    shown = [p.replace(annotation=p.empty) for p in found.values()]
    return f"(*, task_id, {', '.join(map(str, shown))}, **kwargs)", returned


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("builder-inited", write_reference, priority=1)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-signature", whole_signature)
