"""What the sandbox's reseller trades in: customers with difficult names, products, currencies and their tax."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple


class Customer(NamedTuple):
    """A company; names hold what breaks naive code: emoji, right-to-left, quotes, markup, line breaks, long text."""

    account: int
    number: str
    name: str
    country: str


class Product(NamedTuple):
    """Something billed.

    :param price: in euro, for one unit.
    :param quantities: the quantities that occur.
    """

    sku: str
    name: str
    plan: str
    category: str
    unit: str
    price: str
    quantities: tuple[str, ...]
    charge_type: str


class Currency(NamedTuple):
    """A currency with its number of decimals, what a euro costs in it, and the tax charged."""

    code: str
    decimals: int
    per_euro: Decimal
    tax_zone: str
    tax_rate: Decimal


COUNTRIES = {
    "NL": "Netherlands",
    "BE": "Belgium",
    "DE": "Germany",
    "GB": "United Kingdom",
    "US": "United States",
    "JP": "Japan",
    "KW": "Kuwait",
}

_NAMES = (
    ("Acme B.V.", "NL"),
    ("Bäckerei Müller & Söhne GmbH", "DE"),
    ('O\'Brien "Quoted" <Holdings> Ltd', "GB"),
    ("株式会社さくらクラウド", "JP"),
    ("شركة الخليج للتقنية", "KW"),
    ("Rocket 🚀 & Sons 👩‍👩‍👧 Inc.", "US"),
    ("Two Lines\nHolding N.V.", "BE"),
    ("Cafe\u0301 decomposed, Café composed", "BE"),
    ("Zażółć gęślą jaźń sp. z o.o.; DROP TABLE --", "DE"),
    ("C:\\Backups\\new\tTab B.V.", "NL"),
    ("𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ‮right-to-left override‬ LLC", "US"),
    ("100% %s {0} ${HOME} {{ ds }} N.V.", "NL"),
    ("A very long name " + "of an ever growing group of companies " * 5 + "N.V.", "BE"),
)
CUSTOMERS = tuple(Customer(1000456 + i, f"C-{77 + i}", name, country) for i, (name, country) in enumerate(_NAMES))
RESELLER = Customer(1000123, "R-00123", "Example Reseller B.V.", "NL")
DISTRIBUTOR = Customer(1, "D-00001", "Sandbox Distribution B.V.", "NL")

PRODUCTS = (
    Product(
        "CFQ7TTC0LCHC", "Microsoft 365 Business Premium", "M365 BP monthly", "Microsoft CSP", "License", "16.50",
        ("25", "1", "240", "7"), "Cycle Fee",
    ),
    Product(
        "DZH318Z0BPS6", "Azure Plan, storage transactions", "Azure plan", "Microsoft CSP", "Unit", "0.000001",
        ("123456789.123456", "8214500", "42", "999999.999999"), "Usage Fee",
    ),
    Product(
        "DZH318Z0BQ3P", "Azure Plan, egress", "Azure plan", "Microsoft CSP", "GB", "0.0000431",
        ("7731.000244", "0.5", "129004.75"), "Usage Fee",
    ),
    Product("AZ-CONSUME", "Azure consumption", "Azure plan", "Microsoft CSP", "Unit", "137.4281", ("1",), "Usage Fee"),
    Product(
        "ACR-BKP-GB", "Cloud backup per GB", "Backup", "Acronis", "GB", "0.0425", ("512.25", "2048.0000", "13.7"),
        "Item Fee",
    ),
    Product("SSL-OV-1Y", "OV certificate 1 year", "Certificates", "Sectigo", "Piece", "49", ("1", "3"), "One Time Fee"),
    Product("M365-TRIAL", "Microsoft 365 trial", "Trial", "Microsoft CSP", "License", "0.00", ("25", "5"), "Cycle Fee"),
    Product(
        "CFQ7TTC0LCHC-C", "Correction of last month's licences", "M365 BP monthly", "Microsoft CSP", "License", "16.5",
        ("-2", "-1"), "Correction",
    ),
)  # fmt: skip

EUR = Currency("EUR", 2, Decimal(1), "NL21", Decimal(21))
USD = Currency("USD", 2, Decimal("1.08"), "US-NY", Decimal("8.875"))
GBP = Currency("GBP", 2, Decimal("0.85"), "GB20", Decimal(20))
JPY = Currency("JPY", 0, Decimal(160), "JP10", Decimal(10))
KWD = Currency("KWD", 3, Decimal("0.333"), "KW5", Decimal(5))
CURRENCIES = (EUR, EUR, USD, EUR, EUR, GBP, GBP, JPY, EUR, KWD)  # by the invoice's index: ten invoices have them all
