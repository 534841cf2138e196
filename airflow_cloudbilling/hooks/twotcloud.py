"""The hook of the connection type ``twotcloud``."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.source import Ask, Item


class TwoTCloudHook(BillingHook):
    """2tCloud's Billing API: three endpoints of invoices, each for a period (``2026-10`` or a :class:`Period`).

    :param conn_id: an Airflow connection of the type ``twotcloud``.
    """

    default_conn_name = "twotcloud_default"
    conn_type = "twotcloud"
    hook_name = "2tCloud"

    def invoices(self, ask: Ask | Period | str) -> Iterator[Item]:
        """Yield what ``GET /{version}/invoices`` lists: what 2tCloud bills the reseller.

        :param ask: a period, or anything that a billing vendor can be asked.
        """
        return super().invoices(ask if isinstance(ask, Ask) else _ask("purchase", ask))

    def customer_invoices(self, period: Period | str) -> Iterator[Item]:
        """Yield what ``GET /{version}/customerinvoices`` lists: what the reseller's customers are billed."""
        return super().invoices(_ask("sales", period))

    def consolidated_invoices(self, period: Period | str) -> Iterator[Item]:
        """Yield what ``GET /{version}/consolidatedinvoices`` lists; the vendor advises against it for accounting."""
        return super().invoices(_ask("consolidated", period))


def _ask(kind: str, period: Period | str) -> Ask:
    return Ask(kind, Period.parse(period) if isinstance(period, str) else period)
