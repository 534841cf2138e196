"""How long X-RateLimit-… headers ask to keep quiet: epoch or span, past, absurd or garbage."""

from __future__ import annotations

import pytest

from airflow_cloudbilling.sources.rate_limit import budget, reset_after

NOW = 1_792_195_200.0  # Sat, 17 Oct 2026 00:00:00 GMT
DATE = {"date": "Sat, 17 Oct 2026 00:00:00 GMT"}


def reset(value: str, **headers: str) -> float | None:
    return reset_after({"x-ratelimit-reset": value, **headers}, longest=3600, now=lambda: NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (f"{NOW + 90:.0f}", 90),
        (f"{NOW + 90:.0f}.5", 90.5),
        (f"{(NOW + 90) * 1000:.0f}", 90),
        (" 30 ", 30),
        ("0.5", 0.5),
        ("Sat, 17 Oct 2026 00:02:00 GMT", 120),
        (f"{NOW - 5:.0f}", 0),
        ("-7", 0),
        ("0", 0),
        (f"{NOW + 10**6:.0f}", 3600),
        ("99999999", 3600),
        ("9" * 20, 3600),
        ("soon", None),
        ("", None),
        ("9" * 400, None),
        ("NaN", None),
        ("1e3", None),
        ("١٢", None),
    ],
)
def test_a_reset_is_an_epoch_a_span_or_a_date_and_is_clamped(value: str, seconds: float | None) -> None:
    assert reset(value) == seconds


def test_a_moment_counts_from_the_replys_own_date() -> None:
    headers = {"x-ratelimit-reset": f"{NOW + 90:.0f}", **DATE}
    assert reset_after(headers, now=lambda: NOW + 5000) == 90
    assert reset_after({**headers, "date": "yesterday"}, now=lambda: NOW + 80) == 10


@pytest.mark.parametrize(
    ("left", "seconds"),
    [("0", 30), ("-1", 30), ("0.0", 30), ("1", None), ("999", None), ("none", None), ("", None)],
)
def test_no_request_while_nothing_remains(left: str, seconds: float | None) -> None:
    assert budget({"x-ratelimit-remaining": left, "x-ratelimit-reset": "30"}) == seconds


def test_what_says_no_more_than_zero_asks_for_no_wait() -> None:
    assert budget({"x-ratelimit-remaining": "0"}) is None
    assert budget({"x-ratelimit-reset": "30"}) is None


def test_retry_after_wins_and_is_clamped_too() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30", "retry-after": "7"}
    assert budget(headers) == 7
    assert budget({**headers, "retry-after": "100000"}, longest=60) == 60
