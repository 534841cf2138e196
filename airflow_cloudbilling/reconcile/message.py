"""A month's open findings as a message: for mail, for Slack, and for anything that takes text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.findings import OpenFinding
from airflow_cloudbilling.reconcile.report import named


def message_of(
    period: Period, counts: Mapping[tuple[str, str], int], first: Sequence[OpenFinding], address: str
) -> dict[str, Any]:
    """Return the message in each form, and what it is made of.

    :param counts: (severity, rule) → number.
    :param first: the findings that are named.
    :param address: where all of them are shown.
    :returns: ``subject``, ``text``, ``slack`` (its mrkdwn), ``html``, and ``period``, ``errors``, ``warnings``,
        ``address``.
    """
    errors, warnings = (sum(n for (one, _), n in counts.items() if one == kind) for kind in ("error", "warning"))
    subject = f"Cloud billing {period.key}: {_number(errors, 'error')} and {_number(warnings, 'warning')}"
    rules = [f"{severity} {rule}: {count}" for (severity, rule), count in counts.items()]
    names = [named(one) for one in first]
    left = errors + warnings - len(names)
    names += [f"… and {left} more"] if left > 0 else []
    heads, items = [_slack(one) for one in rules], [f"• {_slack(one)}" for one in names]
    listed = "".join(f"<li>{escape(one)}</li>" for one in names)
    return {
        "subject": subject,
        "text": "\n".join((subject, "", *rules, "", *names, "", address)),
        "slack": "\n".join((f"*{_slack(subject)}*", *heads, *items, f"<{address}|Open the findings>")),
        "html": f"<p><b>{escape(subject)}</b></p><p>{'<br>'.join(map(escape, rules))}</p><ul>{listed}</ul>"
        f'<p><a href="{escape(address)}">Open the findings</a></p>',
        "period": period.key,
        "errors": errors,
        "warnings": warnings,
        "address": address,
    }


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _slack(text: str) -> str:
    """Return text that Slack shows as it is: no link, no mention of anybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
