"""Which period a task run means: its argument, else its partition, else its data interval."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import pendulum
from pendulum.tz.exceptions import InvalidTimezone

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period


class Chosen(NamedTuple):
    """A period, and in words where it comes from."""

    period: Period
    reason: str


def choose_period(
    given: str | None,
    partition_key: str | None,
    interval: tuple[datetime | None, datetime | None],
    timezone: str = "UTC",
) -> Chosen:
    """Return the period of a run.

    :param given: the task's own period; empty when it was left out or rendered empty.
    :param partition_key: of a partitioned run, ``YYYY-MM``.
    :param interval: start and end of the data interval, where there is one.
    :param timezone: in which calendar months are told, an IANA name.
    :raises ConfigurationError: when none of them names a period, or what they name is none.
    """
    zone = _zone(timezone)
    if given and given.strip() not in ("", "None"):  # Jinja renders a Param that is null as "None"
        return Chosen(Period.parse(given), "the task's period")
    if partition_key:
        return Chosen(_partition(partition_key), f"the run's partition {partition_key}")
    start, end = interval
    if start is None or end is None:
        raise ConfigurationError(
            "the run names no month: it has neither a partition nor a data interval. Give the task a period "
            '(period="2026-10"), or start the run with a logical date or a partition.',
            field="period",
        )
    local = pendulum.instance(start).in_timezone(zone)
    if start < end:
        return Chosen(Period.month(local.year, local.month), f"the month of the data interval's start, {start}")
    before = Period.month(local.year, local.month - 1)
    return Chosen(before, f"the last full calendar month before {start}, since the data interval has no length")


def _partition(key: str) -> Period:
    try:
        return Period.parse(key)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the run's partition key {key!r} is not a month (2026-10). Give the task a period, or let the timetable "
            'write keys with key_format="%Y-%m".',
            field="period",
        ) from error


def _zone(name: str) -> pendulum.Timezone:
    try:
        return pendulum.timezone(name)
    except InvalidTimezone:
        raise ConfigurationError(
            f"{name!r} is not a time zone; use an IANA name such as Europe/Paris.", field="timezone"
        ) from None
