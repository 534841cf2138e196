"""A vendor's API for DAG authors: list, get, create, update and delete records, and download files, of any vendor.

Which resources a vendor has stands in the README's table of endpoints. In results numbers with a fraction are text,
since XCom would make floats of them; files hold them as JSON numbers, to the last digit.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, cast

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout

from airflow_cloudbilling.errors import (
    ConfigurationError,
    InDoubtError,
    MalformedReplyError,
    RefusedError,
    UnavailableError,
)
from airflow_cloudbilling.operators.arguments import FOLDER, given, needed
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.files import keeping
from airflow_cloudbilling.parse.files import HTML, disposition_name, safe_name, sniff
from airflow_cloudbilling.parse.records import json_text

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow.sdk import Context

    from airflow_cloudbilling.hooks.billing import BillingHook
    from airflow_cloudbilling.source import Reply

_COPY = 1024 * 1024
_SENT = "cloudbilling_sent"  # key in Airflow's task state store


class ApiOperator(BaseOperator):
    """Base of the operators that call one resource of a vendor.

    :param conn_id: connection of a billing vendor; its type decides which one is asked.
    :param resource: as the README's table of endpoints has it, such as ``customers``.
    :raises AirflowFailException: when no retry can mend it: wrong settings, a refusal, an outcome in doubt.
    """

    template_fields: Sequence[str] = ("conn_id", "resource")
    ui_color = "#e8f1ea"

    def __init__(self, *, conn_id: str, resource: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.resource = resource

    def execute(self, context: Context) -> Any:
        """Call the resource and return what is small of the result."""
        from airflow_cloudbilling.hooks.billing import BillingHook

        with failing_for_good():
            return self.call(BillingHook(self.conn_id), context)

    def call(self, hook: BillingHook, context: Context) -> Any:
        """Call the resource."""
        raise NotImplementedError


class ListRecordsOperator(ApiOperator):
    """Return every record of a resource, or write them to a file, one JSON object a line.

    :param query: query parameters for the vendor.
    :param destination: file or object (``s3://conn_id@bucket/customers.jsonl``), written as a whole or not at all;
        the result is then ``{uri, records, bytes, sha256}``. Left out: the result is the list.
    :param max_xcom_bytes: a longer list is an error, as soon as so many bytes of JSON have come.
    """

    template_fields: Sequence[str] = (*ApiOperator.template_fields, "query", "destination")

    def __init__(
        self,
        *,
        query: Mapping[str, str] | None = None,
        destination: str | None = None,
        max_xcom_bytes: int = 256 * 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.query = query
        self.destination = destination
        self.max_xcom_bytes = max_xcom_bytes

    def call(self, hook: BillingHook, context: Context) -> list[Any] | dict[str, Any]:
        """Read the records as they come; memory does not grow with their number when they go to a file."""
        destination = given(self.destination)
        records = cast("Generator[Any]", hook.list_records(self.resource, _texts(self.query)))
        with closing(records):
            return self._write(records, destination) if destination else self._collect(records)

    def _collect(self, records: Iterator[Any]) -> list[Any]:
        collected: list[Any] = []
        size = 0
        for record in records:
            collected.append(plain(record))
            size += len(json_text(record).encode())
            if size > self.max_xcom_bytes:
                raise ConfigurationError(
                    f"the list of {self.resource!r} is longer than max_xcom_bytes ({self.max_xcom_bytes}), after"
                    f" {len(collected)} records; name a file for it, such as s3://conn_id@bucket/records.jsonl.",
                    field="destination",
                )
        return collected

    def _write(self, records: Iterator[Any], destination: str) -> dict[str, Any]:
        from airflow_cloudbilling.object_storage import Place

        if destination.endswith("/"):
            raise ConfigurationError(f"{destination!r} is a folder; name a file in it.", field="destination")
        place = Place(destination, "destination")
        count = 0
        with keeping(place) as file:
            for count, record in enumerate(records, 1):  # noqa: B007 - how many there were is told afterwards
                file.write(f"{json_text(record)}\n".encode())
        self.log.info("%s records, %s bytes, are in %s.", count, file.bytes, place.address())
        return {"uri": place.address(), "records": count, "bytes": file.bytes, "sha256": file.sha256}


class RecordOperator(ApiOperator):
    """Base of the operators that are about one record.

    :param record_id: the vendor's id of it.
    """

    template_fields: Sequence[str] = (*ApiOperator.template_fields, "record_id")

    def __init__(self, *, conn_id: str, resource: str, record_id: str, **kwargs: Any) -> None:
        super().__init__(conn_id=conn_id, resource=resource, **kwargs)
        self.record_id = record_id

    @property
    def key(self) -> str:
        """Return the id; without one, the vendor would be asked about all records."""
        return needed(self.record_id, "record_id", "the record by its id")


class GetRecordOperator(RecordOperator):
    """Return one record.

    :param query: query parameters for the vendor.
    """

    template_fields: Sequence[str] = (*RecordOperator.template_fields, "query")

    def __init__(self, *, query: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.query = query

    def call(self, hook: BillingHook, context: Context) -> Any:
        """Return the record as plain data."""
        return plain(hook.get_record(self.resource, self.key, _texts(self.query)))


class CreateRecordOperator(ApiOperator):
    """Create a record and return what the vendor answers; it is sent once, whatever ``retries`` says.

    When it may have been carried out or not, the task fails for good and says what to look at. With Airflow 3.3 that
    is also seen after a worker was killed in between. A person who has looked clears the task, which sends it again.

    :param data: what is sent, as the vendor's document has it; amounts as text or ``Decimal``.
    """

    template_fields: Sequence[str] = (*ApiOperator.template_fields, "data")

    def __init__(self, *, data: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data

    def call(self, hook: BillingHook, context: Context) -> Any:
        """Send the record."""
        store: Any = context.get("task_state_store")  # Airflow 3.3
        attempt = str(getattr(context.get("ti"), "max_tries", None))  # grows when a person clears the task
        if store is not None:
            if store.get(_SENT) == attempt:
                self._doubt("an earlier try of this task ended while the vendor was asked")
            store.set(_SENT, attempt)
        try:
            return plain(self.create(hook))
        except (InDoubtError, MalformedReplyError, AirflowTaskTimeout) as error:
            self._doubt(str(error))
        except (ConfigurationError, RefusedError, UnavailableError):  # nothing was created
            if store is not None:
                store.delete(_SENT)
            raise

    def create(self, hook: BillingHook) -> Any:
        """Create the record and return what the vendor answers."""
        return hook.create_record(self.resource, self.data)

    def _doubt(self, what: str) -> NoReturn:
        raise AirflowFailException(
            f"{what} Look whether the vendor of connection {self.conn_id!r} has this record among its"
            f" {self.resource!r}: if so, mark the task as success; if not, clear it."
        )


class UpdateRecordOperator(RecordOperator):
    """Change a record and return what the vendor answers.

    :param data: what is sent, as the vendor's document has it; amounts as text or ``Decimal``.
    """

    template_fields: Sequence[str] = (*RecordOperator.template_fields, "data")

    def __init__(self, *, data: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data

    def call(self, hook: BillingHook, context: Context) -> Any:
        """Send the change."""
        return plain(hook.update_record(self.resource, self.key, self.data))


class DeleteRecordOperator(RecordOperator):
    """Delete a record and return what the vendor answers."""

    def call(self, hook: BillingHook, context: Context) -> Any:
        """Delete the record."""
        return plain(hook.delete_record(self.resource, self.key))


class DownloadFileOperator(RecordOperator):
    """Keep a file of the vendor as ``<destination>/<record id>/<file name>``, as a whole or not at all.

    An id or a name that holds ``/``, ``..``, control characters or the like is replaced by its SHA-256. The result is
    ``{uri, filename, size, content_type, sha256}``; the type is told by the content, not by what the vendor says.

    :param destination: folder, or prefix of a bucket (``s3://conn_id@bucket/documents``).
    :param query: query parameters for the vendor.
    """

    template_fields: Sequence[str] = (*RecordOperator.template_fields, "destination", "query")

    def __init__(self, *, destination: str, query: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.destination = destination
        self.query = query

    def call(self, hook: BillingHook, context: Context) -> dict[str, Any]:
        """Download the file; memory does not grow with its size."""
        from airflow_cloudbilling.object_storage import Place

        place = Place(needed(self.destination, "destination", FOLDER), "destination")
        reply = hook.download(self.resource, self.key, _texts(self.query))
        with closing(reply.body):
            return self._keep(reply, place)

    def _keep(self, reply: Reply, place: Any) -> dict[str, Any]:
        kind = sniff(reply.body)
        if not reply.size or kind is HTML:
            what = "a web page" if reply.size else "zero bytes"
            raise MalformedReplyError(f"{reply.url} was answered with {what}, not a file.", conn_id=self.conn_id)
        filename = disposition_name(reply.headers.get("content-disposition")) or f"{self.key}{kind.suffix}"
        parts = (stored(self.key, ""), stored(filename, kind.suffix))
        name = "/".join((place.root, *parts))
        with place.failing("cannot be written", name), place.writing(name) as file:
            shutil.copyfileobj(reply.body, file, _COPY)
        uri = place.address(*parts)
        self.log.info("%s bytes are in %s.", reply.size, uri)
        return {
            "uri": uri,
            "filename": parts[1],
            "size": reply.size,
            "content_type": kind.content_type,
            "sha256": reply.sha256,
        }


def plain(value: Any) -> Any:
    """Return a value that XCom keeps exactly: each ``Decimal`` as its text."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _texts(query: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (query or {}).items()}


def stored(name: str, suffix: str) -> str:
    """Return the name of a file: its own, or its SHA-256 with the suffix when it is none that leads nowhere else."""
    if name == safe_name(name, "-"):
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest() + suffix
