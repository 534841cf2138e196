"""The README says what is true: its DAG runs, its tables are the code's, its result is the operator's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_cloudbilling.fields import COMMON_FIELDS, Field
from airflow_cloudbilling.sources import SOURCES
from airflow_cloudbilling.staging.tables import tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """Return the first code block of a language that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(code for code in blocks if containing in code)


def rows(heading: str) -> list[str]:
    """Return the rows of the table below a line."""
    below = README.split(heading, 1)[1].split("| --- |", 1)[1]
    return [line for line in below.split("\n\n", 1)[0].splitlines() if line.startswith("| ")]


def described(field: Field) -> str:
    name = f"`{field.name}`" + " (secret)" * field.secret
    default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    default = default.lower() if isinstance(field.default, bool) else default
    choice = f" One of {' · '.join(f'`{value}`' for value in field.enum)}." if field.enum else ""
    return f"| {name} | {f'`{default}`' if field.default is not None else ''} | {field.label}: {field.help}{choice} |"


def standard_fields(source: Any) -> Iterator[str]:
    for name, label in source.labels.items():
        default = f"`{source.default_host}`" if name == "host" and source.default_host else ""
        required = "; required" * (name in source.required)
        yield f"| {name}{' (secret)' * (name == 'password')} | {default} | {label}{required}. |"


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_connection_table_is_the_form(source):
    heading = f"**`{source.conn_type}`** — {source.title}"
    assert rows(heading) == [*standard_fields(source), *map(described, source.fields)]


def test_the_common_fields_are_the_forms():
    assert rows("**`extra` of every connection type**") == list(map(described, COMMON_FIELDS))


def test_the_staging_tables_are_the_ones_created():
    named = {name for row in rows("| table | one row is |") for name in re.findall(r"`(cloudbilling_\w+)`", row)}
    created = {table.name for table in tables(None).metadata.tables.values()}
    assert named == created


def test_the_first_dag_is_short_and_runs(dags_folder, vendor, staging, run_dag):
    code = block("python", "StageInvoicesOperator(")
    assert len(code.splitlines()) <= 12
    file = dags_folder / "of_the_readme.py"
    file.write_text(code)
    month = vendor.months[-1]
    result = run_dag(file, partition_key=month)["stage"]
    assert result["invoices"] == sum(truth.invoices for truth in vendor.truth("twotcloud", "purchase", month).values())
    shown = json.loads(block("json", '"slices"'))
    assert set(shown) == set(result)
    assert set(shown["slices"][0]) == set(result["slices"][0])


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_are_those_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    commands = set(re.findall(r"make ([a-z-]+)", README)) & set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"demo", "test", "ui", "help", "check"} <= commands
