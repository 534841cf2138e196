"""Days that are not like others: leap days, year's ends, the hours of daylight saving, five years in any order."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from typing import Any

import pendulum
import pytest
from importing import connect, expected_sums, stage, staged_sums
from staged import Erp, dump

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.run_period import choose_period
from airflow_cloudbilling.sandbox.server import Sandbox

VENDORS = {"twotcloud": "purchase", "orange_cloudstore": "purchase", "cloudonex": "sales", "store365": "purchase"}
ZONES = [
    *("UTC", "Europe/Amsterdam", "America/New_York", "America/Sao_Paulo", "Africa/Casablanca", "Asia/Kathmandu"),
    *("Australia/Lord_Howe", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/St_Johns", "Asia/Beirut"),
]


@pytest.mark.parametrize("zone", ZONES)
def test_a_month_begins_at_midnight_where_the_task_lives(zone: str) -> None:
    for number in range(60):
        month = Period.month(2024, 1 + number)
        first = pendulum.datetime(month.start.year, month.start.month, 1, tz=zone)
        for moment, expected in ((first, month), (first.subtract(seconds=1), month.shifted(-1))):
            utc = moment.in_timezone("UTC")
            later = utc.add(hours=1)
            assert choose_period(None, None, (utc, later), zone).period == expected, moment
        point = first.add(days=2).in_timezone("UTC")  # a plain cron schedule: the last full month before it
        assert choose_period(None, None, (point, point), zone).period == month.shifted(-1)


def test_months_follow_each_other_without_gap_or_overlap() -> None:
    months = [Period.month(2023, number) for number in range(1, 121)]
    assert all(one.end == next_.start and one.shifted(1) == next_ for one, next_ in pairwise(months))
    assert Period.parse("2024-02").end.toordinal() - Period.parse("2024-02").start.toordinal() == 29
    assert Period.parse("2100-02").end.toordinal() - Period.parse("2100-02").start.toordinal() == 28


@pytest.mark.parametrize("month", ["2024-02", "2025-12"])
@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
def test_a_leap_february_and_a_december_are_whole(month: str, erp: Erp, monkeypatch: pytest.MonkeyPatch) -> None:
    first = date.fromisoformat(f"{month}-01")
    with Sandbox(months=2, invoices=10, last_month=first) as vendor:
        for name, kind in VENDORS.items():
            connect(vendor, monkeypatch, conn_id=f"{name}_default")
            stage(month, conn_id=f"{name}_default", kind=kind)
            assert staged_sums(erp, name, kind, month) == expected_sums(vendor.truth(name, kind, month)), name
        (asked,) = [seen.query for seen in vendor.requests if seen.path == "/v2/invoices"]
    assert asked["endDate"] == {"2024-02": "20240229", "2025-12": "20251231"}[month]


@pytest.mark.slow
def test_five_years_in_any_order_end_in_equal_tables(
    erp: Erp, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    hashes, vendors = set(), [*VENDORS] if erp.kind == "sqlite" else ["twotcloud"]
    with Sandbox(months=60, invoices=3, last_month=date(2026, 10, 1), rate_limit=10**6) as vendor:
        for name in vendors:
            connect(vendor, monkeypatch, conn_id=f"{name}_default")
        for seed in (0, 1):
            todo = [(month, name) for month in vendor.months for name in vendors]
            if seed:
                for table in ("invoice", "invoice_line", "invoice_tax", "slice_invoice", "document", "load", "request"):
                    erp.execute(f"DELETE FROM cloudbilling_{table}")
                random.Random(seed).shuffle(todo)
            for month, name in todo:
                stage(month, conn_id=f"{name}_default", kind=VENDORS[name])
            tables: dict[str, Any] = dump(erp, with_load=False)
            hashes.add(hashlib.sha256(json.dumps(tables, default=str).encode()).hexdigest())
            for month, name in random.Random(2).sample(todo, 12):
                truth = vendor.truth(name, VENDORS[name], month)
                assert staged_sums(erp, name, VENDORS[name], month) == expected_sums(truth)
    assert len(hashes) == 1
    record_property("months", 60 * len(vendors))
    record_property("invoices", len(tables["invoice"]))
