"""2tCloud (Copaco): all that is known about its APIs, from "Working with 2tCloud APIs"; names from kb.copaco.cloud."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import ClassVar

from airflow_cloudbilling.errors import ConfigurationError, RefusedError
from airflow_cloudbilling.model import Notice
from airflow_cloudbilling.parse import (
    InvoiceReader,
    Malformed,
    Names,
    Shape,
    amount,
    clean,
    country,
    currency,
    day,
    document_type,
    identifier,
    read,
    refuse_failure,
    text,
)
from airflow_cloudbilling.parse.names import Table
from airflow_cloudbilling.redaction import redact
from airflow_cloudbilling.settings import Field, Settings
from airflow_cloudbilling.source import (
    Again,
    Ask,
    Conversation,
    Endpoint,
    Ok,
    Refused,
    Reply,
    Request,
    Verdict,
)
from airflow_cloudbilling.sources.authentication import basic
from airflow_cloudbilling.sources.twotcloud_apis import ACCEPT, ENDPOINTS, ByEndpoint

# The names of both formats: kb.copaco.cloud, "Billing API - invoices (JSON)" and "(XML)". XML has one element a record
# in each list, under the root InvoiceResponse.
SHAPE = Shape(
    lists=("Invoices", "Customers", "Subscriptions", "PriceLines"),
    marks=("Header", "Sender", "Receiver", "Totals"),
    root="invoice",
)
_AROUND = {2: "Customer.", 3: "Subscription."}  # levels of the shape that lines take values from
_ENDPOINTS = {"purchase": "invoices", "sales": "customerinvoices", "consolidated": "consolidatedinvoices"}
_KEYS = {"default": "password", "customers": "customers_api_key", "cloudstore": "cloudstore_api_key"}
_VERSIONS = {"default": "version", "customers": "customers_version", "cloudstore": "cloudstore_version"}
_NOT_FOR_ACCOUNTING = (
    "2tCloud merges consolidatedinvoices on a best-effort basis: lines may be missing, doubled or mismatched. It says"
    " not to use them for accounting; take kind='purchase' and kind='sales' for that."
)
_FORBIDDEN = (  # "Calling an endpoint": a 403 means either of the two
    "2tCloud refused with HTTP {status}, which it does for one of two causes. (1) The Basic header is not valid: the"
    " account ID (login) or the API key (field {key}) is wrong, the key belongs to another of its APIs, or it is not"
    " active (Cloudstore keys are not active at once). (2) The request came from another IP address than the one"
    " registered for this key; workers, the API server behind Airflow's Test button and your own machine may have"
    " different ones. Compare both in the support center portal (https://2tcloud.supportcenter.services): your"
    " profile, 'Your APIs', the API's tab and 'Settings'. It is not tried again."
)


def _totals(names: str) -> tuple[str, ...]:
    return tuple(f"Totals.{name}" for name in names.split())


# Canonical name → how it is read and where it stands, best first. Totals' names are not documented and differ per
# endpoint ("3. XML elements"), so likely ones are listed and the rest is left to field_map or computed.
_HEAD: Table = {
    "invoice_id": (identifier, ("Header.InvoiceID",)),
    "invoice_number": (text, ("Header.InvoiceID",)),
    "document_type": (document_type, ("Header.Type", "Header.TypeIdentifier")),
    "issue_date": (day, ("Header.Date", "Header.InvoiceDate")),
    "due_date": (day, ("Header.ExpirationDate", "Header.DueDate")),
    "period_start": (day, ("Header.PeriodStart", "Header.StartDate")),
    "period_end": (day, ("Header.PeriodEnd", "Header.EndDate")),
    "currency": (currency, ("Header.Currency", "Header.CurrencyCode")),
    "seller_name": (text, ("Sender.CompanyName",)),
    "seller_vat_id": (text, ("Sender.VATNumber",)),
    "seller_country": (country, ("Sender.CountryCode", "Sender.Country")),
    # AccountID, not CustomerNumber: it is the vendor's own key of the buyer (BT-46), present in every format and API.
    "buyer_id": (text, ("Receiver.AccountID",)),
    "buyer_name": (text, ("Receiver.CompanyName",)),
    "buyer_vat_id": (text, ("Receiver.VATNumber",)),
    "buyer_country": (country, ("Receiver.CountryCode", "Receiver.Country")),
    "net_amount": (amount, _totals("TotalExclVAT TotalExcludingVAT TotalExVAT TotalExclTax TotalNet NetAmount"
                                   " SubTotal")),
    "tax_amount": (amount, _totals("TotalVAT VAT VATAmount TotalVATAmount TotalTax TaxAmount")),
    "gross_amount": (amount, _totals("TotalInclVAT TotalIncludingVAT TotalIncVAT TotalInclTax TotalGross GrossAmount"
                                     " GrandTotal TotalAmount Total")),
    "allowance_total": (amount, ()),
    "charge_total": (amount, ()),
    "rounding_amount": (amount, _totals("Rounding RoundingAmount")),
    "paid_amount": (amount, _totals("PaidAmount TotalPaid")),
    "payable_amount": (amount, _totals("PayableAmount TotalPayable AmountDue TotalDue")),
    "status": (text, ("Header.Status",)),
    "preceding_invoice": (text, ("Header.OriginalInvoiceID", "Header.CreditedInvoiceID", "Header.PrecedingInvoiceID")),
}  # fmt: skip
# Lines of consolidatedinvoices carry purchase and sales prices side by side; what was paid is what is staged.
_LINE: Table = {
    "line_id": (text, ("LineId", "PurchaseLineId")),
    "item_code": (text, ("SKU",)),
    "description": (text, ("Description",)),
    "quantity": (amount, ("Quantity", "PurchaseQuantity")),
    "unit": (text, ("QuantityType",)),
    "unit_price": (amount, ("UnitPrice", "PurchaseUnitPrice", "PurchasePrice")),
    "discount": (amount, ("Discount", "PurchaseDiscount")),
    "net_amount": (amount, ("ExtendedPrice", "PurchaseExtendedPrice")),
    "tax_rate": (amount, ("TaxPercentage", "PurchaseTaxPercentage")),
    "tax_amount": (amount, ("VAT", "PurchaseVAT")),
    "period_start": (day, ("StartDate",)),
    "period_end": (day, ("EndDate",)),
    "subscription_id": (text, ("Subscription.SubscriptionID",)),
    "subscription_name": (text, ("Subscription.SubscriptionName",)),
    "customer_id": (text, ("Customer.AccountID",)),
    "customer_name": (text, ("Customer.CompanyName",)),
    "charge_type": (text, ("ChargeType",)),
    "match_key": (text, ("InvoiceRowHash",)),
}
NAMES = Names(SHAPE, _HEAD, _LINE, _AROUND)


class TwoTCloud(ByEndpoint):
    """The Billing API; the Customers and Cloudstore APIs by endpoint, each with its own key and version."""

    conn_type: ClassVar[str] = "twotcloud"
    title: ClassVar[str] = "2tCloud"
    hook_class: ClassVar[str] = "airflow_cloudbilling.hooks.twotcloud.TwoTCloudHook"
    default_host: ClassVar[str | None] = "https://api.cloudnet.services"
    labels: ClassVar[Mapping[str, str]] = {"host": "Base URL", "login": "Account ID", "password": "Billing API key"}
    placeholders: ClassVar[Mapping[str, str]] = {"host": "https://api.cloudnet.services", "login": "1000123"}
    required: ClassVar[tuple[str, ...]] = ("login", "password")
    fields: ClassVar[tuple[Field, ...]] = (
        Field("version", "Version of the Billing API", "As in the portal's endpoint URLs.", default="v2"),
        Field(
            "response_format",
            "Response format",
            "What invoices are asked for in.",
            default="json",
            enum=("json", "xml"),
        ),
        Field("customers_api_key", "Customers API key", "Only for calls of the Customers API.", secret=True),
        Field("customers_version", "Version of the Customers API", "As in the portal's endpoint URLs.", default="v2"),
        Field("cloudstore_api_key", "Cloudstore API key", "Only for calls of the Cloudstore API.", secret=True),
        Field("cloudstore_version", "Version of the Cloudstore API", "As in the portal's endpoint URLs.", default="v1"),
    )
    kinds: ClassVar[tuple[str, ...]] = tuple(_ENDPOINTS)
    default_kind: ClassVar[str] = "purchase"
    endpoints: ClassVar[tuple[Endpoint, ...]] = ENDPOINTS

    def account(self, settings: Settings) -> str:
        """Return the account ID, which keys belong to."""
        return settings.login

    def path(self, endpoint: str, settings: Settings, api: str = "default") -> str:
        """Return an endpoint's path; all endpoints of one API take its one version ("Working with the endpoints").

        :param api: ``default`` (Billing), ``customers`` or ``cloudstore``.
        """
        field = _VERSIONS[api]
        version = str(settings.options.get(field) or _DEFAULTS[field]).strip("/ ")
        if not re.fullmatch(r"[\w.-]+", version):
            raise ConfigurationError(f"{version!r} is no version such as 'v2'.", conn_id=settings.conn_id, field=field)
        return f"/{version}/{endpoint.lstrip('/')}"

    def authorise(self, request: Request, settings: Settings, credential: str | None = None) -> Request:
        """Add the Basic header of the request's API ("Creating the authorization header"): one key per API."""
        field = _KEYS.get(request.api, request.api)
        key = self._key(field, settings)
        if not key:
            raise ConfigurationError(
                f"is empty; enter an active key of the {request.api} API (2tCloud has one key per API).",
                conn_id=settings.conn_id,
                field=field,
            )
        if ":" in settings.login:
            raise ConfigurationError("an account ID has no colon.", conn_id=settings.conn_id, field="login")
        headers = {**request.headers, "Authorization": f"Basic {basic(settings.login, key)}"}
        return replace(request, headers=headers)

    def secrets(self, settings: Settings) -> list[str]:
        """Return the keys and the Basic values made of them."""
        keys = [key for field in _KEYS.values() if (key := self._key(field, settings))]
        return [*keys, *(basic(settings.login, key) for key in keys)]

    def _key(self, field: str, settings: Settings) -> str:
        return settings.password if field == "password" else str(settings.options.get(field) or "")

    def verdict(self, reply: Reply, settings: Settings) -> Verdict:
        """Judge by the status; the document knows only 403 ("Calling an endpoint"), the rest is HTTP's own."""
        status = reply.status
        if 200 <= status < 300 and status != 206:  # a part is not an answer
            return Ok()
        if status in (408, 429) or status >= 500:
            return Again(f"2tCloud answered HTTP {status}")
        if status in (401, 403):
            message = _FORBIDDEN.format(status=status, key=_KEYS.get(reply.request.api, reply.request.api))
        elif status == 404:
            message = (
                f"2tCloud has no {reply.request.path} (HTTP 404): compare version and endpoint with the list in the"
                " support center portal, 'Your APIs', and the host with https://api.cloudnet.services."
            )
        else:
            message = f"2tCloud refused the request with HTTP {status}: {clean(reply.head(2400))}"
        message = redact(message, self.secrets(settings))
        return Refused(RefusedError(message, conn_id=settings.conn_id, url=reply.url, status=status))

    def probe(self, settings: Settings) -> Request:
        """Return a question for today's invoices."""
        today = datetime.now(tz=timezone.utc).date()
        return self._request("purchase", today, today, "json", settings)

    def _request(self, kind: str, first: date, last: date, accept: str, settings: Settings) -> Request:
        window = {"startDate": f"{first:%Y%m%d}", "endDate": f"{last:%Y%m%d}"}
        return Request("GET", self.path(_ENDPOINTS[kind], settings), window, {"Accept": ACCEPT[accept]})

    def invoices(self, ask: Ask, settings: Settings) -> Conversation:
        """Ask for one window and read the answer as a stream: each invoice's lines, then the invoice.

        The window filters on the day an invoice was created, not on the period billed (kb.copaco.cloud, "Billing
        APIs"); ``endDate`` is taken as inclusive, as the portal's own form has it.
        """
        names = NAMES.mapped({**settings.field_map, **ask.field_map}, settings.conn_id)
        request = self._question(ask, settings)
        if ask.kind == "consolidated":
            yield Notice(_NOT_FOR_ACCOUNTING)
        reply = yield request
        if reply is None or reply.status == 204:
            return
        reader = InvoiceReader(names, keep_raw=ask.keep_raw, sha256=reply.sha256)
        try:
            events = read(reply.body, reply.headers.get("content-type"), SHAPE, keep_raw=ask.keep_raw)
            yield from reader.items(events)
            refuse_failure(reader)
        except Malformed as error:
            raise self.malformed(reply, error, settings, "invoices") from None
        if reader.computed:
            yield Notice(
                f"{reader.computed} of {reader.invoices} invoices came without all of their totals; these were computed"
                " from the lines."
            )

    def _question(self, ask: Ask, settings: Settings) -> Request:
        if ask.kind not in _ENDPOINTS:
            raise ConfigurationError(f"2tCloud has no kind {ask.kind!r}; it has {', '.join(_ENDPOINTS)}.")
        own = {name for name in ask.params if name.lower() in ("startdate", "enddate")}
        if own:
            raise ConfigurationError(f"params must not hold {', '.join(own)}: use period and window_shift_days.")
        shift = timedelta(days=ask.window_shift_days)
        first, last = ask.period.start + shift, ask.period.end - timedelta(days=1) + shift
        accept = str(settings.options.get("response_format") or _DEFAULTS["response_format"])
        request = self._request(ask.kind, first, last, accept, settings)
        return replace(request, params={**request.params, **ask.params})


_DEFAULTS = {field.name: field.default for field in TwoTCloud.fields}
