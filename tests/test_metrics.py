"""What an import tells Airflow's metrics, as a StatsD server on this machine receives it."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from importing import connect, stage
from staged import Erp

from airflow_cloudbilling.errors import UnavailableError
from airflow_cloudbilling.operators.api import ListRecordsOperator


class StatsD:
    """A server that Airflow's own client is set up for, as a worker does it when it starts a task."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.2)
        self.monkeypatch = monkeypatch
        self.set(statsd_on="True", statsd_host="127.0.0.1", statsd_port=str(self.socket.getsockname()[1]))

    def set(self, **options: str) -> None:
        """Change Airflow's settings of metrics."""
        from airflow.sdk.observability.metrics import stats_utils
        from airflow.sdk.observability.stats import Stats

        for name, value in options.items():
            self.monkeypatch.setenv(f"AIRFLOW__METRICS__{name.upper()}", value)
        if "export_legacy_names" in inspect.signature(Stats.initialize).parameters:
            Stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
        else:  # of Airflow 3.2
            Stats.initialize(factory=stats_utils.get_stats_factory(Stats))

    def told(self) -> dict[str, list[str]]:
        """Return what came since: name → values with their types."""
        found: dict[str, list[str]] = {}
        try:
            while True:
                name, _, value = self.socket.recv(4096).decode().partition(":")
                found.setdefault(name, []).append(value)
        except TimeoutError:
            return found


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsD]:
    """Run a server, and leave Airflow without one."""
    server = StatsD(monkeypatch)
    yield server
    server.set(statsd_on="False")
    server.socket.close()


def ms(values: list[str]) -> float:
    (value,) = values
    assert value.endswith("|ms")
    return float(value.removesuffix("|ms"))


def test_an_import_is_counted_by_vendor_and_kind_in_names_too(vendor: Any, staging: Any, statsd: StatsD) -> None:
    result = stage(vendor.months[-1], kind="sales")
    told, rows = statsd.told(), result["invoices"] + result["lines"]
    counts = {"requests": (len(vendor.requests), "twotcloud"), "invoices": (result["invoices"], "twotcloud.sales"),
              "rows": (rows, "twotcloud.sales")}  # fmt: skip
    for name, (count, own) in counts.items():
        assert told.pop(f"airflow.cloudbilling.{name}") == [f"{count}|c"]
        assert told.pop(f"airflow.cloudbilling.{name}.{own}") == [f"{count}|c"]
    assert (
        0
        < ms(told.pop("airflow.cloudbilling.duration"))
        == ms(told.pop("airflow.cloudbilling.duration.twotcloud.sales"))
    )
    assert told == {}  # nothing was tried again, nothing waited for


def test_a_server_with_tags_gets_tags(vendor: Any, staging: Any, statsd: StatsD) -> None:
    statsd.set(statsd_influxdb_enabled="True", legacy_names_on="False")
    result = stage(vendor.months[-1])
    told = statsd.told()
    assert told["airflow.cloudbilling.invoices,vendor=twotcloud,kind=purchase"] == [f"{result['invoices']}|c"]
    assert sorted(name.partition(",")[0].rpartition(".")[2] for name in told) == [
        "duration", "invoices", "requests", "rows",
    ]  # fmt: skip


def test_what_was_tried_again_and_waited_for_is_counted(vendor: Any, staging: Any, statsd: StatsD) -> None:
    vendor.inject("status", status=429, headers={"Retry-After": "1"})
    stage(vendor.months[-1])
    told = statsd.told()
    assert told["airflow.cloudbilling.requests.twotcloud"] == ["2|c"]
    assert told["airflow.cloudbilling.retries.twotcloud"] == ["1|c"]
    assert ms(told["airflow.cloudbilling.waits.twotcloud"]) >= 1000


def test_an_import_that_fails_has_sent_requests_and_staged_nothing(
    vendor: Any, staging: Any, statsd: StatsD, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(vendor, monkeypatch, max_attempts=2)
    vendor.inject("status", status=503, headers={"Retry-After": "0"}, times=None)
    with pytest.raises(UnavailableError):
        stage(vendor.months[-1])
    told = statsd.told()
    assert told["airflow.cloudbilling.requests"] == ["2|c"]
    assert "airflow.cloudbilling.invoices" not in told


def test_calls_are_counted_and_nothing_names_a_connection_or_a_secret(vendor: Any, statsd: StatsD, erp: Erp) -> None:
    ListRecordsOperator(task_id="list", conn_id="cloudonex_default", resource="customers").execute({})
    stage(vendor.months[-1], conn_id="store365_default")
    told = statsd.told()
    assert {"airflow.cloudbilling.requests.cloudonex", "airflow.cloudbilling.requests.store365"} <= told.keys()
    secrets = {str(fields.get("password")) for fields in vendor.connections().values()}
    assert not [name for name in told if "default" in name or any(secret in name for secret in secrets)]
