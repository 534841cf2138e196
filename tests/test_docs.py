"""The documentation says what is true: its tables are the code's, its examples run, its messages and links exist."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from documentation import DOCS, PAGES, ROOT, Block, anchors, blocks, links, rows, text_of
from importing import stage

from airflow_cloudbilling.connection_fields import COMMON_FIELDS, Field
from airflow_cloudbilling.provider_info import get_provider_info
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sources import SOURCES
from airflow_cloudbilling.staging.tables import tables

CONNECTIONS = text_of("docs/connections.md")


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
def test_the_connection_table_is_the_form(source: Any) -> None:
    assert rows(CONNECTIONS, f"## {source.title}\n") == [*standard_fields(source), *map(described, source.fields)]


def test_the_common_fields_are_the_forms() -> None:
    assert rows(CONNECTIONS, "**`extra` of every connection type**\n") == list(map(described, COMMON_FIELDS))


def test_the_staging_tables_are_the_ones_created() -> None:
    told = rows(text_of("docs/staging.md"), "# Staging tables\n")
    named = {name for row in told for name in re.findall(r"`(cloudbilling_\w+)`", row)}
    assert named == {table.name for table in tables(None).metadata.tables.values()}


def test_every_operator_is_told_and_no_other() -> None:
    info = get_provider_info()
    modules = {name for kind in ("operators", "sensors") for entry in info[kind] for name in entry["python-modules"]}
    made = {
        name
        for module in modules
        for name, one in vars(import_module(module)).items()
        if isinstance(one, type) and name.endswith(("Operator", "Sensor")) and one.__module__ in modules
    } - {"ApiOperator", "RecordOperator", "SageOperator"}  # bases
    made = {name for name in made if not name.startswith("_")}
    told = rows(text_of("docs/operators.md"), "# Operators, sensors, hooks, notifiers\n")
    assert set(re.findall(r"`(\w+(?:Operator|Sensor))`", "\n".join(told))) == made


def test_commands_are_those_of_the_makefile() -> None:
    makefile = text_of("Makefile")
    there = {"", *re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)}
    for page in PAGES:
        told = re.findall(r"`make ([^`]+)`|^make (.+)$", page.read_text(), re.MULTILINE)
        named = {re.match(r"(?:\w+=\S+ )*([a-z-]*)", one or other)[1] for one, other in told}
        assert named <= there, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_page_is_reached_from_readme_and_index() -> None:
    for entry in ("README.md", "docs/index.md"):
        reached = {((ROOT / entry).parent / link.partition("#")[0]).resolve() for link in links(text_of(entry))}
        assert [page.name for page in DOCS.glob("*.md") if page.name != "index.md" and page not in reached] == []


def test_pictures_are_small_and_all_shown() -> None:
    pictures = [(page, link) for page in PAGES for link in links(page.read_text()) if link.endswith("png")]
    shown = {(page.parent / link).resolve() for page, link in pictures}
    assert shown == set((DOCS / "pictures").glob("*.png"))
    assert [path.name for path in shown if path.stat().st_size > 150_000] == []


# Messages: what is quoted in a table headed "message" must be some text of the code, with anything for each "…".


@cache
def said() -> tuple[str, ...]:
    """Return every text of the package, with a mark where something is put in."""
    found = []
    for path in (ROOT / "airflow_cloudbilling").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{[\w.]*(?:![rs])?\}|%(?:\(\w+\))?[sdr]", "…", node.value))
    return tuple(" ".join(text.split()) for text in found)


def quoted() -> list[str]:
    tables = re.findall(r"^\| message \|.*\n\| --- .*\n((?:\|.*\n)+)", "\n".join(p.read_text() for p in PAGES), re.M)
    return [row.split("`")[1] for table in tables for row in table.splitlines()]


@pytest.mark.parametrize("message", quoted())
def test_every_quoted_message_is_still_the_codes(message: str) -> None:
    parts = [part for part in re.split(r"\s*…\s*", message) if part.strip(" .;:,()")]
    wanted = re.compile(".*?".join(map(re.escape, parts)))
    assert any(wanted.search(text) for text in said()), message


# Examples: what is marked as a DAG is one, what is marked to be run is run.

PYTHON = blocks("python")


def test_every_example_says_how_it_is_tried() -> None:
    tried = re.compile(r"(dag|tasks|tasks, run|run|test)$|file: ")
    assert [str(one) for one in PYTHON if one.page != "README.md" and not tried.match(one.mark)] == []


def dag_file(block: Block, folder: Path) -> Path:
    """Write an example as a DAG file; tasks without a DAG are put into one."""
    code = block.code
    if block.mark.startswith("tasks"):
        lines = code.splitlines()
        body = max(number for number, line in enumerate(lines) if line.startswith(("from ", "import "))) + 1
        indented = [f"    {line}" for line in lines[body:]]
        own = ["from airflow.sdk import DAG", 'with DAG("example", schedule=None):']
        code = "\n".join([*lines[:body], *own, *indented])
    file = folder / "of_the_docs.py"
    file.write_text(code)
    return file


@pytest.mark.parametrize("block", [one for one in PYTHON if one.mark in ("dag", "tasks", "tasks, run")], ids=str)
def test_an_example_is_a_dag(block: Block, dags_folder: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_file(block, dags_folder))
    assert not bag.import_errors, bag.import_errors
    assert all(dag.tasks for dag in bag.dags.values())
    assert bag.dags


@pytest.fixture
def october(tmp_path: Path, staging: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Stage the sandbox's 2tCloud as the examples have it, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    with Sandbox(last_month=date(2026, 10, 1), months=2) as sandbox:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        stage("2026-09", conn_id="store365_default", kind="purchase")  # October lacks it, which is a finding
        for kind in ("purchase", "sales"):
            stage("2026-10", conn_id="twotcloud_default", kind=kind)
        yield sandbox


@pytest.mark.parametrize("block", [one for one in PYTHON if one.mark == "run"], ids=str)
def test_an_example_runs(block: Block, october: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block.code, str(block), "exec"), {"__name__": "example"})  # noqa: S102 - our own documentation
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("block", [one for one in PYTHON if one.mark == "tasks, run"], ids=str)
def test_an_example_of_tasks_runs(block: Block, october: Sandbox, dags_folder: Path, run_dag: Any) -> None:
    results = run_dag(dag_file(block, dags_folder))
    (uploaded,) = results.values()
    truth = october.truth("twotcloud", "sales", "2026-10")
    assert (uploaded["status"], uploaded["accepted"]) == ("accepted", sum(one.invoices for one in truth.values()))


@pytest.mark.parametrize("block", [one for one in PYTHON if one.mark == "test"], ids=str)
def test_an_example_of_a_test_passes(
    block: Block, cloudbilling_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    exec(compile(block.code, str(block), "exec"), found)  # noqa: S102 - our own documentation
    (test,) = [one for name, one in found.items() if name.startswith("test_")]
    test(cloudbilling_sandbox, monkeypatch)
    assert cloudbilling_sandbox.requests[0].status == 503


def commands(page: str) -> Iterator[list[str]]:
    """Yield what stands after ``airflow cloudbilling`` in a page's blocks, as a shell would split it."""
    for block in blocks("sh", "console", page=page):
        for line in block.code.replace("\\\n", " ").splitlines():
            if line.startswith("airflow cloudbilling "):
                yield shlex.split(line, comments=True)[2:]


def test_every_command_does_what_the_page_says(october: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow.cli import cli_parser

    parser = cli_parser.get_parser()
    ended = {}
    for words in commands("docs/command-line.md"):
        args = parser.parse_args(["cloudbilling", *words])
        if words[0] == "sandbox":
            continue  # it would serve for ever
        code: Any = 0
        try:
            args.func(args)
        except SystemExit as exit_:
            code = exit_.code
        told = capsys.readouterr()
        ended[" ".join(words[:2])] = code
        assert code in (0, 1), (words, told.err)
        assert told.out.strip(), words
    assert ended["reconcile --period"] == 1  # months with findings are what it is for
    assert len(ended) >= 8


def test_every_command_anywhere_is_one() -> None:
    from airflow.cli import cli_parser

    parser = cli_parser.get_parser()
    for page in PAGES:
        for words in commands(str(page.relative_to(ROOT))):
            assert parser.parse_args(["cloudbilling", *words[: words.index(">") if ">" in words else None]])


@pytest.mark.processes
def test_the_quick_start_is_walked_through(tmp_path: Path) -> None:
    """The blocks of the page in their order, in one shell, with this environment's Airflow on the path."""
    steps = [one for one in blocks("sh", page="docs/quick-start.md") if one.mark.startswith("run")]
    script = ["set -eu", "trap 'kill %1 2>/dev/null' EXIT"]
    for step in steps:
        ends = step.mark.partition(": ")[2]
        script.append(f"echo '=== {step.line}'")
        script.append(step.code if not ends else f"code=0\n{step.code.rstrip()} || code=$?\ntest $code -eq {ends}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "12 invoices" in done.stdout
    assert "2tCloud refused with HTTP 403" in done.stderr


@pytest.mark.skipif(find_spec("myst_parser") is None, reason="the extra docs needs Python 3.11")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    page = (tmp_path / "site" / "reference" / "airflow_cloudbilling.operators.invoices.html").read_text()
    for word in ("StageInvoicesOperator", "max_removed", "window_shift_days", "AirflowFailException"):
        assert word in page
