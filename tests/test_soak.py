"""Two years of five vendors in one process, a twentieth of the answers broken: nothing grows, the books are right."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import date

import psutil
import pytest
from importing import connect, expected_sums, stage, staged_sums
from staged import Erp, rows, statuses
from test_faults_http import MENDED, fired, mixed
from test_time import VENDORS
from uploading import ADDRESS, DEFAULTS, Task, upload

from airflow_cloudbilling.sandbox.server import Sandbox

MONTHS = 24
WARM = 6  # months after which everything is imported and every cache is full
THERE = {**ADDRESS, "country": "NL"}
COMPLETE = {**DEFAULTS, "deliveryAddress": THERE, "invoiceAddress": THERE}
GROWN = 15_000_000  # bytes that a process may take up within its noise


def used() -> tuple[int, int]:
    """Return the memory and the open files and connections of this process, the sandbox in it included."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss, process.num_fds()


@pytest.mark.slow
@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
def test_two_years_of_five_vendors_with_faults_leave_nothing_behind(
    erp: Erp, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "")
    with Sandbox(months=MONTHS, last_month=date(2026, 10, 1), rate_limit=10**6) as vendor:
        for name in (*VENDORS, "sage_connected_cloud"):
            connect(vendor, monkeypatch, conn_id=f"{name}_default", max_attempts=20)
        # what creates something at Sage and ends in doubt waits for a person, see test_uploads_kill.py
        mixed(vendor, tuple({**fault, "method": "GET"} for fault in MENDED), 0.05)
        sage, sent, before = vendor.vendors["sage_connected_cloud"], 0, (0, 0)
        for number, month in enumerate(vendor.months, 1):
            for name, kind in VENDORS.items():
                stage(month, conn_id=f"{name}_default", kind=kind)
            stage(month, kind="sales")
            told = upload(Task(f"run-{month}"), period=month, defaults=COMPLETE)
            assert (told["status"], told["rejected"]) == ("accepted", 0)
            sent += told["accepted"]
            if number == WARM:
                before = used()
        after = used()
        assert after[0] - before[0] < GROWN
        assert after[1] <= before[1] + 2
        for name, kind in VENDORS.items():
            for month in vendor.months:
                assert staged_sums(erp, name, kind, month) == expected_sums(vendor.truth(name, kind, month))
        assert set(statuses(erp)) == {"committed"}
        assert sent == len(rows(erp, "upload_item", "invoice_id", "status = 'accepted'"))
        assert set(sage.records.values()) == {1}
        record_property("months", MONTHS * 5)
        record_property("requests", len(vendor.requests))
        record_property("faults", fired(vendor))
        record_property("bytes grown after the sixth month", max(0, after[0] - before[0]))
        record_property("more open files", after[1] - before[1])
