"""The hook of the connection type ``orange_cloudstore``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.source import Reply


class OrangeCloudStoreHook(BillingHook):
    """Orange's Cloud Store Customer Space API: contracts, their documents, and the files of these.

    Where a method has a ``contract_id``, the connection's own is taken when it is left out.

    :param conn_id: an Airflow connection of the type ``orange_cloudstore``.
    """

    default_conn_name = "orange_cloudstore_default"
    conn_type = "orange_cloudstore"
    hook_name = "Orange Cloud Store"

    def contracts(self) -> Iterator[Any]:
        """Yield what ``GET /contracts`` lists: the contracts that the API key sees."""
        return self.list_records("contracts")

    def contract(self, contract_id: str = "") -> Any:
        """Return what ``GET /contract`` says of one contract."""
        return self.get_record("contract", contract_id)

    def documents(
        self, contract_id: str = "", document_type: str = "invoices", params: Mapping[str, str] | None = None
    ) -> Iterator[Any]:
        """Yield what ``GET /documents`` lists.

        :param document_type: in the vendor's own spelling, such as ``comsumptionRatedReports``.
        :param params: further query parameters, such as ``{"limit": "10"}``.
        """
        chosen = {"contract_id": contract_id, "documentType": document_type, **(params or {})}
        return self.list_records("documents", chosen)

    def download_document(self, document_id: str, contract_id: str = "") -> Reply:
        """Return the answer of ``GET /documents/{id}/file``; the caller closes its ``body``."""
        return self.download("documents", document_id, {"contract_id": contract_id})

    def add_user(self, contract_id: str, data: Mapping[str, Any]) -> Any:
        """Add a user to a contract by ``POST /contract/{id}/user`` and return what Orange answers."""
        return self.create_record("user", {**data, "contract_id": contract_id})

    def create_contract(self, data: Mapping[str, Any]) -> Any:
        """Create a contract by ``POST /contract/`` and return what Orange answers."""
        return self.create_record("contract", data)
