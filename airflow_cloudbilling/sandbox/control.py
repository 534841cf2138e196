"""The sandbox's own endpoints under ``/_sandbox/``: faults, changes, states of vendors, requests seen, truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.sandbox.faults import from_json
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming

if TYPE_CHECKING:
    from airflow_cloudbilling.sandbox.server import Sandbox

PREFIX = "/_sandbox/"


def text(value: Any) -> str:
    """Return JSON with exact decimals as strings."""
    return json.dumps(value, default=_plain)


def answer(sandbox: Sandbox, request: Incoming) -> Answer:
    """Answer a control request: 200 with JSON, or 400 with what is wrong in words."""
    handlers: dict[str, Callable[[], Any]] = {
        "GET faults": sandbox.faults.state,
        "POST faults": lambda: sandbox.faults.add(*from_json(json.loads(request.body))),
        "DELETE faults": sandbox.clear_faults,
        "POST change": lambda: {"invoice_id": sandbox.change(**json.loads(request.body))},
        "GET state": lambda: sandbox.vendors[request.query["vendor"]].state(),
        "POST steer": lambda: _steered(sandbox, **json.loads(request.body)),
        "GET requests": lambda: [seen._asdict() for seen in sandbox.requests],
        "GET truth": lambda: list(truth_table(sandbox, **request.query)),
    }
    handler = handlers.get(f"{request.method} {request.path[len(PREFIX) :]}")
    if handler is None:
        return Answer.text(404, f"The sandbox itself answers: {', '.join(handlers)} under {PREFIX}.")
    try:
        return Answer(200, (text(handler()).encode(),), "application/json")
    except (ValueError, TypeError, KeyError) as error:
        return Answer.text(400, f"{type(error).__name__}: {error}")


def truth_table(
    sandbox: Sandbox, vendor: str | None = None, kind: str | None = None, month: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield one row for each vendor, kind and month: invoices, lines, and by currency the sums; filters narrow it."""
    months = sandbox.months
    every = ((one.name, its, key) for one in sandbox.vendors.values() for its in one.prefixes for key in months)
    for row in every:
        if all(wanted in (None, given) for wanted, given in zip((vendor, kind, month), row, strict=True)):
            sums = sandbox.truth(*row)
            yield {
                **dict(zip(("vendor", "kind", "month"), row, strict=True)),
                "invoices": sum(one.invoices for one in sums.values()),
                "lines": sum(one.lines for one in sums.values()),
                "totals": {currency: one._asdict() for currency, one in sums.items()},
            }


def _steered(sandbox: Sandbox, vendor: str, **changes: Any) -> dict[str, Any]:
    return sandbox.vendors[vendor].steer(**changes)


def _plain(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
