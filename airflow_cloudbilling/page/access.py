"""Who may see what: the invoices that a DAG imported are for those who may read that DAG."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from sqlalchemy import Connection

from airflow_cloudbilling.model import Slice
from airflow_cloudbilling.page.ledger import Loaded, slices_of
from airflow_cloudbilling.staging.tables import Tables

Readable = Callable[[Collection["str | None"]], Collection["str | None"]]


class Access:
    """What one person may see.

    :param readable: returns which of some DAGs the person may read; None stands for what no DAG has written, and is
        for who may read all of them.
    """

    def __init__(self, readable: Readable) -> None:
        self._readable = readable
        self._known: dict[str | None, bool] = {}

    def may_read(self, dag_id: str | None) -> bool:
        """Whether the person may read a DAG."""
        if dag_id not in self._known:
            self._ask([dag_id])
        return self._known[dag_id]

    def of(self, slices: Iterable[Loaded]) -> list[Loaded]:
        """Return the slices whose last load the person may read the DAG of."""
        every = list(slices)
        self._ask({one.dag_id for one in every} - self._known.keys())
        return [one for one in every if self._known[one.dag_id]]

    def to_one_of(self, connection: Connection, tables: Tables, slices: Iterable[Slice]) -> bool:
        """Whether the person may see one of an account's slices, which is to see an invoice that they share."""
        wanted = list(slices)
        if not wanted:
            return self.may_read(None)
        first, periods = wanted[0], [one.period for one in wanted]
        key = {"provider": first.provider, "account": first.account, "kind": first.kind}
        return bool(self.of(slices_of(connection, tables, periods, **key)))

    def _ask(self, dag_ids: Collection[str | None]) -> None:
        if dag_ids:
            readable = set(self._readable(dag_ids))
            self._known.update({dag_id: dag_id in readable for dag_id in dag_ids})
