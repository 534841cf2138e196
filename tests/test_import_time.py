"""What a DAG file costs that uses the operators: a few small modules, and nothing is read, opened or looked up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "example_dags").glob("*.py"))
FOR_DAG_FILES = sorted(
    f"airflow_cloudbilling.{file.parent.name}.{file.stem}"
    for group in ("operators", "sensors")
    for file in (ROOT / "airflow_cloudbilling" / group).glob("[a-z]*.py")
)
# What only a running task needs: it speaks to vendors and databases, reads XML, PDF and names of countries.
FOR_TASKS = {"babel", "fastapi", "httpx", "lxml", "pandas", "psycopg", "pymysql", "pypdf", "sqlalchemy"}
# Connections and variables are looked up in files, so that a look-up is seen.
BACKEND = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
FILES = {"connections_file_path": "/dev/null/connections.json", "variables_file_path": "/dev/null/variables.json"}
GENEROUS = 1.0  # seconds; it takes some hundredths, and a machine that tests is busy
WATCHED = """
import importlib, json, runpy, sys, time
from airflow.sdk import DAG, Asset, BaseHook, BaseOperator, BaseSensorOperator

known, seen, watching = {name.partition(".")[0] for name in sys.modules}, [], False

def watch(event, args):
    if watching and event.startswith(("open", "os.", "socket.", "sqlite3.", "subprocess.", "shutil.", "urllib.")):
        seen.append((event, str(args[0]) if args else ""))

sys.addaudithook(watch)
"""


def watched(code: str, *arguments: str) -> Any:
    """Run code in a fresh Python that has imported Airflow; what it reads and opens while ``watching`` is ``seen``."""
    store = {"AIRFLOW__SECRETS__BACKEND": BACKEND, "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(FILES)}
    command = [sys.executable, "-c", WATCHED + code, *arguments]
    done = subprocess.run(command, env={**os.environ, **store}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.matrix
def test_the_modules_of_a_dag_file_are_small_and_come_from_their_files_alone():
    code = """
watching, began = True, time.perf_counter()
for name in sys.argv[1:]:
    importlib.import_module(name)
seconds, watching = time.perf_counter() - began, False
touched = [one for one in seen if one[0] != "os.listdir" and not one[1].endswith((".py", ".pyc"))]
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in sys.modules} - known), touched]))
"""
    seconds, packages, touched = watched(code, *FOR_DAG_FILES)
    assert FOR_TASKS & set(packages) == set()
    assert touched == []
    assert seconds < GENEROUS


PARSED = """
runpy.run_path(sys.argv[1])  # the first time, modules are read
watching = True
runpy.run_path(sys.argv[1])
watching = False
print(json.dumps([one for one in seen if not one[1].endswith(sys.argv[1])]))
"""


@pytest.mark.matrix
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_parsing_an_example_looks_nothing_up(file):
    assert watched(PARSED, str(file)) == []


def test_a_look_up_while_a_file_is_parsed_would_be_seen(tmp_path):
    file = tmp_path / "looks_up.py"
    text = "from airflow.sdk import BaseHook\ntry:\n    BaseHook.get_connection('erp')\nexcept Exception: pass\n"
    file.write_text(text)
    assert FILES["connections_file_path"] in {what for _, what in watched(PARSED, str(file))}
