"""A month's close in a real Airflow: how it is started, answered and compared with the truth."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from real_airflow import ROOT, RealAirflow, until
from staged import Erp

from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox

# What is changed of the examples: nothing waits for long.
SOON = {"poll_interval=30": "poll_interval=5", "timedelta(minutes=10)": "timedelta(seconds=1)"}


def example(name: str, changed: Mapping[str, str]) -> str:
    """Return the source of an example DAG, with some of it changed."""
    source = (ROOT / "example_dags" / f"{name}.py").read_text()
    for own, instead in changed.items():
        assert own in source
        source = source.replace(own, instead)
    return source


@contextmanager
def kept(sandbox: Sandbox) -> Iterator[list[bytes]]:
    """Keep every file that Sage receives; it does not accept one at once."""
    received = list[bytes]()
    sage = sandbox.vendors["sage_connected_cloud"]
    assert isinstance(sage, Sage)
    sage.statuses = ["in review", "accepted"]
    keep = sage.shelf.keep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sage.shelf, "keep", lambda upload, content: (received.append(content), keep(upload, content)))
        yield received


class MonthClose:
    """An Airflow with imports and the example's close, the vendors, and what the ERP and Sage have got.

    :param imports: each a vendor and which of its invoices are imported.
    :param received: the files that Sage has received so far.
    """

    def __init__(
        self,
        airflow: RealAirflow,
        sandbox: Sandbox,
        erp: Erp,
        imports: Sequence[tuple[str, str]],
        received: list[bytes],
    ) -> None:
        self.airflow = airflow
        self.sandbox = sandbox
        self.erp = erp
        self.imported = imports
        self.received = received

    def ended(self, dag_id: str, run_id: str) -> str:
        """Wait for the end of a run, and return its state."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        return str(until(lambda: (state := self.airflow.call("GET", path)["state"]) in ("success", "failed") and state))

    def closes(self, month: str) -> list[str]:
        """Return the runs that close a month, the oldest first."""
        return [*self.airflow.runs("month_close", month)]

    def asked(self, run_id: str) -> str:
        """Wait until a person is asked, and return the question."""
        words = ("Received executor event with state success", "task_id='approve'", run_id)
        # Airflow 3.3.2 fails a task that is answered before the scheduler has noticed that it waits.
        until(lambda: any(all(word in line for word in words) for line in self.airflow.printed("scheduler")))
        (found,) = self.airflow.call("GET", f"/api/v2/dags/month_close/dagRuns/{run_id}/hitlDetails")["hitl_details"]
        return str(found["body"])

    def answer(self, run_id: str, option: str) -> None:
        """Answer, as Airflow's UI does."""
        path = f"/api/v2/dags/month_close/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
        self.airflow.call("PATCH", path, {"chosen_options": [option], "params_input": {}})

    def states(self, run_id: str) -> dict[str, str]:
        return self.airflow.states("month_close", run_id)

    def told(self, run_id: str, task_id: str) -> str:
        """Return the log of a task."""
        logs = self.airflow.home.rglob(f"run_id={run_id}/task_id={task_id}/*.log")
        return "".join(file.read_text() for file in logs)

    def result(self, run_id: str, task_id: str) -> Any:
        path = f"/api/v2/dags/month_close/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.airflow.call("GET", path)["value"]

    def true_totals(self, month: str) -> dict[str, dict[str, Decimal]]:
        """Return what a month's invoices of every vendor and kind come to, by currency."""
        sums: dict[str, Counter[str]] = {}
        for vendor, kind in self.imported:
            for currency, truth in self.sandbox.truth(vendor, kind, month).items():
                own = sums.setdefault(currency, Counter())
                own.update({"net": truth.net, "tax": truth.tax, "gross": truth.gross})
        return {currency: dict(own) for currency, own in sums.items()}

    def true_sales(self, *months: str) -> dict[str, tuple[int, Decimal]]:
        """Return how many sales invoices there are, and what their lines come to, by currency."""
        sums: dict[str, tuple[int, Decimal]] = {}
        for month in months:
            for vendor in (vendor for vendor, kind in self.imported if kind == "sales"):
                for currency, truth in self.sandbox.truth(vendor, "sales", month).items():
                    count, net = sums.get(currency, (0, Decimal(0)))
                    sums[currency] = count + truth.invoices, net + truth.line_net
        return sums

    def sent_sales(self, since: int = 0) -> dict[str, tuple[int, Decimal]]:
        """Return the same of what Sage has received.

        :param since: how many files to leave out.
        """
        sums: dict[str, tuple[int, Decimal]] = {}
        for content in self.received[since:]:
            for order in json.loads(content, parse_float=Decimal, parse_int=Decimal):
                count, net = sums.get(order["currency"], (0, Decimal(0)))
                own = sum((line["netAmount"] for line in order["lines"]), Decimal(0))
                sums[order["currency"]] = count + 1, net + own
        return sums
