"""Airflow's metrics, by vendor: told when something has ended, from what was counted on the way anyway.

Each goes out with tags, and as Airflow's own do, unless ``[metrics] legacy_names_on`` is off, also under a name that
holds them, for a StatsD without tags: ``cloudbilling.requests`` and ``cloudbilling.requests.twotcloud``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.configuration import conf

if TYPE_CHECKING:
    from airflow_cloudbilling.http.transport import Counters
    from airflow_cloudbilling.staging.results import Loaded

_PREFIX = "cloudbilling"


def count_requests(vendor: str, done: Counters) -> None:
    """Tell what a client has done.

    :param vendor: connection type.
    """
    _tell({"requests": done.requests, "retries": done.retries}, {"waits": done.waited}, vendor=vendor)


def count_load(loaded: Loaded, seconds: float) -> None:
    """Tell what a load has staged, and how long it took with the vendor's time in it.

    :param seconds: of this load.
    """
    merged, slice_ = loaded.merged, loaded.slice
    counts = {"invoices": merged.invoices, "rows": merged.invoices + merged.lines}
    _tell(counts, {"duration": seconds}, vendor=slice_.provider, kind=slice_.kind)


def _tell(counts: Mapping[str, int], seconds: Mapping[str, float], **tags: str) -> None:
    from airflow.sdk.observability.stats import Stats  # a class since Airflow 3.2, and on 3.3 beside functions

    for name, count in counts.items():
        if count:
            _under_each_name(Stats.incr, name, count, tags)
    for name, duration in seconds.items():
        if duration:
            _under_each_name(Stats.timing, name, timedelta(seconds=duration), tags)


def _under_each_name(tell: Callable[..., Any], name: str, value: Any, tags: Mapping[str, str]) -> None:
    tell(f"{_PREFIX}.{name}", value, tags=tags)
    if conf.getboolean("metrics", "legacy_names_on", fallback=True):
        tell(".".join((_PREFIX, name, *tags.values())), value)
