"""The example DAGs, run by Airflow against the sandbox: what is staged, for which month, and what is told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from told import asset_events

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.plugins.cloudbilling import last_full_month

EXAMPLES = Path(__file__).parents[1] / "example_dags"
MONTHLY = EXAMPLES / "monthly_invoice_import.py"
KINDS = ("purchase", "sales")
IMPORTS = {
    "twotcloud_default": KINDS,
    "orange_cloudstore_default": ("purchase",),
    "cloudonex_default": ("sales", "purchase"),
    "store365_default": ("purchase",),
}


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(EXAMPLES)


Sums = dict[tuple[str, str, str, str], tuple[int, Decimal]]


def staged_sums(path: Path) -> Sums:
    """Return (vendor, kind, month, currency) → invoices and their gross sum, as staged."""
    sums: Sums = {}
    with sqlite3.connect(path) as connection:
        for provider, kind, period, currency, gross in connection.execute(
            "SELECT provider, kind, slice_period, currency, gross_amount FROM cloudbilling_invoice"
        ):
            key = (provider, kind, Period.parse(period).key, currency)
            count, total = sums.get(key, (0, Decimal(0)))
            sums[key] = (count + 1, total + Decimal(gross))
    return sums


def true_sums(vendor: Any, *months: str, providers: tuple[str, ...] = ("twotcloud",)) -> Sums:
    """Return the same from the sandbox's books."""
    return {
        (provider, kind, month, currency): (truth.invoices, truth.gross)
        for provider in providers
        for kind in IMPORTS[f"{provider}_default"]
        for month in months
        for currency, truth in vendor.truth(provider, kind, month).items()
    }


@pytest.fixture
def vendor(vendor: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Leave one vendor's connection: whatever holds for it holds for the others."""
    for conn_id in IMPORTS.keys() - {"twotcloud_default"}:
        monkeypatch.delenv(f"AIRFLOW_CONN_{conn_id.upper()}")
    return vendor


@pytest.mark.matrix
def test_every_example_parses(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == {
        "backfill_year",
        "invoices_ready_then_import",
        "margin_report",
        "month_close",
        "month_close_deadline",
        "monthly_invoice_import",
        "restage_from_archive",
        "sage_notified",
        "sage_scope",
        "sage_upload",
    }
    assert [str(warning.message) for warning in bag.captured_warnings.get(str(EXAMPLES), [])] == []


def test_every_dag_says_what_to_set_up_and_what_to_do_when_it_fails(bag):
    for dag in bag.dags.values():
        assert dag.description
        for lead in ("**To set up**:", "**By hand**:", "**When a task fails**:"):
            assert lead in dag.doc_md, dag.dag_id


def test_every_field_of_a_form_has_a_title_and_a_description(bag):
    fields = [(dag.dag_id, name, dag.params.get_param(name)) for dag in bag.dags.values() for name in dag.params]
    assert len(fields) > 8
    lacking = [(dag_id, name) for dag_id, name, one in fields if not (one.description and one.schema.get("title"))]
    assert lacking == []


def test_one_may_only_look_at_what_an_import_would_change(vendor, staging, run_dag):
    month = vendor.months[-1]
    result = run_dag(MONTHLY, period=month, dry_run=True)["preview"]
    assert {name: counts["new"] for name, counts in result.items()} == {
        f"twotcloud_default {kind}": sum(truth.invoices for truth in vendor.truth("twotcloud", kind, month).values())
        for kind in KINDS
    }
    assert staging.stat().st_size == 0  # not even a table was made


def test_only_the_vendors_that_are_asked_for_are_imported(cloudbilling_sandbox, staging, run_dag, monkeypatch):
    for name, value in cloudbilling_sandbox.environment().items():
        monkeypatch.setenv(name, value)
    last = cloudbilling_sandbox.months[-1]
    run_dag(MONTHLY, period=last, lookback_months=0, connections=["store365_default"])
    assert staged_sums(staging) == true_sums(cloudbilling_sandbox, last, providers=("store365",))


def test_every_import_has_its_asset(bag):
    tasks = bag.dags["monthly_invoice_import"].tasks
    outlets = {task.task_id: [asset.uri for asset in task.outlets] for task in tasks if task.outlets}
    assert outlets == {
        f"stage_{conn_id}_{kind}": [f"cloudbilling://{conn_id}/{kind}"]
        for conn_id, kinds in IMPORTS.items()
        for kind in kinds
    }


@pytest.mark.matrix
def test_a_partition_stages_its_month_and_the_one_before(vendor, staging, run_dag):
    before, last = vendor.months[-2:]
    results = run_dag(MONTHLY, partition_key=last)
    assert staged_sums(staging) == true_sums(vendor, before, last)
    for kind in KINDS:
        (main,) = results[f"stage_twotcloud_default_{kind}"]["slices"]
        assert Period.parse(main["period"]) == Period.parse(last)
        ((earlier,),) = [result["slices"] for result in results[f"look_back_twotcloud_default_{kind}"]]
        assert Period.parse(earlier["period"]) == Period.parse(before)


def test_every_vendor_whose_connection_exists_is_imported(cloudbilling_sandbox, staging, run_dag, monkeypatch):
    for name, value in cloudbilling_sandbox.environment().items():
        monkeypatch.setenv(name, value)
    last = cloudbilling_sandbox.months[-1]
    run_dag(MONTHLY, partition_key=last, lookback_months=0)
    providers = tuple(conn_id.removesuffix("_default") for conn_id in IMPORTS)
    assert staged_sums(staging) == true_sums(cloudbilling_sandbox, last, providers=providers)


def test_each_month_staged_is_told_under_its_own_partition(vendor, staging, run_dag):
    before, last = vendor.months[-2:]
    known = asset_events()
    run_dag(MONTHLY, partition_key=last)
    told = asset_events()[len(known) :]
    assert sorted((uri, key) for uri, key, _ in told) == [
        (f"cloudbilling://twotcloud_default/{kind}", month) for kind in KINDS for month in (before, last)
    ]
    for uri, month, extra in told:
        (stated,) = extra["slices"]
        assert (stated["kind"], Period.parse(stated["period"]).key) == (uri.rsplit("/")[-1], month)


def test_a_month_asked_for_by_hand_wins(vendor, staging, run_dag):
    first = vendor.months[0]
    run_dag(MONTHLY, partition_key=vendor.months[-1], period=first, lookback_months=0)
    assert staged_sums(staging) == true_sums(vendor, first)


def test_a_run_by_hand_without_a_month_takes_the_last_full_one(vendor, staging, run_dag):
    run_dag(MONTHLY, lookback_months=0)
    assert staged_sums(staging) == true_sums(vendor, last_full_month(datetime.now(timezone.utc)))


def test_looking_back_finds_what_came_late(vendor, staging, run_dag):
    before, last = vendor.months[-2:]
    run_dag(MONTHLY, partition_key=before, lookback_months=0)
    vendor.change("add", kind="purchase", month=before)
    results = run_dag(MONTHLY, partition_key=last)
    (earlier,) = results["look_back_twotcloud_default_purchase"]
    assert (earlier["new"], earlier["changed"], earlier["removed"]) == (1, 0, 0)
    assert staged_sums(staging) == true_sums(vendor, before, last)


def test_a_month_is_restaged_from_the_archive_without_the_vendor(vendor, staging, run_dag, tmp_path, monkeypatch):
    month = vendor.months[-1]
    monkeypatch.setenv("AIRFLOW_VAR_CLOUDBILLING_ARCHIVE", str(tmp_path / "raw"))
    run_dag(MONTHLY, period=month, lookback_months=0)
    asked = len(vendor.requests)
    result = run_dag(EXAMPLES / "restage_from_archive.py", period=month)["restage"]
    assert (result["unchanged"], result["new"], result["changed"]) == (result["invoices"], 0, 0)
    assert len(vendor.requests) == asked
    assert staged_sums(staging) == true_sums(vendor, month)


def test_a_year_is_backfilled_month_by_month_each_under_its_own_partition(vendor, staging, run_dag):
    known = asset_events()
    results = run_dag(EXAMPLES / "backfill_year.py", last=vendor.months[-1], count=len(vendor.months))
    assert staged_sums(staging) == true_sums(vendor, *vendor.months)
    for kind in KINDS:
        periods = [result["slices"][0]["period"] for result in results[f"stage_twotcloud_default_{kind}"]]
        assert [Period.parse(period).key for period in periods] == vendor.months
    told = {(uri, key) for uri, key, _ in asset_events()[len(known) :]}
    expected = {(f"cloudbilling://twotcloud_default/{kind}", month) for kind in KINDS for month in vendor.months}
    assert told in (expected, set())  # Airflow 3.2 cannot name another partition; then none is told
    again = run_dag(EXAMPLES / "backfill_year.py", last=vendor.months[-1], count=2)
    assert [result["new"] for result in again["stage_twotcloud_default_sales"]] == [0, 0]


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("return [Period", "raise ValueError('no such month')\n        return [Period", "the task months failed"),
        ('("twotcloud_default", "sales")', '("absent", "sales")', "2 months have no result: absent sales 20"),
    ],
)
def test_a_backfill_of_which_something_failed_fails_and_says_what(
    vendor, staging, dags_folder, capsys, wrong, right, said
):
    from airflow.dag_processing.dagbag import DagBag

    text = (EXAMPLES / "backfill_year.py").read_text()
    assert wrong in text
    (dags_folder / "backfill.py").write_text(text.replace(wrong, right).replace("minutes=10", "seconds=0"))
    (dag,) = DagBag(dags_folder / "backfill.py").dags.values()
    run = dag.test(run_conf={"last": vendor.months[-1], "count": 2})
    assert run.state == "failed"
    assert said in capsys.readouterr().out


def test_the_margin_of_a_month_is_reported(vendor, staging, run_dag, tmp_path, monkeypatch):
    month = vendor.months[-1]
    monkeypatch.setenv("AIRFLOW_VAR_CLOUDBILLING_REPORTS", str(tmp_path))
    run_dag(MONTHLY, period=month, lookback_months=0)
    result = run_dag(EXAMPLES / "margin_report.py", partition_key=month)["margin"]
    sold = {c: truth.line_net for c, truth in vendor.truth("twotcloud", "sales", month).items()}
    names = ("sales", "sold_only", "sold_otherwise")
    assert {c: sum(Decimal(sums[n]) for n in names) for c, sums in result["totals"].items()} == sold
    assert sorted(path.name for path in tmp_path.glob("margin*")) == [f"margin-{month}.csv", f"margin-{month}.md"]


def test_what_is_ready_is_imported(vendor, staging, run_dag):
    month = vendor.months[-1]
    result = run_dag(EXAMPLES / "invoices_ready_then_import.py", partition_key=month)["stage"]
    purchases = {key: sums for key, sums in true_sums(vendor, month).items() if key[1] == "purchase"}
    assert staged_sums(staging) == purchases
    assert result["invoices"] == sum(count for count, _ in purchases.values())


def test_a_month_that_is_none_is_refused(vendor, staging, run_dag):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises((ParamValidationError, ValueError), match="2026-13"):
        run_dag(MONTHLY, period="2026-13")
    assert vendor.requests == []


def test_airflows_own_command_runs_it(vendor, staging):
    before, last = vendor.months[-2:]
    command = [sys.executable, "-m", "airflow", "dags", "test", "monthly_invoice_import"]
    done = subprocess.run(
        [*command, "--conf", f'{{"period": "{last}"}}'], env=os.environ.copy(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert staged_sums(staging) == true_sums(vendor, before, last)
    passwords = {connection["password"] for connection in vendor.connections().values()}
    assert not any(password in done.stdout + done.stderr for password in passwords)
