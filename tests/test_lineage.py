"""Where data came from and went, as OpenLineage's own provider makes events of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from months import SEPTEMBER, bill, bills
from months import stage as load
from staged import Erp
from uploading import DEFAULTS, operator
from uploading import stage as stage_sales

from airflow_cloudbilling.hooks.lineage import of_file, of_staging, of_vendor
from airflow_cloudbilling.operators.export import ExportFocusOperator, ExportInvoiceOperator
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.margin import MarginReportOperator
from airflow_cloudbilling.operators.reconcile import ReconcileInvoicesOperator
from airflow_cloudbilling.operators.restage import RestageInvoicesOperator
from airflow_cloudbilling.operators.sage import SageDownloadScopeOperator
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.staging.engine import Database
from airflow_cloudbilling.staging.tables import tables

TABLES = tables()


@pytest.mark.parametrize(
    ("fields", "schema", "namespace", "name"),
    [
        ({"conn_type": "postgres", "host": "db", "schema": "erp"}, None, "postgres://db:5432", "erp.public.{}"),
        ({"conn_type": "postgres", "host": "db", "port": 6543, "schema": "erp", "password": "s3cret"}, "billing",
         "postgres://db:6543", "erp.billing.{}"),
        ({"conn_type": "mysql", "host": "db", "schema": "erp", "login": "me"}, None, "mysql://db:3306", "erp.{}"),
        ({"conn_type": "mysql", "host": "db", "schema": "erp"}, "billing", "mysql://db:3306", "billing.{}"),
        ({"conn_type": "sqlite", "host": "/data/erp.db"}, None, "sqlite:///data/erp.db", "{}"),
    ],
)  # fmt: skip
def test_a_table_has_openlineages_name(fields: dict[str, Any], schema: str | None, namespace: str, name: str) -> None:
    found = of_staging(Database("erp_staging", **fields), tables(schema).invoice)
    assert (found.namespace, found.name) == (namespace, name.format("cloudbilling_invoice"))
    assert found.uri == f"{namespace}/{found.name.replace('.', '/')}"


@pytest.mark.parametrize(
    ("address", "namespace"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("https://me:s3cret@api.example.com:8443/base?key=s3cret", "https://api.example.com:8443"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
    ],
)
def test_a_vendor_is_its_host_and_nothing_else(address: str, namespace: str) -> None:
    found = of_vendor(Settings("c", "twotcloud", address), "1000123", "sales")
    assert (found.namespace, found.name) == (namespace, "twotcloud/1000123/sales")


@pytest.mark.parametrize(
    ("address", "namespace", "name"),
    [
        ("s3://aws_default@bucket/focus/2026-10.csv", "s3://bucket", "focus/2026-10.csv"),
        ("gs://bucket/x.csv", "gs://bucket", "x.csv"),
        ("file:///data/x.csv", "file", "/data/x.csv"),
        ("/data/x.csv", "file", "/data/x.csv"),
    ],
)
def test_a_file_has_openlineages_name(address: str, namespace: str, name: str) -> None:
    assert of_file(address) == (namespace, name, None)


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tokens and API keys in files: outside a task there are no Variables."""
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))


Event = dict[str, dict[str, Any]]


def told(task: Any, state: str = "success") -> dict[str, Event]:
    """Return what OpenLineage's provider makes of a task: inputs and outputs, name → dataset with its facets."""
    extractors = pytest.importorskip("airflow.providers.openlineage.extractors.manager")
    from airflow.utils.state import TaskInstanceState
    from openlineage.client.serde import Serde

    run: Any = SimpleNamespace(run_id="run-1")
    found = extractors.ExtractorManager().extract_metadata(run, task, TaskInstanceState(state), None)
    plain = {"inputs": found.inputs, "outputs": found.outputs}
    return {
        side: {f"{one['namespace']} {one['name']}": one for one in (json.loads(Serde.to_json(d)) for d in datasets)}
        for side, datasets in plain.items()
    } | {"run": json.loads(json.dumps({k: Serde.to_dict(v) for k, v in found.run_facets.items()}))}


def rows_in(datasets: Event) -> dict[str, int | None]:
    """Return the rows that each dataset tells of."""
    facets = {name: {**one.get("inputFacets", {}), **one.get("outputFacets", {})} for name, one in datasets.items()}
    return {
        name: next((own[f]["rowCount"] for f in ("inputStatistics", "outputStatistics") if f in own), None)
        for name, own in facets.items()
    }


def staged_in(erp: Erp, *names: str) -> list[str]:
    """Return the names that staging tables have in events."""
    fields = {name: value for name, value in erp.connection.items() if name != "extra"}
    found = [of_staging(Database("erp_staging", **fields), getattr(TABLES, name)) for name in names]
    return [f"{one.namespace} {one.name}" for one in found]


def importing(vendor: Any, **arguments: Any) -> StageInvoicesOperator:
    names = {"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", "kind": "sales"}
    return StageInvoicesOperator(task_id="stage", period=vendor.months[-1], **{**names, **arguments})


def test_an_import_leads_from_the_vendor_to_the_tables_with_their_rows(vendor: Any, erp: Erp) -> None:
    task = importing(vendor)
    result = task.execute({})
    found = told(task)
    account = vendor.connections()["twotcloud_default"]["login"]
    assert rows_in(found["inputs"]) == {f"{vendor.url} twotcloud/{account}/sales": result["slices"][0]["received"]}
    invoices, lines = staged_in(erp, "invoice", "invoice_line")
    assert rows_in(found["outputs"]) == {
        invoices: result["invoices"],
        lines: result["lines"],
        "cloudbilling://twotcloud_default sales": None,
    }
    columns = {one["name"]: one for one in found["outputs"][invoices]["facets"]["schema"]["fields"]}
    assert columns["net_amount"]["type"] == "NUMERIC"
    assert columns["net_amount"]["description"].startswith("BT-109")
    assert list(columns) == [one.name for one in TABLES.invoice.columns]


def test_several_accounts_are_several_inputs_and_one_table(vendor: Any, staging: Path) -> None:
    task = importing(vendor, conn_id="orange_cloudstore_default", kind="purchase")
    result = task.execute({})
    found = told(task)
    assert len(found["inputs"]) == len(result["slices"])
    assert (
        sum(n or 0 for name, n in rows_in(found["outputs"]).items() if name.endswith("_invoice")) == result["invoices"]
    )
    assert (
        sum(n or 0 for name, n in rows_in(found["outputs"]).items() if name.endswith("_document"))
        == result["documents"]
    )


def test_before_it_starts_an_import_says_where_it_will_read_and_write(vendor: Any, staging: Path) -> None:
    found = told(importing(vendor), "running")
    account = vendor.connections()["twotcloud_default"]["login"]
    assert rows_in(found["inputs"]) == {f"{vendor.url} twotcloud/{account}/sales": None}
    assert [name.rpartition("_")[2] for name in found["outputs"]] == ["invoice", "line"]
    assert not staging.exists()
    assert vendor.requests == []


def test_an_import_that_failed_says_what_it_would_have_written(vendor: Any, erp: Erp) -> None:
    vendor.inject("status", status=403)
    task = importing(vendor)
    with pytest.raises(AirflowFailException):
        task.execute({})
    assert rows_in(told(task, "failed")["outputs"]) == dict.fromkeys(staged_in(erp, "invoice", "invoice_line"))


def test_a_replay_comes_from_the_archive(vendor: Any, staging: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "raw")
    importing(vendor, archive=archive).execute({})
    names = {"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", "kind": "sales"}
    task = RestageInvoicesOperator(task_id="again", period=vendor.months[-1], archive=archive, **names)
    result = task.execute({})
    assert rows_in(told(task)["inputs"]) == {f"file {archive}": result["slices"][0]["received"]}


def test_a_month_that_was_checked_says_which_rules_did_not_hold(erp: Erp) -> None:
    load(erp, bills([2]), SEPTEMBER)
    load(erp, bill(1, currency="XXX"))

    def checked() -> tuple[Event, list[dict[str, Any]]]:
        task = ReconcileInvoicesOperator(
            task_id="reconcile", staging_conn_id="erp_staging", period="2026-10", fail_on="never"
        )
        task.execute({})
        inputs = told(task)["inputs"]
        (facet,) = [one["inputFacets"]["dataQualityAssertions"] for one in inputs.values()
                    if "dataQualityAssertions" in one.get("inputFacets", {})]  # fmt: skip
        return inputs, facet["assertions"]

    inputs, found = checked()
    invoices, lines, taxes = staged_in(erp, "invoice", "invoice_line", "invoice_tax")
    assert rows_in(inputs) == {invoices: 1, lines: 2, taxes: None}
    assert ("unknown-currency", False) in [(one["assertion"], one["success"]) for one in found]
    load(erp, bills([1]))
    assert [(one["assertion"], one["success"]) for one in checked()[1]] == [("every rule", True)]


def test_exports_lead_from_the_tables_to_their_files(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    month = vendor.months[-1]
    importing(vendor).execute({})
    where = {"staging_conn_id": "erp_staging", "period": month, "destination": str(tmp_path)}
    focus = ExportFocusOperator(task_id="focus", kind="sales", **where)
    result = focus.execute({})
    found = told(focus)
    assert list(found["inputs"]) == staged_in(erp, "invoice", "invoice_line", "invoice_tax")
    assert rows_in(found["outputs"]) == {
        f"file {tmp_path}/{name}/sales-{month}.csv": kept["rows"] for name, kept in result["datasets"].items()
    }
    margin = MarginReportOperator(task_id="margin", **where)
    margin.execute({})
    assert sorted(told(margin)["outputs"]) == [f"file {tmp_path}/margin-{month}.{end}" for end in ("csv", "md")]
    invoices = ExportInvoiceOperator(task_id="invoices", require="nothing", **where)
    result = invoices.execute({})
    folder, report = told(invoices)["outputs"].values()
    assert folder["outputFacets"]["outputStatistics"]["fileCount"] == result["complete"] + result["incomplete"]
    assert report["name"].endswith(f"sales-{month}-gaps.csv")


def test_an_upload_leads_from_the_tables_to_sage_by_its_own_id(vendor: Any, erp: Erp) -> None:
    stage_sales(erp)
    task = operator()
    result = task.execute({})
    found = told(task)
    assert list(found["inputs"]) == staged_in(erp, "invoice", "invoice_line")
    assert rows_in(found["outputs"]) == {f"{vendor.url} sage_connected_cloud/scope/Orders": 5}
    query = found["run"]["externalQuery"]
    assert (query["externalQueryId"], query["source"]) == (result["tracking_id"], vendor.url)


def test_a_dry_run_and_a_file_of_ones_own_are_told_as_such(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    stage_sales(erp)
    assert told(operator(dry_run=True), "running")["outputs"] == {}
    own = operator(source=str(tmp_path / "orders.json"), period=None)
    assert list(told(own, "running")["inputs"]) == [f"file {tmp_path}/orders.json"]


def test_a_scope_leads_from_sage_to_its_table_and_file(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    task = SageDownloadScopeOperator(
        task_id="products", scope="Products", staging_conn_id="erp_staging", destination=str(tmp_path / "p.json")
    )
    records = task.execute({})["records"]
    found = told(task)
    assert rows_in(found["inputs"]) == {f"{vendor.url} sage_connected_cloud/scope/Products": records}
    (table,) = staged_in(erp, "scope_record")
    assert rows_in(found["outputs"]) == {table: records, f"file {tmp_path}/p.json": records}


def test_without_openlineage_everything_runs(vendor: Any, staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("openlineage", "airflow.providers.openlineage"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("openlineage", "airflow.providers.openlineage"):
        monkeypatch.setitem(sys.modules, name, None)
    assert importing(vendor).execute({})["invoices"] > 0


DAG_FILE = f"""
from airflow.sdk import DAG, chain, task

from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.reconcile import ReconcileInvoicesOperator
from airflow_cloudbilling.operators.sage import SageUploadOperator
from airflow_cloudbilling.source import Ask

month = {{"staging_conn_id": "erp_staging", "period": "MONTH"}}

with DAG("traced"):

    @task
    def by_hand() -> int:
        ask = Ask("sales", Period.parse("MONTH"), account="1000123")
        return sum(1 for _ in BillingHook("twotcloud_default").invoices(ask))

    @task
    def afterwards() -> None:
        pass

    stage = StageInvoicesOperator(task_id="stage", conn_id="twotcloud_default", kind="sales", **month)
    reconcile = ReconcileInvoicesOperator(task_id="reconcile", fail_on="never", **month)
    sage = {{"conn_id": "sage_connected_cloud_default", "defaults": {DEFAULTS!r}}}
    upload = SageUploadOperator(task_id="upload", **sage, **month)
    chain(by_hand(), stage, afterwards(), reconcile, upload)
"""


@pytest.mark.processes
def test_airflow_emits_events_of_operators_and_of_what_hooks_have_read(
    vendor: Any, staging: Path, dags_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("airflow.providers.openlineage")
    (dags_folder / "traced.py").write_text(DAG_FILE.replace("MONTH", vendor.months[-1]))
    events = tmp_path / "events.jsonl"
    environment = {name: value for name, value in os.environ.items() if "CREDENTIAL_STORE" not in name}  # Airflow's own
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "test", "traced"],
        env={**environment, "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    complete = {one["job"]["name"]: one for one in map(json.loads, events.read_text().splitlines())
                if one["eventType"] == "COMPLETE"}  # fmt: skip
    by_vendor = f"{vendor.url} twotcloud/1000123/sales"

    def names(task_id: str, side: str) -> list[str]:
        return [f"{one['namespace']} {one['name']}" for one in complete[f"traced.{task_id}"][side]]

    assert names("by_hand", "inputs") == [by_vendor]
    tables = [f"sqlite://{staging} cloudbilling_{name}" for name in ("invoice", "invoice_line")]
    assert names("stage", "outputs") == [*tables, "cloudbilling://twotcloud_default sales"]
    statistics = [
        one["outputFacets"]["outputStatistics"]["rowCount"] for one in complete["traced.stage"]["outputs"][:2]
    ]
    assert statistics[0] == sum(
        truth.invoices for truth in vendor.truth("twotcloud", "sales", vendor.months[-1]).values()
    )
    assert names("upload", "outputs") == [f"{vendor.url} sage_connected_cloud/scope/Orders"]
    assert names("reconcile", "inputs")[:2] == tables
    passwords = {fields["password"] for fields in vendor.connections().values()}
    assert not any(password in events.read_text() for password in passwords)


PLUGIN = """
from airflow.sdk.lineage import HookLineageReader
from airflow.sdk.plugins_manager import AirflowPlugin

class Catalogue(AirflowPlugin):
    name = "catalogue"
    hook_lineage_readers = [HookLineageReader]
"""
IMPORTING = """
import hashlib, io, json, sys
from airflow.sdk.lineage import HookLineageReader
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

StageInvoicesOperator(
    task_id="stage", conn_id="twotcloud_default", staging_conn_id="erp_staging", kind="sales", period=sys.argv[1]
).execute({})
sage, orders = SageConnectedCloudHook(), b"[]"
sage.download_scope("Products").body.close()
digest = hashlib.sha256(orders).hexdigest()
sage.upload("Orders", io.BytesIO(orders), name="orders.json", size=len(orders), sha256=digest)
found = HookLineageReader().retrieve_hook_lineage()
print(json.dumps([[(one.asset.uri, one.asset.extra) for one in side] for side in (found.inputs, found.outputs)]))
"""


def test_a_catalogue_of_ones_own_gets_vendor_and_tables_by_hook_lineage(
    vendor: Any, staging: Path, tmp_path: Path
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "catalogue.py").write_text(PLUGIN)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, vendor.months[-1]],
        env={
            **os.environ,
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
            "PYTHONPATH": os.pathsep.join(sys.path),  # where the store of keys is
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    truth = vendor.truth("twotcloud", "sales", vendor.months[-1]).values()
    invoices, lines = (sum(getattr(one, name) for one in truth) for name in ("invoices", "lines"))
    account = vendor.connections()["twotcloud_default"]["login"]
    assert json.loads(done.stdout.splitlines()[-1]) == [
        [
            ["cloudbilling://twotcloud_default/sales", {"account": account, "records": invoices}],
            ["cloudbilling://sage_connected_cloud_default/scope/Products", {}],
        ],
        [
            [f"sqlite:{staging}/cloudbilling_invoice", {"rows": invoices}],  # as Airflow writes sqlite://{staging}
            [f"sqlite:{staging}/cloudbilling_invoice_line", {"rows": lines}],
            ["cloudbilling://sage_connected_cloud_default/scope/Orders", {}],
        ],
    ]
