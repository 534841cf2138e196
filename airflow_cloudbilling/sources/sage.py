"""Sage Connected Cloud: all that is known about it, from "Connected Cloud API" (vendor-docs/sage-connected-cloud.txt).

It is where invoices go. The document's tables are lost, so that paths, the key's header and the way to upload are
fields of the connection, whose defaults are assumed (vendor facts 4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from airflow_cloudbilling.content import Content, as_form
from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.settings import Field, Settings
from airflow_cloudbilling.source import Ask, Conversation, Credential, Endpoint, Reply, Request, Source, Verdict
from airflow_cloudbilling.sources.sage_answers import SECRET_NAMES, judge, key_of
from airflow_cloudbilling.sources.sage_paths import ENDPOINTS, OPERATIONS, check_paths, path_of
from airflow_cloudbilling.sources.sage_scopes import NOT_MODIFIED, ScopeVersion, conditions, is_conditional

NO_UPLOAD = "0"  # an id that no upload has
_ACCEPT = {"Accept": "application/json"}
_LIFETIME = 10 * 365 * 86_400.0  # seconds
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class SageConnectedCloud(Source):
    """Files to send, to follow and to fetch; no invoices to import."""

    conn_type: ClassVar[str] = "sage_connected_cloud"
    title: ClassVar[str] = "Sage Connected Cloud"
    hook_class: ClassVar[str] = "airflow_cloudbilling.hooks.sage.SageConnectedCloudHook"
    default_host: ClassVar[str | None] = None
    labels: ClassVar[Mapping[str, str]] = {
        "host": "Base URL",
        "login": "Developer ID",
        "password": "Initial API key",
    }
    placeholders: ClassVar[Mapping[str, str]] = {
        "host": "as Sage's developer portal names it",
        "login": "comes by e-mail after the captcha",
        "password": "comes to your notification URL after consent",
    }
    required: ClassVar[tuple[str, ...]] = ("host",)
    fields: ClassVar[tuple[Field, ...]] = (
        Field("secret", "Secret", "Yours: goes with every passcode, and rotates the API key.", secret=True),
        Field("application_id", "Application ID", "Comes by e-mail with the developer ID."),
        Field("key_header", "Header of the API key", "Sage's document does not name it.", default="apikey"),
        Field("key_prefix", "Word before the API key", "Such as Bearer; empty: none."),
        Field(
            "upload_strategy",
            "How files are uploaded",
            "As the request's body, to an address that Sage names, or as a form.",
            default="direct",
            enum=("direct", "presigned", "multipart"),
        ),
        Field("paths", "Paths", "Operation → path template, where Sage's differ from the defaults.", "object"),
    )
    rotates: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ()
    default_kind: ClassVar[str] = ""
    dropped_fields: ClassVar[tuple[str, ...]] = SECRET_NAMES
    endpoints: ClassVar[tuple[Endpoint, ...]] = ENDPOINTS

    def account(self, settings: Settings) -> str:
        """Return the developer ID."""
        return settings.login

    def slices(self, ask: Ask, settings: Settings) -> Conversation:
        """Refuse: there are none."""
        return self.invoices(ask, settings)

    def invoices(self, ask: Ask, settings: Settings) -> Conversation:
        """Refuse: nothing can be imported from here.

        :raises ConfigurationError: always.
        """
        raise ConfigurationError(
            "is where staged invoices go, there are none to import from Sage; use SageUploadOperator, or name a"
            " connection of a billing vendor.",
            conn_id=settings.conn_id,
        )

    def authorise(self, request: Request, settings: Settings, credential: str | None = None) -> Request:
        """Add the API key, in the header that the connection names."""
        key = credential or settings.password
        if not key:
            raise ConfigurationError(
                "is empty; enter the API key that came to the notification URL after consent.",
                conn_id=settings.conn_id,
                field="password",
            )
        prefix = str(settings.options.get("key_prefix") or "")
        return replace(request, headers={**request.headers, _key_header(settings): f"{prefix} {key}".lstrip()})

    def credential_request(self, settings: Settings) -> Request | None:
        """Return the rotation ("PATCH apikey"), for which the initial key is kept for ever; None before on-boarding."""
        check_paths(settings)
        _key_header(settings)
        initial, secret = settings.password, _option(settings, "secret")
        if not (initial and secret):
            return None
        data = {"initialApikey": initial, "secret": secret}  # in the document's spelling
        operation = OPERATIONS["rotate_api_key"]
        path = path_of("rotate_api_key", settings)
        return Request(operation.method, path, headers=_ACCEPT, json=data, configured=True)

    def check_rotation(self, settings: Settings) -> None:
        """Look whether the connection can rotate its API key.

        :raises ConfigurationError: when the initial key or the secret is missing.
        """
        for name, value in (("password", settings.password), ("secret", _option(settings, "secret"))):
            if not value:
                message = "is empty; the API key is rotated with the initial one and the secret of the on-boarding."
                raise ConfigurationError(message, conn_id=settings.conn_id, field=name)

    def credential(self, reply: Reply, settings: Settings) -> Credential:
        """Read the new API key; how long it lives the document does not say, a 401 does."""
        return Credential(key_of(reply, settings), _LIFETIME)

    def secrets(self, settings: Settings) -> list[str]:
        """Return the initial API key and the secret."""
        return [each for each in (settings.password, _option(settings, "secret")) if each]

    def verdict(self, reply: Reply, settings: Settings) -> Verdict:
        """Judge by the status; a 401 is an API key that is over ("API Key Rotation")."""
        good = (NOT_MODIFIED,) if is_conditional(reply.request.headers) else ()
        return judge(reply, settings, good=(404,) if reply.request == self.probe(settings) else good)

    def probe(self, settings: Settings) -> Request:
        """Return the question for an upload that is not there, for which 404 is the good answer."""
        return self.tracking(NO_UPLOAD, settings)

    def onboarding(self, operation: str, data: Mapping[str, Any], settings: Settings, **ids: str) -> Request:
        """Return a request of the on-boarding process, which goes without an API key.

        :param operation: ``register_developer``, ``register_application`` or ``create_passcode``.
        :param data: the body.
        :param ids: ``developer_id`` and ``application_id``, instead of the connection's.
        :raises ConfigurationError: when an id is missing.
        """
        given = {
            "developer_id": ids.get("developer_id") or settings.login,
            "application_id": ids.get("application_id") or _option(settings, "application_id"),
        }
        path = OPERATIONS[operation].path
        for name, field in (("developer_id", "login"), ("application_id", "application_id")):
            if f"{{{name}}}" in path and not given[name]:
                message = f"is empty; enter the {name.replace('_', ' ')} that Sage sent by e-mail after the captcha."
                raise ConfigurationError(message, conn_id=settings.conn_id, field=field)
        method, path = OPERATIONS[operation].method, path_of(operation, settings, **given)
        return Request(method, path, headers=_ACCEPT, json=dict(data), anonymous=True)

    def passcode(self, settings: Settings, **ids: str) -> Request:
        """Return the request for a passcode, "providing a 'secret'"; parameters as of :meth:`onboarding`."""
        secret = _option(settings, "secret")
        if not secret:
            message = "is empty; enter the secret of your own that goes with a passcode and rotates the API key."
            raise ConfigurationError(message, conn_id=settings.conn_id, field="secret")
        return self.onboarding("create_passcode", {"secret": secret}, settings, **ids)

    def upload(self, scope: str, content: Content, settings: Settings, *, name: str, sha256: str) -> Request:
        """Return the first request of an upload, by the connection's strategy; of a presigned one it carries no file.

        :param name: of the file.
        :param sha256: hex digest of the file.
        """
        path, strategy = path_of("upload", settings, scope=scope), settings.options.get("upload_strategy")
        if strategy == "presigned":
            told = {"fileName": name, "size": content.size, "sha256": sha256}
            return Request("POST", path, headers=_ACCEPT, json=told)
        body = as_form(content, name) if strategy == "multipart" else content
        return Request("POST", path, headers=_ACCEPT, content=body)

    def tracking(self, tracking_id: str, settings: Settings) -> Request:
        """Return the question for an upload's status ("GET tracking file")."""
        return Request("GET", path_of("tracking", settings, tracking_id=tracking_id), headers=_ACCEPT)

    def download(self, scope: str, settings: Settings, known: ScopeVersion | None = None) -> Request:
        """Return the request for a scope's file, which holds all data of it ("Managing the Downloaded Data").

        :param known: the state of the file that is not wanted again; where Sage names no ETag, it comes all the same.
        """
        return Request("GET", path_of("download", settings, scope=scope), headers={**_ACCEPT, **conditions(known)})


def put_request(url: str, content: Content) -> Request:
    """Return the request that sends a file to the address that Sage named for it."""
    return Request("PUT", url, content=content, anonymous=True)


def result_request(url: str) -> Request:
    """Return the request for a result file ("downloadResultUrl")."""
    return Request("GET", url, headers=_ACCEPT)


def _key_header(settings: Settings) -> str:
    name = str(settings.options.get("key_header") or "apikey")
    if not _HEADER_NAME.fullmatch(name):
        message = f"{name!r} is no name of an HTTP header, such as apikey or X-API-Key."
        raise ConfigurationError(message, conn_id=settings.conn_id, field="key_header")
    return name


def _option(settings: Settings, name: str) -> str:
    return str(settings.options.get(name) or "")
