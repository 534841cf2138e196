"""Open findings go out through whatever notifier one has, and no vendor's text becomes a link or a mention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from airflow.sdk import BaseNotifier
from months import bill, bills, check, stage
from staged import Erp, open_staging, rows

from airflow_cloudbilling.notifications.findings import FindingsNotifier
from airflow_cloudbilling.provider_info import get_provider_info
from airflow_cloudbilling.staging.findings import accept

pytestmark = pytest.mark.each_database

FORMS = ("subject", "text", "slack", "html")


class Kept(BaseNotifier):
    """A notifier that keeps what it would send."""

    template_fields: Sequence[str] = ("text",)
    sent: ClassVar[list[str]] = []

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        self.sent.append(self.text)


@pytest.fixture(autouse=True)
def _nothing_sent() -> None:
    Kept.sent.clear()


def notifier(**more: Any) -> FindingsNotifier:
    forms = [Kept(f"{{{{ findings.{form} }}}}") for form in FORMS]
    return FindingsNotifier(**{"staging_conn_id": "erp_staging", "notifiers": forms, "period": "2026-10", **more})


def test_findings_are_told_in_each_form(erp: Erp) -> None:
    stage(erp, [*bill("<!channel>", currency="XX&"), *bills([2])])
    check(erp)
    notifier()({})
    subject, text, slack, html = Kept.sent
    assert subject == "Cloud billing 2026-10: 1 error and 0 warnings"
    assert "error unknown-currency, twotcloud 10001 purchase INV-<!channel>: expected a currency of ISO 4217" in text
    assert text.endswith("/cloudbilling/findings?staging=erp_staging&period=2026-10")
    assert "&lt;!channel&gt;" in slack
    assert "<!channel>" not in slack + html
    assert "XX&amp;" in html


def test_nobody_is_told_when_nothing_is_open(erp: Erp) -> None:
    stage(erp, bill(1, currency="XXX"))
    check(erp)
    found = [row[0] for row in rows(erp, "finding", "finding_id")]
    accept(open_staging(erp), found, "Ann", "a test")
    notifier()({})
    assert Kept.sent == []


def test_many_findings_are_counted_and_the_first_named(erp: Erp) -> None:
    stage(erp, [item for n in range(15) for item in bill(n, currency="XXX")])
    check(erp)
    notifier(most=3)({})
    assert Kept.sent[0] == "Cloud billing 2026-10: 15 errors and 0 warnings"
    assert Kept.sent[1].count("INV-") == 3
    assert "… and 12 more" in Kept.sent[1]


def test_a_notifier_is_used_again_and_again_with_the_month_of_its_task(erp: Erp) -> None:
    class Task:
        period = "2026-10"

    stage(erp, bill(1, currency="XXX"))
    check(erp)
    callback = notifier(period=None)
    callback({"task": Task})
    stage(erp, bill(2, currency="XXX"))
    check(erp)
    callback({"task": Task})
    assert "INV-1" in Kept.sent[1]
    assert "INV-2" in Kept.sent[5]


def test_airflow_finds_it_by_its_name() -> None:
    from airflow.sdk._shared.module_loading import import_string

    assert [import_string(one) for one in get_provider_info()["notifications"]] == [FindingsNotifier]
