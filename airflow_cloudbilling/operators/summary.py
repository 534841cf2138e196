"""What an import says at its end: the result for XCom and asset events, and a line for the log."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.exact import canonical, exact_sum

if TYPE_CHECKING:
    from airflow_cloudbilling.staging.loader import Loaded

COUNTS = ("invoices", "lines", "new", "changed", "unchanged", "removed", "rejected", "frozen", "documents")


def result_of(loaded: Sequence[Loaded]) -> dict[str, Any]:
    """Return the loads as plain data: one entry a slice, and counts and totals over all of them.

    What usage comes to is billed by invoices, so it is no part of the totals.
    """
    slices = [one.as_dict() for one in loaded]
    counts = {name: sum(s[name] for s in slices) for name in COUNTS}
    return {"slices": slices, **counts, "totals": add_totals([s["totals"] for s in slices if s["kind"] != "usage"])}


def add_totals(totals: Sequence[dict[str, dict[str, str | None]]]) -> dict[str, dict[str, str | None]]:
    """Add totals by currency, to the last digit; an amount that nobody stated stays None."""
    sums: dict[str, dict[str, Decimal | None]] = {}
    for total in totals:
        for currency, amounts in total.items():
            known = sums.setdefault(currency, {})
            for name, amount in amounts.items():
                if amount is None:
                    known.setdefault(name, None)
                else:
                    known[name] = exact_sum(known.get(name) or Decimal(0), Decimal(amount))
    return {c: {name: _text(a) for name, a in amounts.items()} for c, amounts in sorted(sums.items())}


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else canonical(amount)


def summary_line(loaded: Loaded, seconds: float) -> str:
    """Return one line that says what a load did, in numbers."""
    m, s = loaded.merged, loaded.slice
    known = {c: [f"{amount} {name}" for name, amount in t.items() if amount is not None] for c, t in m.totals.items()}
    totals = ", ".join(f"{currency} {' '.join(amounts)}" for currency, amounts in known.items()) or "none"
    return (
        f"{s.provider} account {s.account} {s.kind} {s.period.key} {loaded.status}: {m.invoices} invoices with "
        f"{m.lines} lines staged ({m.new} new, {m.changed} changed, {m.unchanged} unchanged, {m.removed} removed, "
        f"{m.frozen} frozen, {loaded.rejected} rejected) in {seconds:.1f} s; totals: {totals}. Load {loaded.load_id}."
    )
