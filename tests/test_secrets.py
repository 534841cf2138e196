"""Thirty secrets over all connections and fields, looked for in all that is told or kept, in eight forms: 0 hits."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import staged
from importing import connect, stage
from planted import PROXIED, Planted, files, forms, shown, shows
from sages import CONN_ID
from staged import Erp
from uploading import Task, upload
from uploading import stage as stage_sales

from airflow_cloudbilling.operators.api import ListRecordsOperator
from airflow_cloudbilling.operators.database import open_staging
from airflow_cloudbilling.operators.sage import SageCreatePasscodeOperator
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming

BILLING = PROXIED[:4]
on_sqlite = pytest.mark.parametrize("erp", ["sqlite"], indirect=True)


class Witness:
    """Does things as tasks do, and keeps whatever anybody could see of them."""

    def __init__(self, secrets: Planted, erp: Erp, folder: Path, log: pytest.LogCaptureFixture, out: Any) -> None:
        self.secrets, self.erp, self.folder = secrets, erp, folder
        self._log, self._out = log, out
        self._told: list[str] = []

    def sees(self, work: Callable[..., Any], *args: Any, **more: Any) -> BaseException | None:
        """Do something; return the error that ended it."""
        try:
            self._told.append(json.dumps(work(*args, **more), default=repr))
        except BaseException as error:
            self._told.append(shown(error))
            return error
        return None

    def leaks(self) -> list[str]:
        """Return which secrets show anywhere: logs, results, errors, staging, archive and files."""
        logged = "".join(record.getMessage() for record in self._log.records)  # without what stands between two lines
        everywhere = [logged, self._log.text, *self._out.readouterr(), *self._told, self.erp.everything()]
        return shows(self.secrets.known(), "\n".join([*everywhere, files(self.folder)]))


@pytest.fixture
def secrets(vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Plant the secrets in the sandbox and in the connections."""
    planted = Planted(vendor)
    for name, value in vendor.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "")
    return planted


@pytest.fixture
def witness(
    secrets: Planted, erp: Erp, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Witness:
    caplog.set_level("DEBUG")
    for name in ("httpx", "httpcore"):  # Airflow itself quiets them
        caplog.set_level("DEBUG", name)
    (tmp_path / "files").mkdir()
    return Witness(secrets, erp, tmp_path / "files", caplog, capfd)


def test_thirty_secrets_are_planted_and_any_form_of_any_would_be_found(secrets: Planted) -> None:
    known = secrets.known()
    assert len(known) >= 23  # and two tokens each, a rotated key, a passcode and signatures as they are given
    assert len({name for name, _ in forms("x")}) + len(["split"]) == 8
    for name, secret in known.items():
        for form, written in forms(secret):
            assert any(each.startswith(name) for each in shows({name: secret}, f"at {written} there")), form
    key = known["cloudonex key"]
    assert shows({"key": key}, f"{key[:15]}\n2026-11-22 INFO {key[15:]}")[-1] == "key (plain, split)"


@on_sqlite
def test_what_goes_well_shows_none(
    vendor: Sandbox, secrets: Planted, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    month, archive = vendor.months[-1], str(witness.folder / "raw")
    for name in BILLING:
        assert not witness.sees(stage, month, conn_id=f"{name}_default", archive=archive)
    secrets.orange.expire_tokens()
    secrets.store365.expire_tokens()
    connect(vendor, monkeypatch, conn_id="cloudonex_default", auth_mode="query")
    for name in ("orange_cloudstore", "cloudonex", "store365"):
        assert not witness.sees(stage, month, conn_id=f"{name}_default", archive=archive)
    customers = ListRecordsOperator(task_id="list", conn_id="cloudonex_default", resource="customers")
    assert not witness.sees(customers.execute, {})
    customers.destination = str(witness.folder / "customers.jsonl")
    assert not witness.sees(customers.execute, {})
    assert witness.leaks() == []


@on_sqlite
def test_what_goes_to_sage_shows_none(
    vendor: Sandbox, secrets: Planted, witness: Witness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("TINY_STORE", str(tmp_path / "store"))
    stage_sales(witness.erp)
    connect(vendor, monkeypatch, conn_id=CONN_ID, upload_strategy="presigned")
    secrets.sage.key_uses, secrets.sage.rejects = 3, {"INV-1"}
    passcode = SageCreatePasscodeOperator(task_id="passcode", conn_id=CONN_ID)
    assert not witness.sees(passcode.execute, {})
    ti = Task()
    assert "INV-1" in str(witness.sees(upload, ti))
    assert not witness.sees(lambda: ti.xcoms)
    assert secrets.sage.rotations
    assert {"signature uploads 0", "signature results 0", "passcode 0", "sage key in force"} <= secrets.known().keys()
    assert witness.leaks() == []


def echoing(own: dict[str, str], redirect: str, status: int, vendor: Any) -> Callable[[Incoming], Answer]:
    """Return answers that repeat secrets in every form, as a server's page does that shows what it was asked."""
    body = "\n".join(f"{name}: {written}" for name, secret in own.items() for name, written in forms(secret))
    headers = {f"X-Asked-{n}": secret for n, secret in enumerate(own.values())}
    location = {"Location": f"/x?sig={redirect}"} if status == 302 else {}

    def answer(request: Incoming) -> Answer:
        if "token" in request.path or "apikey" in request.path:
            right: Answer = type(vendor).answer(vendor, request)
            return right
        asked = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
        return Answer(
            status, (f"{asked}{request.query}\n{body}".encode(),), "application/json", {**headers, **location}
        )

    return answer


@on_sqlite
@pytest.mark.parametrize("status", [200, 302, 401, 403, 429, 500])
def test_what_goes_wrong_shows_none_though_the_vendor_repeats_them_all(
    status: int, vendor: Sandbox, secrets: Planted, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_sales(witness.erp)
    for name in PROXIED:
        one, fields = vendor.vendors[name], repr(vendor.connections()[f"{name}_default"])
        own = {each: secret for each, secret in secrets.known().items() if repr(secret)[1:-1] in fields}
        assert own
        one.answer = echoing(own, secrets.redirect, status, one)
        connect(vendor, monkeypatch, conn_id=f"{name}_default", max_attempts=2 if status == 500 else 1)
    for name in BILLING:
        archive = str(witness.folder / "raw")
        assert witness.sees(stage, vendor.months[-1], conn_id=f"{name}_default", archive=archive)
    assert witness.sees(upload, timeout=1)
    assert witness.leaks() == []


@on_sqlite
def test_what_cannot_be_reached_or_read_shows_none(
    vendor: Sandbox, secrets: Planted, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIED:
        proxy = f"http://me:{quote(secrets.proxies[name], safe='')}@127.0.0.1:1"
        connect(vendor, monkeypatch, conn_id=f"{name}_default", proxy=proxy, max_attempts=1)
    for name in BILLING:
        assert witness.sees(stage, vendor.months[-1], conn_id=f"{name}_default")
    for broken in ({"timeout": "soon"}, {"verify": False}, {"field_map": [1]}):
        connect(vendor, monkeypatch, **broken)
        assert witness.sees(stage, vendor.months[-1])
    fields = {**vendor.connections()["twotcloud_default"], "extra": '{"customers_api_key": "'}
    monkeypatch.setenv("AIRFLOW_CONN_TWOTCLOUD_DEFAULT", json.dumps({**fields, "password": f"{fields['password']}\n"}))
    assert witness.sees(stage, vendor.months[-1])
    assert witness.leaks() == []


def databases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield staging connections that do not work: nobody there, and where a server is at hand a wrong password."""
    for kind in staged.SERVERS:
        yield kind, {"host": "127.0.0.1", "port": 1}
        if kind in staged.NAMED:
            server = staged.make_url(staged.os.environ[staged.SERVERS[kind]])
            yield kind, {"host": server.host, "port": server.port}


@on_sqlite
@pytest.mark.parametrize(("kind", "where"), databases())
def test_a_staging_database_that_refuses_shows_none(
    kind: str,
    where: dict[str, Any],
    secrets: Planted,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    vendor: Sandbox,
) -> None:
    fields = {"conn_type": kind, "login": "nobody", "password": secrets.databases[kind], "schema": "erp", **where}
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(fields))
    assert witness.sees(open_staging, "erp_staging")
    assert witness.sees(stage, vendor.months[-1])
    assert witness.leaks() == []


DAG_FILE = """
from airflow.sdk import DAG
from airflow_cloudbilling.operators.api import ListRecordsOperator
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.sage import SageCreatePasscodeOperator

with DAG("all_vendors", schedule=None):
    for conn_id in {conn_ids}:
        which = {{"conn_id": conn_id, "staging_conn_id": "erp_staging", "period": "{month}"}}
        StageInvoicesOperator(task_id=f"stage_{{conn_id}}", **which)
    ListRecordsOperator(task_id="customers", conn_id="cloudonex_default", resource="customers")
    SageCreatePasscodeOperator(task_id="passcode", conn_id="sage_connected_cloud_default")
"""


@on_sqlite
def test_what_airflow_keeps_shows_none(
    vendor: Sandbox, secrets: Planted, witness: Witness, dags_folder: Path, run_dag: Callable[..., dict[str, Any]]
) -> None:
    file = dags_folder / "all_vendors.py"
    file.write_text(DAG_FILE.format(conn_ids=[f"{name}_default" for name in BILLING], month=vendor.months[-1]))
    results = run_dag(file)
    assert {"customers", "passcode", "stage_cloudonex_default"} <= results.keys()
    witness.sees(everything_of_airflow)
    assert witness.leaks() == []


@pytest.mark.slow
@on_sqlite
def test_what_lineage_and_metrics_tell_shows_none(
    vendor: Sandbox, secrets: Planted, witness: Witness, dags_folder: Path
) -> None:
    """Of tasks that end well, and of one whose vendor repeats its secrets in the error that lineage tells whole."""
    pytest.importorskip("airflow.providers.openlineage")
    own = {"cloudonex key": secrets.cloudonex.key}
    secrets.cloudonex.answer = echoing(own, secrets.redirect, 403, secrets.cloudonex)
    file = DAG_FILE.format(conn_ids=[f"{name}_default" for name in BILLING], month=vendor.months[-1])
    (dags_folder / "all_vendors.py").write_text(file)
    events, metrics = witness.folder / "events.jsonl", witness.folder / "metrics"
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, metrics.open("wb", buffering=0) as kept:
        server.bind(("127.0.0.1", 0))
        listening = threading.Thread(target=lambda: [*iter(lambda: kept.write(server.recv(4096) + b"\n"), 1)])
        listening.start()
        environment = {
            **os.environ,
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(server.getsockname()[1]),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        }
        command = [sys.executable, "-m", "airflow", "dags", "test", "all_vendors"]
        done = subprocess.run(command, env=environment, capture_output=True)
        server.sendto(b"", server.getsockname())  # an empty one is the last
        listening.join()
    (witness.folder / "output").write_bytes(done.stdout + done.stderr)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    ended = {one["job"]["name"].removeprefix("all_vendors."): one for one in told if one["eventType"] != "START"}
    assert ended["stage_twotcloud_default"]["eventType"] == "COMPLETE"
    assert ended["stage_twotcloud_default"]["inputs"]
    assert "403" in ended["stage_cloudonex_default"]["run"]["facets"]["errorMessage"]["stackTrace"]
    assert b"cloudbilling.requests.twotcloud:" in metrics.read_bytes()
    assert witness.leaks() == []


def everything_of_airflow() -> dict[str, Any]:
    """Return all rows of Airflow's database: XComs, rendered fields, asset events, logs …; Variables are encrypted."""
    path = staged.os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in names if name != "variable"}
    assert rows["xcom"]
    assert rows["rendered_task_instance_fields"]
    assert rows["asset_event"]
    return rows
