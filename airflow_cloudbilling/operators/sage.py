"""Sage Connected Cloud for DAG authors: on-boarding with its human steps, API keys, uploads, tracking, downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import BaseOperator

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.hooks.lineage import of_file, of_vendor
from airflow_cloudbilling.operators.api import CreateRecordOperator
from airflow_cloudbilling.operators.arguments import given
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.lineage import Lineage, Traced
from airflow_cloudbilling.operators.sage_upload import SageUploadOperator as SageUploadOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.hooks.billing import BillingHook
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook

__all__ = [
    "SageCreatePasscodeOperator",
    "SageDownloadScopeOperator",
    "SageRegisterApplicationOperator",
    "SageRegisterDeveloperOperator",
    "SageRotateApiKeyOperator",
    "SageTrackUploadOperator",
    "SageUploadOperator",
]
DEFAULT_CONN_ID = "sage_connected_cloud_default"
_CONSENT = (
    "With a passcode (SageCreatePasscodeOperator) the user of the Sage product chooses 'Enable External Integration',"
    " enters it and consents.",
    "Sage then delivers the API key to the application's notificationUrl: enter it as the password of connection"
    " {conn_id!r}, where it stays for ever, since it rotates every later one; the connection's secret is kept with it."
    " Where Airflow takes Sage's calls, nobody has to enter it.",
)
_REGISTERED = (
    "Open {url} in a web browser and solve the captcha.",
    "Sage sends an e-mail with the ids: enter the developer ID as login, and the application ID as application_id, of"
    " connection {conn_id!r}.",
    *_CONSENT,
)


class _RegisterOperator(CreateRecordOperator):
    """Base of the operators that register something, once, whatever ``retries`` says."""

    def create(self, hook: BillingHook) -> dict[str, Any]:
        """Register, and say what people have to do now."""
        answer = self.register(_sage(self.conn_id))
        url = next((str(each) for name, each in answer.items() if name.lower() == "registrationurl"), None)
        todo = _todo(self.conn_id, _REGISTERED, url=url or "the registrationUrl, which Sage's answer lacks,")
        self.log.info("%s", "\n".join(todo))
        return {"registrationUrl": url, "next_steps": todo, "answer": answer}

    def register(self, hook: SageConnectedCloudHook) -> dict[str, Any]:
        """Return what Sage answers."""
        raise NotImplementedError


class SageRegisterDeveloperOperator(_RegisterOperator):
    """Register a developer and an application by ``POST developers``; return what people have to do then.

    The result is ``{registrationUrl, next_steps, answer}``; the log has the steps too.

    :param conn_id: connection of the type ``sage_connected_cloud``; nothing but its host is needed.
    :param data: the developer's and the application's details, as Sage's document has them, with a ``notificationUrl``.
    :raises AirflowFailException: when no retry can mend it, or nobody knows whether it was carried out.
    """

    def __init__(self, *, data: Mapping[str, Any], conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(conn_id=conn_id, resource="developers", data=data, **kwargs)

    def register(self, hook: SageConnectedCloudHook) -> dict[str, Any]:
        """Return what Sage answers."""
        return hook.register_developer(self.data)


class SageRegisterApplicationOperator(_RegisterOperator):
    """Register a further application by ``POST applications``; result and errors as of the developer's.

    :param conn_id: connection of the type ``sage_connected_cloud``.
    :param data: the application's details, as Sage's document has them.
    :param developer_id: instead of the connection's login.
    """

    template_fields: Sequence[str] = (*CreateRecordOperator.template_fields, "developer_id")

    def __init__(
        self, *, data: Mapping[str, Any], conn_id: str = DEFAULT_CONN_ID, developer_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(conn_id=conn_id, resource="applications", data=data, **kwargs)
        self.developer_id = developer_id

    def register(self, hook: SageConnectedCloudHook) -> dict[str, Any]:
        """Return what Sage answers."""
        return hook.register_application(self.data, given(self.developer_id))


class SageOperator(BaseOperator):
    """Base of the operators that ask Sage one thing.

    :param conn_id: connection of the type ``sage_connected_cloud``.
    :raises AirflowFailException: when no retry can mend it: wrong settings, a refusal, an outcome in doubt.
    """

    template_fields: Sequence[str] = ("conn_id",)
    ui_color = "#e3f3df"

    def __init__(self, *, conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Context) -> Any:
        """Ask and return what is small of the answer."""
        with failing_for_good():
            return self.call(_sage(self.conn_id))

    def call(self, hook: SageConnectedCloudHook) -> Any:
        """Ask."""
        raise NotImplementedError


class SageCreatePasscodeOperator(SageOperator):
    """Ask for a passcode by ``POST passcodes``; return ``{expires}``, an ISO moment or what Sage wrote.

    :param developer_id: instead of the connection's login.
    :param application_id: instead of the connection's ``application_id``.
    :param return_passcode: return the passcode too, for the person who enters it: whoever may read the task's XCom
        sees it. It is masked in logs in any case.
    """

    template_fields: Sequence[str] = (*SageOperator.template_fields, "developer_id", "application_id")

    def __init__(
        self,
        *,
        developer_id: str | None = None,
        application_id: str | None = None,
        return_passcode: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.developer_id = developer_id
        self.application_id = application_id
        self.return_passcode = return_passcode

    def call(self, hook: SageConnectedCloudHook) -> dict[str, Any]:
        """Ask for the passcode and say what people have to do now."""
        found = hook.create_passcode(given(self.developer_id), given(self.application_id))
        expires = found.expires.isoformat() if found.expires else found.expires_as_sent
        where = "in the task's XCom" if self.return_passcode else "shown with return_passcode=True only"
        self.log.info("The passcode is %s; it is good until %s.", where, expires or "a moment that Sage does not say")
        self.log.info("%s", "\n".join(_todo(self.conn_id, _CONSENT)))
        return {"expires": expires, **({"passcode": found.passcode} if self.return_passcode else {})}


class SageRotateApiKeyOperator(SageOperator):
    """Rotate the API key by ``PATCH apikey`` and keep the new one, before it expires; return ``{rotated_at}``.

    Nothing depends on it: whatever meets an expired key rotates it by itself.
    """

    def call(self, hook: SageConnectedCloudHook) -> dict[str, str]:
        """Rotate the key."""
        hook.rotate_api_key()
        return {"rotated_at": pendulum.now("UTC").isoformat()}


class SageTrackUploadOperator(SageOperator):
    """Ask once how far an upload is; return ``{status, progress, downloadResultUrl}``, the address without signature.

    :param tracking_id: Sage's id of the upload.
    """

    template_fields: Sequence[str] = (*SageOperator.template_fields, "tracking_id")

    def __init__(self, *, tracking_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tracking_id = tracking_id

    def call(self, hook: SageConnectedCloudHook) -> dict[str, str | None]:
        """Ask for the upload's status."""
        found = hook.track(str(self.tracking_id))
        self.log.info("Upload %s: %s, progress %s.", self.tracking_id, found.status, found.progress)
        return {"status": found.status, "progress": found.progress, "downloadResultUrl": found.result_uri}


class SageDownloadScopeOperator(Traced, SageOperator):
    """Fetch a scope's file, which always holds the full data of the scope: into a file, staging, or both.

    Each takes it as a whole or not at all, and what is there from an earlier download is replaced: records that the
    new file lacks are gone at Sage. In staging (``cloudbilling_scope_record``) what did not change is not written, and
    a file that was asked for earlier replaces none that is newer (``superseded``).

    The result is ``{scope, uri, size, sha256, records}``; ``uri`` is null without a destination, ``records`` when the
    file is no list. With staging it has ``{status, new, changed, unchanged, removed}`` too.

    :param scope: such as ``Products``.
    :param destination: file, object (``s3://conn_id@bucket/products.json``), or folder for ``<scope>.json``.
    :param staging_conn_id: connection of the staging database.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :param record_id: the member of a record that identifies it, for staging.
    """

    template_fields: Sequence[str] = (
        *SageOperator.template_fields,
        "scope",
        "destination",
        "staging_conn_id",
        "schema",
        "record_id",
    )

    def __init__(
        self,
        *,
        scope: str,
        destination: str | None = None,
        staging_conn_id: str | None = None,
        schema: str | None = None,
        record_id: str = "id",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scope = scope
        self.destination = destination
        self.staging_conn_id = staging_conn_id
        self.schema = schema
        self.record_id = record_id

    def call(self, hook: SageConnectedCloudHook) -> dict[str, Any]:
        """Download the file; memory does not grow with its size."""
        from airflow_cloudbilling.object_storage import Place
        from airflow_cloudbilling.operators.sage_scope import keep_scope, read_scope, snapshot_of

        destination, staging = given(self.destination), given(self.staging_conn_id)
        if not (destination or staging):
            message = "is empty, and staging_conn_id too; say where the scope is to go."
            raise ConfigurationError(message, field="destination")
        place = Place(destination, "destination") if destination else None
        with snapshot_of(self.conn_id, self.scope, staging, given(self.schema)) as snapshot:
            reply = hook.download_scope(self.scope)
            with closing(reply.body):
                records = read_scope(reply, self.conn_id, self.scope, self.record_id, snapshot)
                staged = snapshot.commit().as_dict() if snapshot else {}
                uri = keep_scope(reply, self.scope, place) if place else None
        self.log.info("%s bytes of %s, %s records: %s", reply.size, self.scope, records, {"uri": uri, **staged})
        result = {"scope": self.scope, "uri": uri, "size": reply.size, "sha256": reply.sha256, "records": records}
        with self.tracing() as lineage:
            self._trace(lineage, result)
        return {**result, **staged}

    def expect(self, lineage: Lineage) -> None:
        """Note Sage's scope, and the staging table where one is asked for."""
        lineage.read(of_vendor(_sage(self.conn_id).settings, "scope", self.scope))
        if given(self.staging_conn_id):
            lineage.wrote(*self.staged("scope_record"))

    def _trace(self, lineage: Lineage, result: Mapping[str, Any]) -> None:
        rows, size = result["records"], result["size"]
        self.expect(lineage)
        lineage.read(*lineage.inputs, rows=rows, bytes=size)
        lineage.wrote(*lineage.outputs, rows=rows)
        if result["uri"]:
            lineage.wrote(of_file(result["uri"]), rows=rows, bytes=size)


def _sage(conn_id: str) -> SageConnectedCloudHook:
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook

    return SageConnectedCloudHook(conn_id)


def _todo(conn_id: str, steps: Sequence[str], **words: str) -> list[str]:
    return [f"{number}. {step.format(conn_id=conn_id, **words)}" for number, step in enumerate(steps, 1)]
