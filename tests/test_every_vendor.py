"""What every import promises, whatever the vendor, its format and its way of authentication, on every database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from importing import INVOICE_SUMS, connect, expected_sums, stage, staged_sums
from staged import NAMED, Erp, dump, rows, statuses

from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sources import SOURCES


class Import(NamedTuple):
    """One way to import: the vendor, what of it, the connection's extra, and how the sandbox plays it."""

    provider: str
    kind: str
    extra: dict[str, Any]
    options: dict[str, Any]

    @property
    def conn_id(self) -> str:
        return f"{self.provider}_default"

    def __str__(self) -> str:
        how = [f"{name}={value}" for name, value in {**self.extra, **self.options}.items()]
        return "-".join([self.provider, self.kind, *how])


IMPORTS = [
    *(
        Import("twotcloud", kind, {"response_format": form}, {})
        for kind in ("purchase", "sales", "consolidated")
        for form in ("json", "xml")
    ),
    Import("orange_cloudstore", "purchase", {}, {"contracts": 3}),
    Import("orange_cloudstore", "purchase", {"contract_id": "OCB0001234"}, {"contracts": 1}),
    Import("orange_cloudstore", "usage", {}, {}),
    *(
        Import("cloudonex", kind, {"auth_mode": mode}, {"cloudonex_style": style})
        for kind in ("sales", "purchase")
        for mode in ("bearer", "query")
        for style in ("enveloped", "meta", "bare", "rows")
        if (mode, style) == ("query", "meta") or mode == "bearer"
    ),
    Import("cloudonex", "sales", {}, {"cloudonex_filters": False}),
    *(Import("store365", "purchase", {"response_format": form, "page_size": 5}, {}) for form in ("json", "xml")),
]


ONE_EACH = list({(way.provider, way.kind): way for way in IMPORTS}.values())
every_way = pytest.mark.parametrize("way", IMPORTS, ids=str)
one_way_each = pytest.mark.parametrize("way", ONE_EACH, ids=str)
on_servers = pytest.mark.parametrize("erp", NAMED, indirect=True)
in_a_file = pytest.mark.parametrize("erp", ["sqlite"], indirect=True)


@pytest.fixture
def playing(way: Import, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Play the vendor as the way says, and name it in its connection."""
    with Sandbox(months=2, **way.options) as sandbox:
        connect(sandbox, monkeypatch, conn_id=way.conn_id, **way.extra)
        yield sandbox


def test_every_vendor_kind_and_format_is_tried() -> None:
    tried = {(way.provider, way.kind) for way in IMPORTS}
    assert tried == {(source.conn_type, kind) for source in SOURCES.values() for kind in source.kinds}


@pytest.mark.thorough
@every_way
def test_every_sum_is_the_truth_and_again_nothing_is_written(way: Import, playing: Sandbox, erp: Erp) -> None:
    check_sums(way, playing, erp)


@one_way_each
@on_servers
def test_every_sum_is_the_truth_on_servers_too(way: Import, playing: Sandbox, erp: Erp) -> None:
    check_sums(way, playing, erp)


def check_sums(way: Import, playing: Sandbox, erp: Erp) -> None:
    """Import every month, compare with the truth, and import the last one again."""
    for month in playing.months:
        result = stage(month, conn_id=way.conn_id, kind=way.kind)
        truth = playing.truth(way.provider, way.kind, month)
        assert staged_sums(erp, way.provider, way.kind, month) == expected_sums(truth)
        assert result["invoices"] == sum(t.invoices for t in truth.values())
        assert result["lines"] == sum(t.lines for t in truth.values())
        totals = {c: {n: Decimal(a) for n, a in amounts.items()} for c, amounts in result["totals"].items()}
        billed = {} if way.kind == "usage" else truth
        unknown = {t[n] is None for s in result["slices"] for t in s["totals"].values() for n in ("tax", "gross")}
        assert unknown == {way.kind == "usage"}, "what nobody stated is not zero"
        assert totals == {c: {n: getattr(t, n) for n in INVOICE_SUMS} for c, t in billed.items()}

    before = dump(erp)
    again = stage(playing.months[-1], conn_id=way.conn_id, kind=way.kind)
    assert (again["new"], again["changed"], again["removed"]) == (0, 0, 0)
    assert again["unchanged"] == again["invoices"] > 0
    assert dump(erp) == before
    assert set(statuses(erp)) == {"committed"}


@one_way_each
@in_a_file
def test_nothing_secret_is_staged_told_or_logged(
    way: Import, playing: Sandbox, erp: Erp, tmp_path: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    result = stage(playing.months[-1], conn_id=way.conn_id, kind=way.kind, archive=str(tmp_path / "raw"))
    connection = playing.connections()[way.conn_id]
    secrets = [connection["password"], *(v for n, v in connection.get("extra", {}).items() if "key" in n)]
    printed = "".join(capfd.readouterr())
    for secret in filter(None, secrets):
        assert secret not in erp.everything() + json.dumps(result) + printed
    assert rows(erp, "request")


@one_way_each
@in_a_file
def test_what_changes_at_the_vendor_changes_in_staging(way: Import, playing: Sandbox, erp: Erp) -> None:
    month = playing.months[-1]
    stage(month, conn_id=way.conn_id, kind=way.kind)
    records = list(playing.records(way.provider, way.kind, month))
    playing.change("amount", vendor=way.provider, invoice_id=records[0].invoice_id)
    playing.change("withdraw", vendor=way.provider, invoice_id=records[1].invoice_id)
    playing.change("add", vendor=way.provider, kind=way.kind, month=month)
    result = stage(month, conn_id=way.conn_id, kind=way.kind)
    assert (result["new"], result["changed"], result["removed"]) == (1, 1, 1)
    truth = playing.truth(way.provider, way.kind, month)
    assert staged_sums(erp, way.provider, way.kind, month) == expected_sums(truth)
