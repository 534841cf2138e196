"""From what views found to HTML: templates that escape everything, one style sheet, one script, and no other asset."""

from __future__ import annotations

import base64
from decimal import Decimal
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.page import chart
from airflow_cloudbilling.page.states import STATES
from airflow_cloudbilling.reconcile.currencies import DECIMALS
from airflow_cloudbilling.sources import SOURCES
from airflow_cloudbilling.stylesheet import STYLE

_HERE = Path(__file__).parent


@cache
def _texts() -> dict[str, str]:
    """Return the style sheet and the script, which every page carries."""
    style = STYLE + (_HERE / "templates" / "page.css").read_text()
    return {"style": style, "script": (_HERE / "templates" / "page.js").read_text()}


@cache
def content_security_policy() -> str:
    """Return the policy: nothing but our own style and script, known by their hashes, in no frame but Airflow's."""
    hashes = {name: base64.b64encode(sha256(text.encode()).digest()).decode() for name, text in _texts().items()}
    allowed = "; ".join(f"{name}-src 'sha256-{digest}'" for name, digest in hashes.items())
    return f"default-src 'none'; {allowed}; form-action 'self'; frame-ancestors 'self'; base-uri 'none'"


def html(template: str, **values: Any) -> str:
    """Return a page."""
    texts = {name: Markup(text) for name, text in _texts().items()}  # noqa: S704 - our own two files
    return _environment().get_template(f"{template}.html").render(**texts, **values)


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_HERE / "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"money": money, "number": number, "moment": moment, "vendor": vendor, "month": month}
    made.globals |= {"STATES": STATES, "CHART": chart}
    return made


def money(amount: Decimal | None, currency: str | None = None) -> str:
    """Return an amount as people write it: thousands apart, at least the decimals of its currency."""
    if amount is None:
        return "–"
    whole, _, fraction = f"{amount.copy_abs():f}".partition(".")
    fraction = fraction.rstrip("0").ljust(DECIMALS.get(currency or "", 2), "0")
    sign = "−" if amount < 0 else ""
    return f"{sign}{int(whole):,}{'.' if fraction else ''}{fraction}"


def number(value: Decimal | int | None) -> str:
    """Return a quantity, a price or a rate with all of its digits."""
    if value is None:
        return "–"
    whole, point, fraction = f"{Decimal(value).copy_abs():f}".partition(".")
    return f"{'−' if value < 0 else ''}{int(whole):,}{point}{fraction}"


def moment(text: str | None) -> str:
    """Return a moment to the minute."""
    return f"{text[:16]} UTC" if text else "–"


def vendor(provider: str) -> str:
    """Return a vendor's name."""
    source = SOURCES.get(provider)
    return source.title if source else provider


def month(period: Period | str | None) -> str:
    """Return a period in its shortest form, such as ``2026-10``."""
    if period is None:
        return "–"
    return (Period.parse(period) if isinstance(period, str) else period).key
