"""A clean month of every vendor and kind gives no finding, on every database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest
from importing import INVOICE_SUMS, connect, stage
from staged import Erp, open_staging, rows
from test_every_vendor import ONE_EACH, Import

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.month import Scope, reconcile
from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = pytest.mark.each_database


@pytest.fixture
def playing(way: Import, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Play the vendor as the way says, and name it in its connection."""
    with Sandbox(months=3, invoices=24, **way.options) as sandbox:
        connect(sandbox, monkeypatch, conn_id=way.conn_id, **way.extra)
        yield sandbox


@pytest.mark.parametrize("way", ONE_EACH, ids=str)
def test_a_clean_month_gives_no_finding(way: Import, playing: Sandbox, erp: Erp) -> None:
    for month in playing.months:
        stage(month, conn_id=way.conn_id, kind=way.kind)
        summary = reconcile(open_staging(erp), Scope(Period.parse(month)))
        assert (dict(summary.counts), list(summary.first)) == ({}, [])
        assert rows(erp, "finding") == []
        truth = playing.truth(way.provider, way.kind, month) if way.kind != "usage" else {}
        sums = {currency: one for (_, _, currency), one in summary.sums.items()}
        assert sums.keys() == truth.keys()
        for currency, one in truth.items():
            assert (sums[currency].invoices, sums[currency].lines) == (one.invoices, one.lines)
            assert [getattr(sums[currency], n) for n in INVOICE_SUMS] == [one.net, one.tax, one.gross]
        assert all(Decimal(a) == getattr(truth[c], n) for c, t in totals(erp).items() for n, a in t.items())


def totals(erp: Erp) -> dict[str, dict[str, str]]:
    """Return the totals of the close that was written last."""
    (text,) = erp.query("SELECT totals FROM cloudbilling_close ORDER BY created_at DESC")[0]
    return dict(json.loads(text))
