"""The hook of every billing vendor: the connection's type decides which one is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.settings import Settings, check_conn_type, settings_from
from airflow_cloudbilling.source import Ask, Item, Source
from airflow_cloudbilling.sources import SOURCES

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_cloudbilling.client import Client, OnExchange

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
            self._settings = self._read(self.get_connection(self.conn_id))
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

    def get_conn(self, *, on_exchange: OnExchange | None = None, defer_after: float | None = None) -> Client:
        """Return a client with one connection pool, to be used as a context manager.

        :param on_exchange: called with (address, status or None, SHA-256 or None) for every attempt.
        :param defer_after: a wait of more seconds raises ``WaitError`` instead of being slept.
        """
        from airflow_cloudbilling.client import Client

        return Client(self.source, self.settings, on_exchange=on_exchange, defer_after=defer_after)

    def invoices(self, ask: Ask) -> Iterator[Item]:
        """Yield the lines and invoices that are asked for, as they come; an invoice follows its lines.

        :param ask: its ``field_map`` adds to the connection's.
        :raises VendorError: when the vendor refuses, cannot be reached or answers what cannot be read.
        """
        with self.get_conn() as client:
            yield from client.stream(self.source.invoices(ask, self.settings))

    async def ainvoices(self, ask: Ask) -> AsyncGenerator[Item, None]:
        """Yield what :meth:`invoices` yields, on the running event loop."""
        settings = await self.aget_settings()
        async with self.get_conn() as client, aclosing(client.astream(self.source.invoices(ask, settings))) as items:
            async for item in items:
                yield item

    def test_connection(self) -> tuple[bool, str]:
        """Send one harmless request and say in words whether it went well, and if not, what to do."""
        try:
            settings = self._for_test(self.settings)
            from airflow_cloudbilling.client import Client

            with Client(self.source, settings) as client:
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
