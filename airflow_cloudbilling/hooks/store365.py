"""The hook of the connection type ``store365``."""

from __future__ import annotations

from airflow_cloudbilling.hooks.billing import BillingHook


class Store365Hook(BillingHook):
    """Store365's invoices, and any other of its resources by path: ``users``, ``customers``, ``orders`` …

    :param conn_id: an Airflow connection of the type ``store365``.
    """

    default_conn_name = "store365_default"
    conn_type = "store365"
    hook_name = "Store365"
