"""What can go wrong, one class for each different *handling*.

CloudBillingError                 the base; every error of this package is one
├── ConfigurationError            a person must change a connection, an argument or a setting; no retry mends it
├── VendorError                   the vendor answered, or failed to
│   ├── RefusedError              the vendor said no (401, 403, 404 …); no retry mends it
│   ├── UnavailableError          the vendor could not be reached or asked for too much patience; try later
│   │   └── WaitError             the next attempt is due later than the caller wants to wait; defer until then
│   ├── ExpiredKeyError           the API key has expired, and who asked does not rotate it: a task on a worker does
│   ├── MalformedReplyError       the answer is not what the vendor's document promises; try later
│   └── InDoubtError              a request that creates something ended without a clear answer; a person looks
├── RecordError                   one vendor record cannot be read; it goes to the reject table
├── LoadError                     the slice was read, and must not be committed
│   ├── RejectedRecordsError      records could not be read and ``on_reject`` is ``fail``
│   ├── IncompleteError           the vendor states another count than it sent
│   └── RemovalError              more invoices would vanish than ``max_removed`` allows
├── FindingsError                 a month was reconciled, and has findings that a person mends or accepts
├── StagingError                  the staging database refused
├── ArchiveError                  the archive cannot be written or read, or what it holds is damaged; look at the store
└── FullDiskError                 this machine's disk is full; free space there, then a retry ends right

Messages name the connection, the field or record, what was expected and what to do next. They never carry a secret.
"""

from __future__ import annotations


class CloudBillingError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(CloudBillingError):
    """A connection field, an argument or a setting is missing or malformed.

    :param message: what is wrong and how to mend it.
    :param conn_id: the Airflow connection concerned, if any.
    :param field: the connection field or argument concerned, if any.
    """

    def __init__(self, message: str, *, conn_id: str | None = None, field: str | None = None) -> None:
        where = ", ".join(
            [f"Connection {conn_id!r}"] * bool(conn_id)
            + [f"{'field' if conn_id else 'Argument'} {field!r}"] * bool(field)
        )
        super().__init__(f"{where}: {message}" if where else message)
        self.conn_id = conn_id
        self.field = field


class VendorError(CloudBillingError):
    """A vendor's answer, or its absence, that ends the conversation.

    :param message: what happened, with a cleaned excerpt of what came.
    :param conn_id: the Airflow connection concerned.
    :param url: the request's address without secrets.
    :param status: the HTTP status, where there was one.
    """

    def __init__(
        self, message: str, *, conn_id: str | None = None, url: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(f"Connection {conn_id!r}: {message}" if conn_id else message)
        self.conn_id = conn_id
        self.url = url
        self.status = status


class RefusedError(VendorError):
    """The vendor refused the request for good."""


class UnavailableError(VendorError):
    """The vendor could not be reached, kept failing, or asked for a longer wait than allowed.

    :param retry_after: seconds after which another try makes sense, where known.
    """

    def __init__(
        self,
        message: str,
        *,
        conn_id: str | None = None,
        url: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, conn_id=conn_id, url=url, status=status)
        self.retry_after = retry_after


class WaitError(UnavailableError):
    """The next attempt is due in ``retry_after`` seconds, and the caller asked not to wait that long."""


class ExpiredKeyError(VendorError):
    """The API key has expired, the stored one too, and who asked never rotates: a trigger, or the Test button."""


class MalformedReplyError(VendorError):
    """The answer is cut, empty, HTML, or of a shape that the vendor's document does not know."""


class InDoubtError(VendorError):
    """A request that creates something ended without a clear answer; it is never sent again by itself."""


class RecordError(CloudBillingError):
    """One record of a vendor cannot be read.

    :param reason: which field, what was expected, what came.
    :param invoice_id: the vendor's id of the invoice, where it could be read.
    """

    def __init__(self, reason: str, *, invoice_id: str | None = None) -> None:
        super().__init__(f"invoice {invoice_id!r}: {reason}" if invoice_id else reason)
        self.reason = reason
        self.invoice_id = invoice_id


class LoadError(CloudBillingError):
    """A slice was read and must not be committed; staging is as before."""


class RejectedRecordsError(LoadError):
    """Records could not be read; they stand in ``cloudbilling_reject``."""


class IncompleteError(LoadError):
    """The vendor states another number of records than it sent."""


class RemovalError(LoadError):
    """The load would remove more invoices of the slice than allowed."""


class FindingsError(CloudBillingError):
    """A month was reconciled, and what was found is of a severity that fails."""


class StagingError(CloudBillingError):
    """The staging database refused a statement, or lacks what is needed."""


class ArchiveError(CloudBillingError):
    """The archive cannot be written or read, or an object in it is damaged."""


class FullDiskError(CloudBillingError):
    """A temporary file of this machine cannot be written, because its disk is full."""
