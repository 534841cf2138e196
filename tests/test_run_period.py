"""Which month a run means."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.run_period import choose_period

NOWHERE = (None, None)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("given", "partition", "interval", "expected"),
    [
        ("2026-10", "2026-08", (moment("2026-05-01"), moment("2026-06-01")), "2026-10"),
        ("2026-10-01/2026-11-01", None, NOWHERE, "2026-10"),
        ("2026-10-15/2026-11-15", None, NOWHERE, "2026-10-15/2026-11-15"),
        (None, "2026-08", (moment("2026-05-01"), moment("2026-06-01")), "2026-08"),
        ("", "2026-08", NOWHERE, "2026-08"),
        ("None", "2026-08", NOWHERE, "2026-08"),
        (None, None, (moment("2026-05-01"), moment("2026-06-01")), "2026-05"),
        (None, None, (moment("2026-05-03"), moment("2026-05-04")), "2026-05"),
        (None, None, (moment("2026-11-01"),) * 2, "2026-10"),
        (None, None, (moment("2026-11-15"),) * 2, "2026-10"),
        (None, None, (moment("2026-01-01"),) * 2, "2025-12"),
    ],
)
def test_period_then_partition_then_interval(
    given: str | None, partition: str | None, interval: tuple[datetime | None, datetime | None], expected: str
) -> None:
    assert choose_period(given, partition, interval).period.key == expected


def test_months_are_told_in_the_tasks_time_zone() -> None:
    start = moment("2026-09-30T22:00:00")  # midnight of 1 October in Amsterdam
    interval = (start, start + timedelta(days=31))
    assert choose_period(None, None, interval).period.key == "2026-09"
    assert choose_period(None, None, interval, "Europe/Amsterdam").period.key == "2026-10"


@pytest.mark.parametrize(
    ("given", "partition", "zone", "said"),
    [
        (None, None, "UTC", "names no month"),
        (None, "eu-west", "UTC", "partition key 'eu-west'"),
        ("October", None, "UTC", "'October' is not a month"),
        ("2026-11-01/2026-10-01", None, "UTC", "half-open range"),
        ("2026-02-30/2026-03-01", None, "UTC", "half-open range"),
    ],
)
def test_what_names_no_month_is_an_error_that_says_what_to_do(
    given: str | None, partition: str | None, zone: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        choose_period(given, partition, NOWHERE, zone)


def test_an_unknown_time_zone_is_named() -> None:
    with pytest.raises(ConfigurationError, match="Mars/Olympus"):
        choose_period(None, None, (moment("2026-05-01"),) * 2, "Mars/Olympus")


def test_periods_run_over_the_years_end() -> None:
    assert Period.month(2026, 13) == Period.parse("2027-01")
    assert Period.parse("2026-01").shifted(-1).key == "2025-12"
    assert str(Period.parse("2026-12")) == "2026-12-01/2027-01-01"
