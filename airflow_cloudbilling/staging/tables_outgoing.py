"""The tables of what goes out: approved sets of invoices, uploads to Sage, and the scopes that Sage has."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, Integer, MetaData, Table

from airflow_cloudbilling.staging.columns import (
    MOMENT,
    TEXT,
    code,
    invoice_key,
    period,
    scope_key,
    slice_key,
    task_columns,
    texts,
)


class OutgoingTables:
    """A part of :class:`~airflow_cloudbilling.staging.tables.Tables`.

    :param schema: database schema, or ``None`` for the connection's default.
    """

    def __init__(self, schema: str | None) -> None:
        self.metadata = MetaData(schema=schema)

    def _table(self, name: str, comment: str, *columns: Column[Any]) -> Table:
        return Table(
            f"cloudbilling_{name}",
            self.metadata,
            *columns,
            comment=comment,
            mysql_charset="utf8mb4",
            mysql_engine="InnoDB",
        )

    def _by_invoice(self, table: Table) -> None:
        Index(f"{table.name}_by_invoice", *(table.c[n] for n in ("provider", "account", "kind", "invoice_id")))

    def _uploads(self) -> None:
        self.upload = self._table(
            "upload",
            "files sent to Sage Connected Cloud",
            Column("upload_id", code(36), primary_key=True, comment="identifier of the upload"),
            *texts(
                conn_id="Airflow connection",
                scope="of the file at Sage",
                close_id="the approved set",
                reason="of sending again",
            ),
            Column("content_sha256", code(64), nullable=False, comment="of the file as sent"),
            Column("status", code(16), nullable=False, comment="intent, submitted, accepted, failed, unknown"),
            *texts(
                tracking_id="Sage's own", progress="as Sage says it", result_uri="of the result file, without signature"
            ),
            *task_columns(),
            Column("map_index", Integer, comment="of the task instance; -1 when it is not mapped"),
            *(
                Column(name, Integer, comment=comment)
                for name, comment in {
                    "record_count": "records of the file; of a user's own file those of its result",
                    "accepted_count": "records that Sage accepted",
                    "rejected_count": "records that Sage rejected",
                }.items()
            ),
            *(
                Column(name, MOMENT, comment="UTC, by the database")
                for name in ("created_at", "submitted_at", "ended_at")
            ),
            Column("told_at", MOMENT, comment="when a task said that it ended badly, or a person did, UTC"),
            Column("word", TEXT, comment="resolve= of the task that sent it, which is not about this file"),
            Column("period", code(32), comment="of the invoices in it, half-open, start/end; of a close its own"),
        )

    def _upload_items(self) -> None:
        self.upload_item = self._table(
            "upload_item",
            "which staged invoices went into which upload, and the result of each",
            Column("upload_id", code(36), primary_key=True, comment="identifier of the upload"),
            *invoice_key(),
            Column("content_hash", code(64), comment="of the invoice as sent"),
            Column(
                "status",
                code(16),
                nullable=False,
                comment="intent, submitted, accepted, failed, rejected, unknown, released",
            ),
            *texts(record_key="of the record in the file", message="what Sage or a person says of it"),
            Column("ended_at", MOMENT, comment="UTC, by the database"),
        )
        self._by_invoice(self.upload_item)
        record_key = self.upload_item.c.record_key
        Index(f"{self.upload_item.name}_by_record", record_key, mysql_length={"record_key": 64})

    def _closes(self) -> None:
        self.close = self._table(
            "close",
            "the sets of invoices that were reconciled, approved and sent",
            _close_id(),
            period(),
            Column("totals", TEXT, comment="net, tax and gross by currency, as JSON with decimal texts"),
            Column("sha256", code(64), nullable=False, comment="of period, keys and hashes, and totals"),
            Column("approved_by", TEXT, comment="the person"),
            Column("approved_at", MOMENT, comment="UTC"),
            Column("status", code(16), nullable=False, comment="of the approval"),
            Column("asked_by", TEXT, comment="the task instance that asked a person last, as JSON"),
            Column(
                "created_at", MOMENT, comment="when it was read, UTC, by the database; what was posted by then is known"
            ),
            Column("reconciled_at", MOMENT, comment="when this was last found to be the state, UTC, by the database"),
        )
        content_hash = Column("content_hash", code(64), nullable=False, comment="of the invoice as it was reconciled")
        self.close_invoice = self._table(
            "close_invoice", "the invoices of each of those sets", _close_id(), *invoice_key(), content_hash
        )
        self._by_invoice(self.close_invoice)
        self.close_slice = self._table(
            "close_slice", "what was looked at for each of those sets", _close_id(), *slice_key(True)
        )

    def _scopes(self) -> None:
        self.scope = self._table(
            "scope",
            "scopes of Sage Connected Cloud that are staged, and when each was read",
            *scope_key(),
            Column("record_count", Integer, nullable=False, comment="records of the file"),
            Column("read_at", MOMENT, nullable=False, comment="UTC, by the database, before the file was asked for"),
            Column("loaded_at", MOMENT, nullable=False, comment="UTC, by the database"),
        )
        self.scope_record = self._table(
            "scope_record",
            "the records of those scopes, as of the last file",
            *scope_key(),
            Column("record_key", code(255), primary_key=True, comment="the record's id at Sage"),
            Column("raw", TEXT, nullable=False, comment="the record as JSON, as received"),
            Column("content_hash", code(64), nullable=False, comment="SHA-256 of the record, in whatever order"),
            Column("loaded_at", MOMENT, nullable=False, comment="when the row was written, UTC, by the database"),
        )


def _close_id() -> Column[Any]:
    return Column("close_id", code(36), primary_key=True, comment="identifier of the set")
