"""The hook of the connection type ``sage_connected_cloud``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.log import mask_secret

from airflow_cloudbilling.content import Content
from airflow_cloudbilling.errors import (
    ConfigurationError,
    InDoubtError,
    MalformedReplyError,
    RefusedError,
    UnavailableError,
    VendorError,
)
from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.hooks.credential_store import open_store
from airflow_cloudbilling.hooks.lineage import came_from, of_asset, went_to
from airflow_cloudbilling.hooks.sage_initial_key import Announced, InitialKeys, prove
from airflow_cloudbilling.http.shared_key import NoStore
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Reply, Request
from airflow_cloudbilling.sources import sage_answers
from airflow_cloudbilling.sources.sage import SageConnectedCloud, put_request, result_request
from airflow_cloudbilling.sources.sage_answers import Passcode, Tracking, Uploaded
from airflow_cloudbilling.sources.sage_scopes import ScopeVersion, version_of
from airflow_cloudbilling.urls import signatures, target

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_cloudbilling.http.client import Client, OnExchange

__all__ = ["Passcode", "SageConnectedCloudHook", "ScopeVersion", "Tracking", "Uploaded"]
_NOT_OURS = (400, 401, 403)  # what Sage may answer to a key and a secret that do not belong together


class SageConnectedCloudHook(BillingHook):
    """Sage Connected Cloud: on-boarding, API keys, and files that go there and come back.

    Methods that take a ``client`` use it instead of opening one for the call: whoever asks again and again keeps one,
    from ``with hook.get_conn() as client``, or in a triggerer from ``hook.get_conn(keeps_tokens=False)``.

    :param conn_id: an Airflow connection of the type ``sage_connected_cloud``.
    """

    default_conn_name = "sage_connected_cloud_default"
    conn_type = "sage_connected_cloud"
    hook_name = "Sage Connected Cloud"

    @property
    def sage(self) -> SageConnectedCloud:
        """What is known about Sage."""
        source = self.source
        assert isinstance(source, SageConnectedCloud)
        return source

    def get_conn(
        self, *, on_exchange: OnExchange | None = None, defer_after: float | None = None, keeps_tokens: bool = True
    ) -> Client:
        """Return a client; parameters as of :meth:`BillingHook.get_conn`.

        An initial API key that Sage has announced since is tried before, once, and is in force when Sage takes it
        together with the connection's secret; never where ``keeps_tokens`` is false.

        :raises UnavailableError: when that cannot be tried yet, and the connection has no other key.
        """
        if keeps_tokens:
            self._take_announced()
        return super().get_conn(on_exchange=on_exchange, defer_after=defer_after, keeps_tokens=keeps_tokens)

    # On-boarding

    def register_developer(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Register a developer and an application by ``POST developers``.

        :param data: the developer's and the application's details, with the ``notificationUrl``, as Sage wants them.
        :returns: what Sage answers; at its ``registrationUrl`` a person has to solve a captcha.
        :raises InDoubtError: when it may have been carried out or not; it is never sent twice by itself.
        :raises MalformedReplyError: when it was carried out, and the answer cannot be read.
        """
        return self._registered("register_developer", data)

    def register_application(self, data: Mapping[str, Any], developer_id: str | None = None) -> dict[str, Any]:
        """Register a further application by ``POST applications``; errors as of :meth:`register_developer`.

        :param developer_id: instead of the connection's login.
        """
        return self._registered("register_application", data, developer_id=developer_id or "")

    def create_passcode(self, developer_id: str | None = None, application_id: str | None = None) -> Passcode:
        """Return a new passcode by ``POST passcodes``, which a person enters in the Sage product.

        :param developer_id: instead of the connection's login.
        :param application_id: instead of the connection's ``application_id``.
        """
        ids = {"developer_id": developer_id or "", "application_id": application_id or ""}
        request = self.sage.passcode(self.settings, **ids)
        with self._asked(request) as reply:
            found = sage_answers.passcode_of(reply, self.settings)
        mask_secret(found.passcode)
        return found

    def rotate_api_key(self) -> None:
        """Replace the API key by ``PATCH apikey`` and keep the new one, whatever the present one is good for.

        Calls that meet an expired key do so by themselves. When another task rotates at the same time, its key counts.

        :raises ConfigurationError: when the connection or the store of keys is not fit for it.
        :raises RefusedError: when Sage does not take the initial API key or the secret.
        """
        with self.get_conn() as client:
            self.sage.check_rotation(self.settings)
            client.renew()

    # Files

    def upload(
        self,
        scope: str,
        content: IO[bytes],
        *,
        name: str,
        size: int,
        sha256: str,
        media: str = "application/json",
        on_tracking_id: Callable[[str], None] | None = None,
        client: Client | None = None,
    ) -> Uploaded:
        """Send a file, once, in the way that the connection's ``upload_strategy`` says; memory does not grow with it.

        :param scope: of the file, such as ``Orders``.
        :param content: the file, seekable; sent from its beginning.
        :param name: of the file, for Sage.
        :param size: its bytes.
        :param sha256: its hex digest.
        :param on_tracking_id: is told Sage's id of the upload the moment it is known: of a presigned upload that is
            before the file goes out.
        :param media: what the file is, as ``Content-Type`` says it.
        :param client: an open one; None: one of its own.
        :raises ConfigurationError: when the file is of another size by now.
        :raises InDoubtError: when the file may have arrived or not; it is never sent again by itself.
        :raises RefusedError: when Sage did not take it.
        :raises UnavailableError: when it was not sent.
        """
        if content.seek(0, 2) != size:
            raise ConfigurationError(f"{name!r} is not of {size} bytes any more; build the file again.", field="size")
        file = Content(content, size, media)
        first = self.sage.upload(scope, file, self.settings, name=name, sha256=sha256)
        with self.get_conn() if client is None else nullcontext(client) as opened:
            try:
                with self._asked(first, opened) as reply:
                    uploaded = self._uploaded(reply)
            except MalformedReplyError as error:
                self._check_sent(error)
                raise
            if on_tracking_id is not None:
                on_tracking_id(uploaded.tracking_id)
            if first.content is None:
                opened.be_patient()  # what has begun is ended
                self._put(uploaded, file, opened)
        went_to(self, of_asset(f"cloudbilling://{self.conn_id}/scope/{quote(scope, safe='')}"))
        return uploaded

    def track(self, tracking_id: str, client: Client | None = None) -> Tracking:
        """Return what Sage says of an upload, by ``GET tracking file``.

        :raises MalformedReplyError: when it says no status.
        """
        with self._asked(self.sage.tracking(tracking_id, self.settings), client) as reply:
            return sage_answers.tracking_of(reply, self.settings)

    async def atrack(self, tracking_id: str, client: Client) -> Tracking:
        """Return what :meth:`track` returns, on the running event loop; await :meth:`aget_settings` before.

        :param client: of ``get_conn(keeps_tokens=False)``: it never rotates an API key.
        :raises ExpiredKeyError: when the API key is over, also the one in the store, which was read again. A trigger
            then yields an event that makes a worker ask, whose hook rotates.
        """
        reply = await client.arequest(self.sage.tracking(tracking_id, self.settings))
        with closing(reply.body):
            return sage_answers.tracking_of(reply, self.settings)

    def download_result(self, url: str, client: Client | None = None) -> Reply:
        """Return the result file of an upload; the caller closes its ``body``.

        :param url: :attr:`Tracking.result_url`; the API key goes along to the connection's own origin only.
        :raises RefusedError: when it is another host that is not among ``allowed_hosts``.
        """
        self._mask_signature(url)
        return self._reply(result_request(url), client)

    def download_scope(self, scope: str) -> Reply:
        """Return a scope's file, always the full data of the scope; the caller closes its ``body``, spooled to disk."""
        came_from(self, f"scope/{quote(scope, safe='')}")
        return self._reply(self.sage.download(scope, self.settings))

    async def ascope_version(self, scope: str, client: Client, known: ScopeVersion | None = None) -> ScopeVersion:
        """Return the state of a scope's file, on the running event loop; await :meth:`aget_settings` before.

        Where Sage names no ETag and no moment of its last change, the file is fetched to be compared.

        :param client: of ``get_conn(keeps_tokens=False)``: it never rotates an API key.
        :param known: the state that was seen last.
        :raises ExpiredKeyError: as of :meth:`atrack`.
        """
        reply = await client.arequest(self.sage.download(scope, self.settings, known))
        with closing(reply.body):
            return version_of(reply, known, self.settings)

    def _put(self, uploaded: Uploaded, file: Content, client: Client) -> None:
        self._mask_signature(uploaded.upload_url)
        with self._asked(put_request(uploaded.upload_url, file), client):
            self.log.info("The file of upload %s is sent.", uploaded.tracking_id)

    def _check_sent(self, error: MalformedReplyError) -> None:
        """Look whether an answer of no use was that to the file, not that to a rotation of the key before it.

        :raises UnavailableError: when it was that one.
        """
        rotation = self.sage.credential_request(self.settings)
        if rotation is not None and error.url == target(rotation, self.settings).shown:
            raise UnavailableError(f"{error} The file was not sent.", url=error.url) from None

    @staticmethod
    def _mask_signature(url: str) -> None:
        for text in signatures(url):
            mask_secret(text)

    def _uploaded(self, reply: Reply) -> Uploaded:
        """Return what Sage answered to an upload's first request; without an id nobody knows what became of it."""
        presigned = reply.request.content is None
        try:
            uploaded = sage_answers.uploaded_of(reply, self.settings)
            if presigned and not uploaded.upload_url:
                sage_answers.malformed(reply, self.settings, "the answer holds no uploadUrl")
        except MalformedReplyError as error:
            if presigned:  # no file was sent
                raise
            raise InDoubtError(f"{error} Sage may have the file; look there before it is sent again.") from None
        return uploaded

    def _registered(self, operation: str, data: Mapping[str, Any], **ids: str) -> dict[str, Any]:
        with self._asked(self.sage.onboarding(operation, data, self.settings, **ids)) as reply:
            return dict(sage_answers.without_secrets(sage_answers.plain_object(reply, self.settings, "an answer")))

    @contextmanager
    def _asked(self, request: Request, client: Client | None = None) -> Iterator[Reply]:
        reply = self._reply(request, client)
        with closing(reply.body):
            yield reply

    def _reply(self, request: Request, client: Client | None = None) -> Reply:
        if client is not None:
            return client.request(request)
        with super().get_conn() if request.anonymous else self.get_conn() as opened:
            return opened.request(request)

    def _read(self, connection: Connection) -> Settings:
        self._entered = super()._read(connection)
        return self._initial_keys(writable=False).in_force()

    def _initial_keys(self, *, writable: bool) -> InitialKeys:
        return InitialKeys(open_store(writable=writable, keys=True) or NoStore(), self._entered)

    def _take_announced(self) -> None:
        """Try the initial API key that Sage announced, if any, and put it in force when it proves to be ours."""
        in_force = self.settings.password
        keys = self._initial_keys(writable=True)
        announced = keys.announced()
        if announced is None:
            return
        mask_secret(announced.api_key)
        if keys.is_known(announced.api_key, in_force):
            keys.drop(announced)
            return
        trial = keys.trial(announced.api_key)
        try:
            current = prove(self.sage, trial)
        except (ConfigurationError, VendorError) as error:
            self._not_taken(announced, keys, error)
            return
        mask_secret(current)
        keys.take(announced, in_force, current)
        self._settings = trial
        self.log.info("Connection %r: the initial API key that Sage announced is ours, and in force.", self.conn_id)

    def _not_taken(self, announced: Announced, keys: InitialKeys, error: ConfigurationError | VendorError) -> None:
        refused = isinstance(error, RefusedError) and error.status in _NOT_OURS
        over = refused and keys.refuse(announced)
        words = "it is forgotten" if over else "the next task tries it again"
        message = f"an API key was announced and is not in force, {words}: {error}"
        if not (self.settings.password or over):
            raise UnavailableError(message, conn_id=self.conn_id) from None
        self.log.warning("%s", message)
