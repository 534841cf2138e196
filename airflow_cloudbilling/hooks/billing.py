"""The hook of every billing vendor: the connection's type decides which one is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.found import Item, Record, singly
from airflow_cloudbilling.hooks.lineage import came_from
from airflow_cloudbilling.hooks.lookup import connection_of
from airflow_cloudbilling.hooks.metrics import count_requests
from airflow_cloudbilling.model import Notice
from airflow_cloudbilling.redaction import forgetting
from airflow_cloudbilling.settings import Settings, check_conn_type, settings_from
from airflow_cloudbilling.source import Ask, Conversation, Reply, Source
from airflow_cloudbilling.sources import SOURCES

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_cloudbilling.http.client import Client, OnExchange
    from airflow_cloudbilling.http.shared_token import Store

_TEST_SECONDS = 20.0  # the form's Test button waits for the answer


class BillingHook(BaseHook):
    """Reads a connection of any billing vendor and opens a client to it.

    The constructor only stores; the connection is read when it is first needed.

    :param conn_id: the Airflow connection; its type must be one that this package registers.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "twotcloud_default"
    conn_type = ""  # empty: any registered type
    hook_name = "Cloud billing"

    def __init__(self, conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id or self.default_conn_name
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """The validated connection.

        :raises ConfigurationError: naming the field and the fix.
        """
        if self._settings is None:
            with forgetting():
                self._settings = self._read(connection_of(self.conn_id))
            self._mask(self._settings)
        return self._settings

    async def aget_settings(self) -> Settings:
        """Return the validated connection without blocking the event loop; needed before anything else there.

        :raises ConfigurationError: naming the field and the fix.
        """
        # A thread may wait for Airflow's supervisor, the loop may not; and common-compat's get_async_connection masks
        # on the loop with Airflow before 3.3.2, which ends in DeadlockImminentError.
        return await asyncio.to_thread(lambda: self.settings)

    @property
    def source(self) -> Source:
        """What is known about the connection's vendor."""
        return SOURCES[self.settings.conn_type]

    def get_conn(
        self, *, on_exchange: OnExchange | None = None, defer_after: float | None = None, keeps_tokens: bool = True
    ) -> Client:
        """Return a client with one connection pool, to be used as a context manager.

        :param on_exchange: called with (address, status or None, SHA-256 or None) for every attempt.
        :param defer_after: a wait of more seconds raises ``WaitError`` instead of being slept.
        :param keeps_tokens: whether access tokens that it fetches are kept for other tasks; a triggerer's are not.
        """
        from airflow_cloudbilling.http.client import Client

        source, settings, store = self.source, self.settings, self._open_store(writable=keeps_tokens)
        return Client(
            source,
            settings,
            on_exchange=on_exchange,
            defer_after=defer_after,
            store=store,
            learn=mask_secret,
            on_close=partial(count_requests, settings.conn_type),
        )

    def invoices(self, ask: Ask) -> Iterator[Item]:
        """Yield the lines and invoices that are asked for, as they come; an invoice follows its lines.

        :param ask: its ``field_map`` adds to the connection's.
        :raises VendorError: when the vendor refuses, cannot be reached or answers what cannot be read.
        """
        came_from(self, ask.kind, **({"account": ask.account} if ask.account else {}))
        with self.get_conn() as client:
            yield from singly(client.stream(self.source.invoices(ask, self.settings)))

    async def ainvoices(self, ask: Ask) -> AsyncGenerator[Item, None]:
        """Yield what :meth:`invoices` yields, on the running event loop."""
        settings = await self.aget_settings()
        conversation = self.source.invoices(ask, settings)
        client = await asyncio.to_thread(self.get_conn, keeps_tokens=False)
        async with client, aclosing(client.astream(conversation)) as items:
            async for item in items:
                for each in singly([item]):
                    yield each

    def list_records(self, resource: str, params: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Yield every record of a resource as it is, over all pages.

        :param resource: as the vendor's document names it; numbers with a fraction come as ``Decimal``.
        :param params: query parameters.
        :raises ConfigurationError: when the vendor has no such resource.
        :raises VendorError: when the vendor refuses, cannot be reached or answers what cannot be read.
        """
        return self._records(self.source.list_records(resource, params or {}, self.settings))

    def get_record(self, resource: str, record_id: str, params: Mapping[str, str] | None = None) -> Any:
        """Return one record; parameters and errors as of :meth:`list_records`."""
        return self._record(self.source.get_record(resource, record_id, params or {}, self.settings))

    def create_record(self, resource: str, data: Any) -> Any:
        """Create a record and return what the vendor answers; it is never sent twice by itself.

        :param data: what is sent, as the vendor's document has it; amounts as ``Decimal``, ``int`` or text.
        :raises InDoubtError: when it may have been created or not.
        """
        return self._record(self.source.create_record(resource, data, self.settings))

    def update_record(self, resource: str, record_id: str, data: Any) -> Any:
        """Change a record and return what the vendor answers; errors as of :meth:`create_record`."""
        return self._record(self.source.update_record(resource, record_id, data, self.settings))

    def delete_record(self, resource: str, record_id: str) -> Any:
        """Delete a record and return what the vendor answers; errors as of :meth:`create_record`."""
        return self._record(self.source.delete_record(resource, record_id, self.settings))

    def download(self, resource: str, record_id: str, params: Mapping[str, str] | None = None) -> Reply:
        """Return the answer with a file as its body, spooled to disk; the caller closes ``reply.body``.

        :raises VendorError: as of :meth:`list_records`.
        """
        with self.get_conn() as client:
            return client.request(self.source.file_request(resource, record_id, params or {}, self.settings))

    def _records(self, conversation: Conversation) -> Iterator[Any]:
        with self.get_conn() as client:
            for item in client.stream(conversation):
                if isinstance(item, Record):
                    yield item.value
                elif isinstance(item, Notice):
                    self.log.warning("%s", item.message)

    def _record(self, conversation: Conversation) -> Any:
        return next(iter([*self._records(conversation)]), None)

    def test_connection(self) -> tuple[bool, str]:
        """Send one harmless request and say in words whether it went well, and if not, what to do."""
        try:
            settings = self._for_test(self.settings)
            from airflow_cloudbilling.http.client import Client

            store = self._open_store(writable=False) if self.source.rotates else None  # tokens are to be fetched here
            with Client(self.source, settings, store=store, learn=mask_secret) as client:
                reply = client.request(self.source.probe(settings))
                start = reply.head(200).lstrip().lower()
                reply.body.close()
            if start.startswith((b"<!doctype html", b"<html")):
                return False, f"A web page answered at {settings.base_url}, not {self.source.title}; look at the host."
        except (CloudBillingError, AirflowNotFoundException) as error:
            return False, str(error)
        except Exception as error:  # the form must get an answer, and none that quotes what may be a secret
            self.log.exception("The test of connection %r failed unexpectedly", self.conn_id)
            return False, f"The test failed unexpectedly ({type(error).__name__}); look at the server's log."
        return True, f"{self.source.title} answered at {settings.base_url} and accepted the credentials."

    def _open_store(self, *, writable: bool) -> Store | None:
        from airflow_cloudbilling.hooks.credential_store import open_store

        wanted = self.source.credential_request(self.settings)
        return open_store(writable=writable, keys=self.source.rotates) if wanted else None

    def _read(self, connection: Connection) -> Settings:
        known = (self.conn_type,) if self.conn_type else tuple(SOURCES)
        source = SOURCES[check_conn_type(self.conn_id, connection.conn_type, known)]
        names = ("conn_type", "host", "port", "schema", "login", "password", "extra")
        settings = settings_from(source, self.conn_id, **{name: getattr(connection, name) for name in names})
        for warning in settings.warnings:
            self.log.warning("%s", warning)
        return settings

    @staticmethod
    def _mask(settings: Settings) -> None:
        for secret in (*settings.secrets, *SOURCES[settings.conn_type].secrets(settings)):
            mask_secret(secret)

    @staticmethod
    def _for_test(settings: Settings) -> Settings:
        short = {name: min(settings.option(name), _TEST_SECONDS) for name in ("timeout", "total_timeout")}
        return replace(settings, options={**settings.options, **short, "max_attempts": 1})
