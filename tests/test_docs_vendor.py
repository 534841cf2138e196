"""The tutorial of a sixth vendor, followed: its files beside the package's own, its suite, its invoices in staging."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from documentation import ROOT, Block, blocks
from staged import Erp, rows
from tiny import Answer, serving

FILES = {
    mark.removeprefix("file: "): block
    for block in blocks("python", "diff", "json", page="docs/add-a-vendor.md")
    if (mark := block.mark).startswith("file: ")
}
ASKED = "tests/data/acme/one-page/reply-1.json"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package and its tests, and lay the tutorial's files into the copy."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "airflow_cloudbilling", folder / "airflow_cloudbilling")
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("data"))
    if (cache := ROOT / ".pytest_cache").exists():
        shutil.copytree(cache, folder / ".pytest_cache")  # with Airflow's metadata database, which takes long to make
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, block in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(patched(path.read_text(), block) if block.language == "diff" else block.code)
    return folder


def patched(text: str, block: Block) -> str:
    """Return a file with a block's lines taken out and put in."""
    for part in block.code.split("@@\n"):
        lines = part.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(before) == 1, f"{block}: the file has changed:\n{before}"
        text = text.replace(before, after)
    return text


def run(house: Path, *command: str, **environment: str) -> str:
    """Run a command of Python in the copy, and return what it printed."""
    own = {**os.environ, **environment, "PYTHONPATH": str(house)}
    done = subprocess.run([sys.executable, *command], cwd=house, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def acme(answer: Answer) -> None:
    """Answer as the document says: the tutorial's invoices, one a page, to who has the key."""
    whole = json.loads(FILES[ASKED].code)
    asked = parse_qs(urlsplit(answer.path).query)
    if answer.headers["X-Api-Key"] != "KEY":
        answer.give(401, b'{"error": "unknown key"}')
    elif answer.number == 1:
        answer.give(429, b"slowly", Retry_After="0")
    else:
        page = int(asked["page"][0])
        body = {"page": page, "pages": 2, "count": 2, "invoices": whole["invoices"][page - 1 : page]}
        answer.give(body=json.dumps(body).encode(), Content_Type="application/json")


def test_its_recorded_answers_pass_the_conformance_suite(house: Path) -> None:
    suite = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_conformance.py", "-k", "acme")
    run(house, *suite, CLOUDBILLING_UPDATE_GOLDENS="1")
    told = run(house, *suite)
    assert " passed" in told
    assert "skipped" not in told
    golden = json.loads((house / "tests/data/acme/one-page/golden.json").read_text())
    assert [item["net_amount"] for item in golden if item["item"] == "InvoiceLine"] == ["100", "0.1", "10"]


def test_its_month_is_staged_by_the_command_and_its_form_is_there(house: Path, tmp_path: Path) -> None:
    erp = Erp("sqlite", tmp_path)
    with serving(acme) as server:
        connection = {"conn_type": "acme", "login": "tenant-1", "password": "KEY", "host": server.url}
        names = {
            "AIRFLOW_CONN_ACME_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_ACME_WRONG": json.dumps({**connection, "password": "other-key"}),
            "AIRFLOW_CONN_ERP_STAGING": json.dumps(erp.connection),
        }
        asked = ("-m", "airflow", "cloudbilling", "stage", "--conn-id", "acme_default", "--period", "2026-10", "--json")
        (staged,) = json.loads(run(house, *asked, **names))
        assert (staged["invoices"], staged["lines"], staged["received"]) == (2, 3, 2)
        assert staged["totals"] == {"EUR": {"net": "90.1", "tax": "18.92", "gross": "109.02"}}  # a credit is negative
        tested = json.loads(run(house, "-c", FORM, **names).splitlines()[-1])  # Airflow logs before it
    assert rows(erp, "invoice", "account, invoice_id, document_type, gross_amount") == [
        ("tenant-1", "a-1", "invoice", "121.12"),
        ("tenant-1", "a-2", "credit_note", "-12.1"),
    ]
    assert tested["labels"] == ["Base URL", "Tenant", "API key"]
    assert tested["good"] == [True, f"Acme Cloud answered at {server.url} and accepted the credentials."]
    assert tested["bad"][0] is False
    assert "Compare tenant and key" in tested["bad"][1]
    assert "other-key" not in str(tested)


FORM = """
import json
from airflow_cloudbilling.hooks.acme import AcmeHook
from airflow_cloudbilling.provider_info import get_provider_info

forms = {one["connection-type"]: one for one in get_provider_info()["connection-types"]}
print(json.dumps({
    "labels": [*forms["acme"]["ui-field-behaviour"]["relabeling"].values()],
    "good": AcmeHook().test_connection(),
    "bad": AcmeHook("acme_wrong").test_connection(),
}))
"""


def test_its_dag_imports_the_month(house: Path, tmp_path: Path, dags_folder: Path) -> None:
    """The same by a DAG, in which Airflow gives the month."""
    erp = Erp("sqlite", tmp_path)
    dag = dags_folder / "acme_dag.py"
    dag.write_text(
        "from airflow.sdk import DAG\nfrom airflow_cloudbilling.operators.invoices import StageInvoicesOperator\n"
        'with DAG("acme", schedule=None):\n'
        '    StageInvoicesOperator(task_id="stage", conn_id="acme_default", staging_conn_id="erp_staging",'
        ' period="2026-10")\n'
    )
    with serving(acme) as server:
        connection = {"conn_type": "acme", "login": "tenant-1", "password": "KEY", "host": server.url}
        names = {
            "AIRFLOW_CONN_ACME_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_ERP_STAGING": json.dumps(erp.connection),
        }
        code = (
            "import sys; from airflow.dag_processing.dagbag import DagBag; bag = DagBag(sys.argv[1]);"
            " assert not bag.import_errors, bag.import_errors; (dag,) = bag.dags.values();"
            " assert dag.test().state == 'success'"
        )
        run(house, "-c", code, str(dag), **names)
    assert len(rows(erp, "invoice_line")) == 3
