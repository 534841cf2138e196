"""A reconciled month in words: one screen for a log, a question for a person, and the whole as Markdown or HTML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import chain

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.reconcile.arithmetic import money
from airflow_cloudbilling.reconcile.closes import APPROVED
from airflow_cloudbilling.reconcile.findings import OpenFinding
from airflow_cloudbilling.reconcile.summary import Summary
from airflow_cloudbilling.staging.columns import TOTALS
from airflow_cloudbilling.stylesheet import STYLE

_COLUMNS = ("vendor", "kind", "currency", "invoices", "lines", *TOTALS, "posted")
_LEFT = 3  # columns that are text
_ROWS = 24  # of the table, on one screen
BODY = 4000  # characters of a question: Airflow cuts longer fields where it shows them
_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head><body>
"""


def screen(summary: Summary) -> str:
    """Return what a controller wants to see, on one screen."""
    rows = list(_rows(summary))
    shown = [_COLUMNS, *rows[:_ROWS]]
    widths = [max(len(row[n]) for row in shown) for n in range(len(_COLUMNS))]
    table = ["  ".join(_padded(row, widths)).rstrip() for row in shown]
    if len(rows) > _ROWS:
        table.append(f"… and {len(rows) - _ROWS} rows more")
    found = [f"{severity:8} {rule}: {count}" for (severity, rule), count in summary.counts.items()]
    listed = [named(one) for one in summary.first]
    return "\n".join(
        (f"Month {summary.period.key}, close {summary.close.close_id}", *table, *found, *listed, _do(summary))
    )


def question(summary: Summary, most: int = BODY) -> str:
    """Return, as Markdown, what a person is asked to approve: what is in the close, and what was found.

    :param most: characters; what does not fit is counted.
    """
    close = summary.close
    head = [
        f"**{summary.period.key}**: {_findings(summary)}. What is approved is exactly this set; what is posted already"
        " is not sent again.",
        "",
    ]
    foot = ["", f"Close `{close.close_id}`, SHA-256 `{close.sha256}`"]
    counted = [f"* {severity} `{rule}`: {count}" for (severity, rule), count in summary.counts.items()]
    table = list(_markdown_table(_COLUMNS, _rows(summary)))
    names = [f"* {_markdown(named(one))}" for one in summary.first]
    return "\n".join((*head, *_fitting([*table, "", *counted, *names], most - len("\n".join(head + foot)) - 40), *foot))


def report(summary: Summary, findings: Iterable[OpenFinding], location: str) -> Iterator[str]:
    """Yield the whole report, with every open finding; the location's suffix decides on the format.

    :raises ConfigurationError: when it is neither ``.md`` nor ``.html``.
    """
    suffix = location.rpartition(".")[2].lower()
    if suffix in ("md", "markdown"):
        return _markdown_report(summary, findings)
    if suffix in ("html", "htm"):
        return _html_report(summary, findings)
    raise ConfigurationError(f"{location!r} ends neither in .md nor in .html.", field="report")


def _rows(summary: Summary) -> Iterator[tuple[str, ...]]:
    for (provider, kind, currency), one in summary.sums.items():
        amounts = (getattr(one, name) for name in TOTALS)
        texts = ("unknown" if amount is None else money(amount, currency).partition(" ")[0] for amount in amounts)
        yield provider, kind, currency or "none", f"{one.invoices}", f"{one.lines}", *texts, f"{one.frozen}"


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        value.ljust(width) if n < _LEFT else value.rjust(width)
        for n, (value, width) in enumerate(zip(row, widths, strict=True))
    ]


def _findings(summary: Summary) -> str:
    errors, warnings = summary.found("error"), summary.found("warning")
    return f"{errors} errors and {warnings} warnings" if errors or warnings else "no findings"


def _where(one: OpenFinding) -> str:
    return " ".join(part for part in (one.provider, one.account, one.kind, one.invoice_id) if part)


def named(one: OpenFinding) -> str:
    """Return a finding in one line."""
    return f"{one.severity} {one.rule}, {_where(one)}: expected {one.expected}, is {one.actual} [{one.finding_id}]"


def _do(summary: Summary) -> str:
    """Return what to do next."""
    if not summary.counts:
        state = "was approved" if summary.close.status == APPROVED else "may be approved"
        return f"No findings: every sum agrees. The month {state}."
    return (
        f"{_findings(summary).capitalize()}. Mend each at the vendor or in its mapping and import again, or accept it"
        " with AcceptFindingOperator; then reconcile again. All stand in cloudbilling_finding."
    )


def _fitting(lines: list[str], most: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        most -= len(line) + 1
        if most < 0:
            yield f"\n… and {len(lines) - number} lines more"
            return
        yield line


def _markdown(text: str) -> str:
    """Return text that Markdown shows as it is, in one cell or line."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _markdown_table(names: Sequence[str], rows: Iterable[Sequence[str]], left: int = _LEFT) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield f"| {' | '.join('---' if n < left else '---:' for n in range(len(names)))} |"
    for row in rows:
        yield f"| {' | '.join(map(_markdown, row))} |"


_FINDING = ("severity", "rule", "where", "expected", "actual", "what to do", "finding")


def _cells(one: OpenFinding) -> tuple[str, ...]:
    texts = (one.expected or "", one.actual or "", one.message or "", one.finding_id)
    return one.severity, one.rule, _where(one), *texts


def _markdown_report(summary: Summary, findings: Iterable[OpenFinding]) -> Iterator[str]:
    close = summary.close
    head = (f"# Month {summary.period.key}", "", _do(summary), "")
    foot = ("", f"Close `{close.close_id}` ({close.status}), SHA-256 `{close.sha256}`")
    listed = _markdown_table(_FINDING, map(_cells, findings), len(_FINDING)) if summary.counts else ()
    table = _markdown_table(_COLUMNS, _rows(summary))
    return (f"{line}\n" for line in chain(head, table, ("",), listed, foot))


def _html_report(summary: Summary, findings: Iterable[OpenFinding]) -> Iterator[str]:
    title, close = f"Month {summary.period.key}", summary.close
    yield _HTML.format(title=title, style=STYLE)
    yield f"<h1>{title}</h1>\n<p>{escape(_do(summary))}</p>\n"
    yield from _html_table(_COLUMNS, ((row, "") for row in _rows(summary)), _LEFT)
    if summary.counts:
        yield from _html_table(_FINDING, ((_cells(one), one.severity) for one in findings), len(_FINDING))
    yield f"<p>Close <code>{close.close_id}</code> ({escape(close.status)}), SHA-256 <code>{close.sha256}</code></p>\n"
    yield "</body></html>\n"


def _html_table(names: Sequence[str], rows: Iterable[tuple[Sequence[str], str]], left: int) -> Iterator[str]:
    def line(tag: str, values: Sequence[str]) -> str:
        classes = ("" if n < left else ' class="n"' for n in range(len(values)))
        return "".join(f"<{tag}{one}>{escape(value)}</{tag}>" for one, value in zip(classes, values, strict=True))

    yield f"<table><tr>{line('th', names)}</tr>\n"
    for values, kind in rows:
        yield f'<tr class="{escape(kind)}">{line("td", values)}</tr>\n'
    yield "</table>\n"
