"""Orange Cloud Store: all that is known about the "Cloud Store Customer Space" API; names and paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError
from airflow_cloudbilling.found import Record
from airflow_cloudbilling.model import Document, Notice, Portion
from airflow_cloudbilling.parse import Malformed, clean, fold
from airflow_cloudbilling.redaction import redact
from airflow_cloudbilling.settings import Field, Settings
from airflow_cloudbilling.source import Ahead, Ask, Conversation, Credential, Endpoint, Reply, Request, Source, Verdict
from airflow_cloudbilling.sources.authentication import basic, read_token, token_url
from airflow_cloudbilling.sources.orange_answers import (
    judge,
    key_notice,
    listed,
    malformed,
    option,
    secrets_of,
    value_of,
)
from airflow_cloudbilling.sources.orange_documents import DEFAULT_TYPES, Listed, Lists, kind_of, types_of
from airflow_cloudbilling.sources.orange_files import Files
from airflow_cloudbilling.urls import path_part

# "Focus on the access token": valid for 60 minutes; the answer's table is missing in the document.
_TOKEN_SECONDS = 3600.0
_BASE_PATH = "/cloud/b2b/v1"
# Every sample asks for JSON, the one of a file too ("Response in binary format"), and Orange's gateway refuses requests
# without this header (HTTP 406), so the download says it as well.
_ACCEPT = {"Accept": "application/json"}
_HEADER_SAFE = re.compile(r"[!-~]{1,128}")


class OrangeCloudStore(Source):
    """Contracts and their documents: a document to download is the invoice."""

    conn_type: ClassVar[str] = "orange_cloudstore"
    title: ClassVar[str] = "Orange Cloud Store"
    hook_class: ClassVar[str] = "airflow_cloudbilling.hooks.orange.OrangeCloudStoreHook"
    default_host: ClassVar[str | None] = "https://api.orange.com"
    labels: ClassVar[Mapping[str, str]] = {"host": "Base URL", "login": "Client ID", "password": "Client secret"}
    required: ClassVar[tuple[str, ...]] = ("login", "password")
    fields: ClassVar[tuple[Field, ...]] = (
        Field("api_key", "API key", "X-API-Key, from Orange's API support; valid for two years.", secret=True),
        Field("auth_url", "Token URL", "Where access tokens come from; empty: {host}/oauth/v3/token."),
        Field("base_path", "Base path", "Stands before every path of the API.", default=_BASE_PATH),
        Field("contract_id", "Contract", "Only this contract (OCB…); empty: every contract that the key sees."),
        Field(
            "contract_path_style",
            "Path of POST requests",
            "The document's samples have /contract, its headings /contracts.",
            default="singular",
            enum=("singular", "plural"),
        ),
        Field("key_expires", "API key valid until", "2028-06-30: the log warns from 30 days before."),
    )
    kinds: ClassVar[tuple[str, ...]] = tuple(DEFAULT_TYPES)
    default_kind: ClassVar[str] = "purchase"
    endpoints: ClassVar[tuple[Endpoint, ...]] = (
        Endpoint(
            "POST https://api.orange.com/oauth/v3/token", "test_connection()", "every one, when a token is needed"
        ),
        Endpoint("GET /contracts", "contracts()", 'ListRecordsOperator(resource="contracts")'),
        Endpoint("GET /contract", "contract(contract_id)", 'GetRecordOperator(resource="contract")'),
        Endpoint(
            "GET /documents",
            "documents(contract_id)",
            'ListRecordsOperator(resource="documents", query={"contract_id": …})',
        ),
        Endpoint(
            "GET /documents/{id}/file", "download_document(document_id)", 'DownloadFileOperator(resource="documents")'
        ),
        Endpoint("POST /contract/{id}/user", "add_user(contract_id, data)", 'CreateRecordOperator(resource="user")'),
        Endpoint("POST /contract/", "create_contract(data)", 'CreateRecordOperator(resource="contract")'),
    )

    def account(self, settings: Settings) -> str:
        """Return the connection's contract; without one there is a slice for each contract, see :meth:`slices`."""
        contract = option(settings, "contract_id")
        if not contract:
            message = "is empty, so there is one account for each contract; enter a contract where one is wanted."
            raise ConfigurationError(message, conn_id=settings.conn_id, field="contract_id")
        return contract

    def slices(self, ask: Ask, settings: Settings) -> Conversation:
        """Yield the connection's contract, or every contract that the API key sees, in each kind that is asked for."""
        given = {kind_of(name) for name in ask.document_types}
        kinds = [kind for kind in self.kinds if kind in given] if given else [ask.kind]
        if settings.account and not option(settings, "contract_id"):
            message = (
                f"{settings.account!r} would name every contract's slices alike, so that each overwrites the others;"
                " enter a contract_id as well, or leave account empty."
            )
            raise ConfigurationError(message, conn_id=settings.conn_id, field="account")
        if option(settings, "contract_id"):
            contracts = [settings.account or self.account(settings)]
        else:
            reply = yield self._get("/contracts", settings)
            contracts = self._contract_ids(reply, settings)
        if not contracts:
            yield Notice("Orange lists no contract for this API key; ask its API support which ones it should see.")
        for contract in contracts:
            for kind in kinds:
                yield Portion(contract, kind)

    def _contract_ids(self, reply: Reply | None, settings: Settings) -> list[str]:
        records = listed(reply, "contracts", settings)
        found = [next((v for k, v in r.items() if fold(k) == "id"), None) for r in records if isinstance(r, dict)]
        ids = list(dict.fromkeys(str(each) for each in found if each))
        usable = len(found) == len(records) and all(found) and all(map(_HEADER_SAFE.fullmatch, ids))
        if reply is not None and not usable:
            raise malformed(reply, "a contract came without a usable id, so its slice has no name", settings)
        return ids

    def authorise(self, request: Request, settings: Settings, credential: str | None = None) -> Request:
        """Add the API key and the access token; the document leaves the scheme out, every real caller has Bearer."""
        headers = {**request.headers, "X-API-Key": self._api_key(settings)}
        if credential:
            headers["Authorization"] = f"Bearer {credential}"
        return replace(request, headers=headers)

    def credential_request(self, settings: Settings) -> Request | None:
        """Return the client credentials grant ("Zoom on the access token"; its body is Orange Developer's 2-legged)."""
        self._check(settings)
        if ":" in settings.login:
            raise ConfigurationError("a client ID has no colon.", conn_id=settings.conn_id, field="login")
        url = token_url(settings, f"{settings.base_url}/oauth/v3/token")
        headers = {**_ACCEPT, "Authorization": f"Basic {basic(settings.login, settings.password)}"}
        return Request("POST", url, headers=headers, form={"grant_type": "client_credentials"}, configured=True)

    def credential(self, reply: Reply, settings: Settings) -> Credential:
        """Read the access token; Orange sends ``expires_in`` as a text."""
        return read_token(reply, settings, self.secrets(settings), _TOKEN_SECONDS)

    def secrets(self, settings: Settings) -> list[str]:
        """Return the client secret, the Basic value made of it, and the API key."""
        return secrets_of(settings)

    def _api_key(self, settings: Settings) -> str:
        key = option(settings, "api_key")
        if not key:
            message = "is empty; enter the X-API-Key that Orange's API support sent in an encrypted container."
            message += settings.instead_of("api_key")
            raise ConfigurationError(message, conn_id=settings.conn_id, field="api_key")
        return key

    def verdict(self, reply: Reply, settings: Settings) -> Verdict:
        """Judge by status and Orange's own code, which stand in the body's first bytes."""
        return judge(reply, settings)

    def probe(self, settings: Settings) -> Request:
        """Return a question for the connection's contract, or for the list of contracts."""
        contract = option(settings, "contract_id")
        return self._get("/contract", settings, contract) if contract else self._get("/contracts", settings)

    def invoices(self, ask: Ask, settings: Settings) -> Conversation:
        """Ask for one contract's documents, type by type, and download those of the period ("Example 2")."""
        contract = self._contract(ask.account, settings)
        lists = Lists(ask, settings)
        files = Files(ask, lists.names.line, settings.max_body)
        for words in (key_notice(settings), lists.notice()):
            if words:
                yield Notice(words)
        params = {name: value for name, value in ask.params.items() if name == "zipped"}
        for document_type in types_of(ask):
            reply = yield self._documents(document_type, contract, ask.params, settings)
            wanted: list[Listed] = []
            records = listed(reply, "documents", settings)
            if ask.params.get("limit") == str(len(records)):
                yield Notice(f"As many {document_type} came as params' limit allows; there may be more.")
            for found in lists.placed(records, document_type):
                if isinstance(found, Listed):
                    wanted.append(found)
                else:
                    yield found
            downloads = [self._file(one.asked_as, contract, params, settings) for one in wanted]
            yield from _downloaded(wanted, downloads, files, settings)

    def ready(self, ask: Ask, settings: Settings) -> Conversation:
        """Ask for the lists alone and yield each document of the period."""
        contract = self._contract(ask.account, settings)
        lists = Lists(ask, settings)
        for document_type in types_of(ask):
            reply = yield self._documents(document_type, contract, ask.params, settings)
            for found in lists.placed(listed(reply, "documents", settings), document_type):
                if isinstance(found, Listed):
                    yield Document(found.document_id, found.document_id, document_type, found.filename)

    def list_records(self, resource: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Yield ``contracts``, or ``documents`` of ``contract_id`` (by ``documentType``, at most ``limit``)."""
        if resource == "contracts":
            request = self._get("/contracts", settings, params=params)
        elif resource == "documents":
            contract = self._contract(params.get("contract_id", ""), settings)
            request = self._get("/documents", settings, contract, _without(params, "contract_id"))
        else:
            raise self._lacks("list", resource, settings)
        reply = yield request
        for record in listed(reply, resource, settings):
            yield Record(record)

    def get_record(self, resource: str, record_id: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Yield one ``contract``, which a header chooses ("Example 1")."""
        if resource not in ("contract", "contracts"):
            raise self._lacks("get", resource, settings)
        reply = yield self._get("/contract", settings, self._contract(record_id, settings), params)
        assert reply is not None
        yield Record(value_of(reply, settings))

    def create_record(self, resource: str, data: Any, settings: Settings) -> Conversation:
        """Create a ``user`` of the contract that ``contract_id`` in data names ("Example 3"), or a ``contract`` (4)."""
        base = "/contracts" if settings.options.get("contract_path_style") == "plural" else "/contract"
        if resource == "user":
            contract = self._contract(str(data.get("contract_id") or ""), settings)
            path, data = f"{base}/{path_part(contract)}/user", _without(data, "contract_id")
        elif resource == "contract":
            path = f"{base}/"
        else:
            raise self._lacks("create", resource, settings)
        reply = yield Request("POST", self._path(path, settings), headers=_ACCEPT, json=data)
        assert reply is not None
        try:
            yield Record(value_of(reply, settings) if reply.head(100).strip() else {})
        except MalformedReplyError:  # it was created, whatever the answer looks like, which no document shows
            yield Record(clean(redact(reply.head().decode("utf-8", "replace"), self.secrets(settings))))

    def file_request(self, resource: str, record_id: str, params: Mapping[str, str], settings: Settings) -> Request:
        """Return the request for a document's file; ``contract_id`` in params, or the connection's, is its contract."""
        if resource != "documents":
            raise self._lacks("download", resource, settings)
        contract = self._contract(params.get("contract_id", ""), settings)
        return self._file(record_id, contract, _without(params, "contract_id"), settings)

    def _check(self, settings: Settings) -> None:
        """Refuse a malformed field while nothing has been asked yet."""
        self._api_key(settings)
        self._path("", settings)
        key_notice(settings)
        if option(settings, "contract_id"):
            self._contract("", settings)

    def _contract(self, given: str, settings: Settings) -> str:
        """Return the contract for the header: ``account`` in a connection may give its slices another name."""
        contract = option(settings, "contract_id")
        if not contract or (given and given != settings.account):
            contract = given or contract
        if not _HEADER_SAFE.fullmatch(contract):
            words = f"{contract!r} is no contract's id" if contract else "is empty; name a contract"
            words += ", such as OCB0001234, here or as contract_id in the task's query."
            words += settings.instead_of("contract_id")
            raise ConfigurationError(words, conn_id=settings.conn_id, field="contract_id")
        return contract

    def _path(self, path: str, settings: Settings) -> str:
        base = option(settings, "base_path") or _BASE_PATH
        if not re.fullmatch(r"/?[\w./~-]*", base) or ".." in base:
            raise ConfigurationError(
                f"{base!r} is no path such as {_BASE_PATH}.", conn_id=settings.conn_id, field="base_path"
            )
        return f"/{base.strip('/')}{path}" if base.strip("/") else path

    def _get(
        self, path: str, settings: Settings, contract: str = "", params: Mapping[str, str] | None = None
    ) -> Request:
        headers = {**_ACCEPT, "X-ECCS-Contract-Id": contract} if contract else _ACCEPT
        return Request("GET", self._path(path, settings), params or {}, headers)

    def _documents(self, document_type: str, contract: str, params: Mapping[str, str], settings: Settings) -> Request:
        if own := [name for name in params if name.lower() == "documenttype"]:
            raise ConfigurationError(f"params must not hold {own[0]}: use document_types.")
        asked = {"documentType": document_type, **_without(params, "zipped")}
        return self._get("/documents", settings, contract, asked)

    def _file(self, document_id: str, contract: str, params: Mapping[str, str], settings: Settings) -> Request:
        return self._get(f"/documents/{path_part(document_id)}/file", settings, contract, params)


def _downloaded(
    wanted: Sequence[Listed], downloads: Sequence[Request], files: Files, settings: Settings
) -> Conversation:
    """Download documents, some of them at once, and yield what their files hold, in the order of the list."""
    yield Ahead(downloads)
    for one, request in zip(wanted, downloads, strict=True):
        reply = yield request
        assert reply is not None
        try:
            yield from files.items(one, reply)
        except Malformed as error:
            raise malformed(reply, str(error), settings) from None


def _without(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != name}
