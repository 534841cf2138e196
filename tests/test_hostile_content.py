"""What vendors should never send: read as it is meant, rejected by its field, or refused in words; nothing else."""

from __future__ import annotations

import json
import os
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from conversations import Case, cases
from hostile import NUMBERS, TEXTS, mutations, written
from importing import connect, stage
from parsers import check
from staged import Erp, rows
from test_faults_http import WAYS, Way
from test_parse import LAUGHS

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.model import Reject
from airflow_cloudbilling.sandbox.server import Sandbox

THOROUGH = "CLOUDBILLING_TEST_THOROUGH" in os.environ
JSON = [case for case in cases(broken=False) if case.body()[:1] in (b"{", b"[")]


def name_of(case: Case) -> str:
    return f"{case.folder.parent.name}/{case.folder.name}"


@pytest.mark.thorough
@pytest.mark.parametrize("case", JSON, ids=name_of)
def test_any_value_anywhere_is_read_rejected_or_refused_in_words(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    read = rejected = refused = 0
    for path, other, body in mutations(case.body(), 200 if THOROUGH else 10, len(case.folder.name)):
        began = time.monotonic()
        try:
            found, said = case.play(body)[1], ""
            check(found)
        except CloudBillingError as error:
            said = str(error)
            refused += 1
        except FileNotFoundError:  # it asks for another page, which nobody has recorded
            found, said = [], ""
        assert (said.isprintable(), len(said) < 1000) == (True, True), (path, other)
        assert time.monotonic() - began < 5, (path, other)
        if said:
            continue
        bad = sum(isinstance(item, Reject) for item in found)
        rejected, read = rejected + bool(bad), read + (not bad)
    for what, count in (("read", read), ("rejected", rejected), ("refused", refused)):
        record_property(what, count)


@pytest.mark.parametrize("number", NUMBERS[:9], ids=lambda text: text[:24])
def test_a_number_that_no_database_holds_rejects_its_invoice_alone(
    number: Any, vendor: Sandbox, staging: Path, tmp_path: Path
) -> None:
    bills = [bill("X-1", 1), bill("X-2", number), bill("X-3", 3)]
    vendor.serve("/v2/invoices", written({"Invoices": bills}))
    result = stage("2026-10", on_reject="quarantine")
    assert (result["invoices"], result["rejected"]) == (2, 1)
    erp = Erp("sqlite", tmp_path)
    erp.connection["host"] = str(staging)
    ((reason,),) = rows(erp, "reject", "reason")
    assert "net_amount" in reason


def bill(invoice_id: str, amount: Any, **header: Any) -> dict[str, Any]:
    """Return an invoice as 2tCloud sends it."""
    named = {"InvoiceID": invoice_id, "Date": "2026-10-05", "Currency": "EUR", "Type": "Invoice", **header}
    return {"Header": named, "Customers": [], "Totals": {"TotalExclVAT": amount, "TotalInclVAT": amount}}


@pytest.mark.parametrize("amount", ["1.00", "\nERROR forged \x1b[31m"], ids=["good", "unreadable"])
def test_texts_of_vendors_are_kept_as_they_are_and_forge_no_line_of_a_log(
    amount: str, vendor: Sandbox, erp: Erp, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    bills = [bill(f"X-{n}{text[:50]}", amount, CustomerName=text, Number=text) for n, text in enumerate(TEXTS)]
    vendor.serve("/v2/invoices", json.dumps({"Invoices": bills}))
    staged = amount == "1.00"
    told = ""
    if staged:
        assert stage("2026-10")["invoices"] == len(TEXTS)
        assert len(rows(erp, "invoice")) == len(TEXTS)
    else:
        with pytest.raises(AirflowFailException) as failed:
            stage("2026-10")
        told = str(failed.value)
        assert "Totals.TotalExclVAT" in told
        assert len(rows(erp, "reject")) == len(TEXTS)
    told += "".join(capfd.readouterr()) + caplog.text
    assert not re.search(r"^\s*(ERROR|2026-10-05 CRITICAL) forged", told, re.MULTILINE)
    assert "\x1b[31m" not in told


BLOW_UP = '<!DOCTYPE o [<!ENTITY a "' + "x" * 50_000 + '">]><Invoices>' + "&a;" * 50_000 + "</Invoices>"
BOMBS = {
    "laughs": LAUGHS,
    "quadratic blow-up": BLOW_UP,
    "a file of this machine": '<!DOCTYPE o [<!ENTITY a SYSTEM "file:///etc/passwd">]><Invoices>&a;</Invoices>',
    "deep XML": "<Invoices>" + "<a>" * 200_000,
    "deep JSON": '{"Invoices": ' + "[" * 500_000,
    "deep objects": '{"Invoices": [' + '{"a": ' * 500_000,
    "a long name": '{"' + "x" * 5_000_000,
    "a long number": '{"Invoices": [{"Header": {"InvoiceID": ' + "1" * 5_000_000 + "}}]}",
    "many attributes": "<Invoices><Invoice " + " ".join(f'a{n}="1"' for n in range(100_000)) + "/></Invoices>",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("way", [*WAYS[:2], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[2:])], ids=str)
def test_a_bomb_is_refused_in_little_time_and_memory(
    way: Way, bomb: str, monkeypatch: pytest.MonkeyPatch, staging: Path
) -> None:
    with Sandbox(months=1) as vendor:
        connect(vendor, monkeypatch, conn_id=f"{way.vendor}_default", max_attempts=1, **way.extra)
        own = vendor.vendors[way.vendor]
        body = BOMBS[bomb].encode()

        def answer(request: Any) -> Any:
            right = type(own).answer(own, request)
            token = "token" in request.path
            return right if token else type(right)(200, (body,), right.content_type, right.headers)

        own.answer = answer
        began = time.monotonic()
        tracemalloc.start()
        try:
            with pytest.raises(Exception, match=way.vendor):
                stage(vendor.months[0], conn_id=f"{way.vendor}_default")
            assert tracemalloc.get_traced_memory()[1] < 60_000_000
        finally:
            tracemalloc.stop()
        assert time.monotonic() - began < 20
