"""The hook of the connection type ``twotcloud``."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.source import Ask, Item


class TwoTCloudHook(BillingHook):
    """2tCloud's Billing API: three endpoints of invoices, each for a period.

    :param conn_id: an Airflow connection of the type ``twotcloud``.
    """

    default_conn_name = "twotcloud_default"
    conn_type = "twotcloud"
    hook_name = "2tCloud"

    def purchase_invoices(self, period: Period) -> Iterator[Item]:
        """Yield what ``GET /{version}/invoices`` lists: what 2tCloud bills the reseller."""
        return self.invoices(Ask("purchase", period))

    def customer_invoices(self, period: Period) -> Iterator[Item]:
        """Yield what ``GET /{version}/customerinvoices`` lists: what the reseller's customers are billed."""
        return self.invoices(Ask("sales", period))

    def consolidated_invoices(self, period: Period) -> Iterator[Item]:
        """Yield what ``GET /{version}/consolidatedinvoices`` lists; the vendor advises against it for accounting."""
        return self.invoices(Ask("consolidated", period))
