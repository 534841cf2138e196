"""The hook of the connection type ``twotcloud``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_cloudbilling.found import Item
from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.source import Ask


class TwoTCloudHook(BillingHook):
    """2tCloud's APIs: three endpoints of invoices, each for a period (``2026-10`` or a :class:`Period`), and any other.

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

    def customers(self, params: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Yield every customer of the Customers API, active and cancelled; parameters as of :meth:`list_records`."""
        return self.list_records("customers", params)

    def customers_api(self, endpoint: str, params: Mapping[str, str] | None = None, data: Any = None) -> Any:
        """Call an endpoint of the Customers API, with its own key and version.

        :param endpoint: what follows the version in the address, as the support center portal lists it.
        :param params: query parameters of a GET.
        :param data: makes it a POST with this as JSON; amounts as ``Decimal``, ``int`` or text.
        :returns: the list of records of a GET; what the vendor answers to a POST.
        :raises InDoubtError: when a POST may have been carried out or not; it is never sent twice by itself.
        """
        return self._call(f"customers:{endpoint}", params, data)

    def cloudstore_api(self, endpoint: str, params: Mapping[str, str] | None = None, data: Any = None) -> Any:
        """Call an endpoint of the Cloudstore API; everything as of :meth:`customers_api`."""
        return self._call(f"cloudstore:{endpoint}", params, data)

    def _call(self, resource: str, params: Mapping[str, str] | None, data: Any) -> Any:
        return [*self.list_records(resource, params)] if data is None else self.create_record(resource, data)


def _ask(kind: str, period: Period | str) -> Ask:
    return Ask(kind, Period.parse(period) if isinstance(period, str) else period)
