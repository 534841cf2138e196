"""Two plain tables that peers load an invoice and its lines into, and how a vendor's records become their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

Record = dict[str, Any]
Row = tuple[Any, ...]


class Plain(NamedTuple):
    """A table.

    :param key: the first columns, together unique.
    :param others: column → amount, day or text.
    """

    name: str
    key: dict[str, str]
    others: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """Return the names of all columns."""
        return [*self.key, *self.others]


INVOICE = Plain(
    "plain_invoice",
    {"invoice_id": "code"},
    {
        "invoice_number": "text",
        "document_type": "text",
        "issue_date": "day",
        "due_date": "day",
        "currency": "text",
        "buyer_id": "text",
        "buyer_name": "text",
        "net_amount": "amount",
        "tax_amount": "amount",
        "gross_amount": "amount",
        "status": "text",
    },
)
LINE = Plain(
    "plain_invoice_line",
    {"invoice_id": "code", "line_number": "number"},
    {
        "line_id": "text",
        "item_code": "text",
        "description": "text",
        "quantity": "amount",
        "unit": "text",
        "unit_price": "amount",
        "discount": "amount",
        "net_amount": "amount",
        "tax_rate": "amount",
        "tax_amount": "amount",
        "period_start": "day",
        "period_end": "day",
        "subscription_id": "text",
        "customer_id": "text",
        "customer_name": "text",
        "charge_type": "text",
    },
)


class Api(NamedTuple):
    """How a vendor is asked and read.

    :param page: name of the parameter that turns pages.
    :param size: the parameter for a hundred records a page, and others.
    :param records: where a page has them.
    :param pages: where the first page says how many there are, for people and for dlt's paths.
    """

    path: str
    page: str
    size: dict[str, str]
    records: str
    pages: str
    rows: Callable[[Iterable[Record]], tuple[list[Row], list[Row]]]


def of_store365(records: Iterable[Record]) -> tuple[list[Row], list[Row]]:
    """Return the rows of invoices and of lines; moments are cut to days."""
    invoices, lines = [], []
    for one in records:
        own = one["id"]
        invoices.append((
            own, one["invoiceNumber"], one["type"], one["invoiceDate"][:10], one["dueDate"][:10], one["currency"],
            str(one["customerId"]), one["customerName"], one["totalExclVat"], one["vatAmount"], one["totalInclVat"],
            one["status"],
        ))  # fmt: skip
        lines += [
            (
                own, number, str(line["id"]), line["productCode"], line["description"], line["quantity"], line["unit"],
                line["unitPrice"], line["discount"], line["totalExclVat"], line["vatPercentage"], None,
                line["periodStart"][:10], line["periodEnd"][:10], str(line["subscriptionId"]),
                str(line["endCustomerId"]), line["endCustomerName"], line["chargeType"],
            )
            for number, line in enumerate(one["lines"], 1)
        ]  # fmt: skip
    return invoices, lines


def of_cloudonex(records: Iterable[Record]) -> tuple[list[Row], list[Row]]:
    """Return the rows of invoices and of lines; totals are absent where the vendor does not state them."""
    invoices, lines = [], []
    for one in records:
        own = str(one["id"])
        invoices.append((
            own, one["invoice_number"], str(one["is_credit_invoice"]), one["date"], one["due_date"], one["currency"],
            str(one["customer_id"]), one["account"], one.get("subtotal"), one.get("tax"), one.get("amount"),
            one["status"],
        ))  # fmt: skip
        lines += [
            (
                own, number, str(line["id"]), line["item_code"], line["description"], line["qty"], None,
                line["amount"], line["discount_amount"], line["total"], line["tax_rate"], line.get("tax_amount"),
                None, None, None, None, None, None,
            )
            for number, line in enumerate(one["items"], 1)
        ]  # fmt: skip
    return invoices, lines


APIS = {
    "store365": Api(
        "invoices",
        "pageNumber",
        {"pageSize": "100", "SortOrder": "id"},
        "results",
        "totalNumberOfPages",
        of_store365,
    ),
    "cloudonex": Api(
        "api/v2/invoices",
        "page",
        {"limit": "100", "date_from": "2026-10-01", "date_to": "2026-10-31"},
        "data",
        "meta.total_pages",
        of_cloudonex,
    ),
}


def number_of_pages(api: Api, page: Record) -> int:
    """Return how many pages there are, as a page says."""
    said: Any = page
    for name in api.pages.split("."):
        said = said[name]
    return int(said)


def token(job: Any, post: Callable[..., Any]) -> str:
    """Return an access token.

    :param post: of an HTTP library.
    """
    if job.vendor != "store365":
        return str(job.token)
    form = {"grant_type": "password", "username": "bench", "password": job.token, "client_id": "bench"}
    return str(post(f"{job.url}/auth", data=form, timeout=60).json()["access_token"])
