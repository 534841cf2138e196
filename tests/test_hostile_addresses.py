"""Ids, names and addresses of vendors that lead elsewhere: on this machine, in its network, at the vendor."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException
from importing import connect, stage
from sages import CONN_ID
from staged import Erp, rows
from test_faults_http import PRIVATE
from uploading import stage as stage_sales
from uploading import upload

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.operators.api import DownloadFileOperator
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming

NAMES = [
    "..",
    "../../../etc/passwd",
    "/etc/passwd",
    "a/../b",
    "a\\..\\b",
    "a\0b",
    "a\nb",
    "C:\\x",
    "%2e%2e%2f",
    "x" * 4096,
]
NAMES += ["?x=1#y", ".", "~root", "a b", "é" * 200, "CON", "-rf", "$(id)"]
RESOURCES = {  # what is asked for by an id, and what stands before the id
    "twotcloud": ("customers", "/v2/customers/"),
    "orange_cloudstore": ("documents", "/cloud/b2b/v1/documents/"),
    "cloudonex": ("customers", "/api/v2/customers/"),
    "store365": ("invoices", "/store365/invoices/"),
}
on_sqlite = pytest.mark.parametrize("erp", ["sqlite"], indirect=True)


@on_sqlite
def test_a_documents_id_and_name_stay_within_the_archive(
    vendor: Sandbox, erp: Erp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(vendor, monkeypatch, conn_id="orange_cloudstore_default", contract_id="OCB0001234")
    fitting = [name for name in NAMES if len(name) < 255]
    listed = [{"id": name, "filename": name, "period": "2026-10"} for name in fitting]
    vendor.serve("/cloud/b2b/v1/documents", json.dumps(listed))
    orange = vendor.vendors["orange_cloudstore"]

    def answer(request: Incoming) -> Answer:
        if "/documents/" not in request.path:
            right: Answer = type(orange).answer(orange, request)
            return right
        named = {"Content-Disposition": f'attachment; filename="{request.path.split("/")[-2]}/../x"'}
        return Answer(200, (b"%PDF-1.4",), "application/pdf", named)

    orange.answer = answer
    archive = tmp_path / "deep" / "archive"
    stage("2026-10", conn_id="orange_cloudstore_default", archive=str(archive))
    kept = {path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("cloudbilling_test")}
    assert kept
    assert all(
        re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{64}\.gz|README.txt", str(path.relative_to(archive))) for path in kept
    )
    asked = [seen.path for seen in vendor.requests if "/documents/" in seen.path]
    assert len(asked) == len(fitting)
    assert all(path.count("/") == 6 and not {"..", "."} & set(path.split("/")) for path in asked)
    assert not [name for (name,) in rows(erp, "document", "filename") if set(name or "") & set("/\\\0\n")]


def look_up(of: str, name: str, folder: Path) -> None:
    """Ask for a record, or for a file, by its id."""
    if of == "orange_cloudstore":
        where = {"resource": "documents", "record_id": name, "destination": str(folder)}
        DownloadFileOperator(task_id="get", conn_id=f"{of}_default", **where).execute({})
    else:
        BillingHook(f"{of}_default").get_record(RESOURCES[of][0], name)


@pytest.mark.parametrize("of", RESOURCES)
def test_a_records_id_stays_one_part_of_the_path(
    of: str, vendor: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(vendor, monkeypatch, conn_id="orange_cloudstore_default", contract_id="OCB0001234")
    for name in NAMES:
        with suppress(CloudBillingError, AirflowFailException):
            look_up(of, name, tmp_path / "in" / "here")
    asked = [seen.path for seen in vendor.requests if "token" not in seen.path]
    assert len(asked) > 10
    assert all(re.fullmatch(RESOURCES[of][1] + r"(?!\.*/)(?!\.*$)[^/]+(/file)?", path) for path in asked), asked
    assert all(path.is_relative_to(tmp_path / "in" / "here") for path in tmp_path.rglob("*") if path.is_file())


@on_sqlite
@pytest.mark.parametrize("location", PRIVATE)
def test_a_result_elsewhere_is_told_and_not_fetched(location: str, erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage_sales(erp)

    def answer(request: Incoming) -> Answer:
        right: Answer = type(sage).answer(sage, request)
        if "/tracking" not in request.path:
            return right
        said = {**json.loads(b"".join(right.body)), "status": "accepted", "downloadResultUrl": location}
        return Answer(200, (json.dumps(said).encode(),), right.content_type)

    sage.answer = answer
    with pytest.raises(AirflowFailException, match=CONN_ID):
        upload(timeout=2)
    assert {seen.path.split("/")[1] for seen in vendor.requests} <= {"sage"}
    assert sage.leaks == 0


@on_sqlite
@pytest.mark.parametrize("tracking_id", ["..", "../../apikey", "a\0b", "?x=1#y"])
def test_a_tracking_id_stays_one_part_of_the_path(tracking_id: str, erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage_sales(erp)

    def answer(request: Incoming) -> Answer:
        given = json.dumps({"trackingId": tracking_id} if request.method == "POST" else {})
        return Answer(202 if request.method == "POST" else 404, (given.encode(),), "application/json")

    sage.answer = answer
    with pytest.raises((CloudBillingError, AirflowFailException)):
        upload(timeout=1)
    first, *others = [seen.path for seen in vendor.requests]
    assert first == "/sage/api/files/Orders"
    assert all(re.fullmatch(r"/sage/api/files/(?!\.*/)[^/]+/tracking", path) for path in others)
