"""What OpenLineage is told of a task: what it has read, what it has written, how many rows, and what it found wrong.

Airflow's provider for OpenLineage asks operators by the names of their methods. Nothing of it is imported before, so it
may be absent (extra ``openlineage``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cloudbilling.hooks.lineage import Dataset, of_staging

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from sqlalchemy import Table


class Amount(NamedTuple):
    """How much was read or written; None where nobody counted."""

    rows: int | None = None
    bytes: int | None = None
    files: int | None = None

    def plus(self, other: Amount) -> Amount:
        """Return both together."""
        return Amount(*(b if a is None else a if b is None else a + b for a, b in zip(self, other, strict=True)))


class External(NamedTuple):
    """What another system calls what the task has started there."""

    identifier: str
    system: str


@dataclass
class Lineage:
    """Where a task's data came from and went.

    :param checked: what was read and checked, with the rules that did not hold.
    """

    inputs: dict[Dataset, Amount] = field(default_factory=dict)
    outputs: dict[Dataset, Amount] = field(default_factory=dict)
    checked: dict[Dataset, Sequence[str]] = field(default_factory=dict)
    external: External | None = None

    def read(self, *datasets: Dataset, **amount: int | None) -> None:
        """Note what was read; amounts of the same dataset add up.

        :param amount: of :class:`Amount`.
        """
        _add(self.inputs, datasets, Amount(**amount))

    def wrote(self, *datasets: Dataset, **amount: int | None) -> None:
        """Note what was written; as of :meth:`read`."""
        _add(self.outputs, datasets, Amount(**amount))


class Traced:
    """Base of tasks that OpenLineage asks where their data came from and went, beside Airflow's own."""

    log: Any
    staging_conn_id: Any  # text, or of some tasks None

    @cached_property
    def lineage(self) -> Lineage:
        """What is known of this run so far; not made before a task runs, since DAGs are copied."""
        return Lineage()

    def expect(self, lineage: Lineage) -> None:
        """Note what the task is going to read and write, as far as its arguments and connections say so."""
        raise NotImplementedError

    @contextmanager
    def tracing(self) -> Iterator[Lineage]:
        """Lend the lineage to what notes it: work that is done does not fail for that."""
        try:
            yield self.lineage
        except Exception as error:  # such as a secrets backend that does not answer just then
            self.log.warning("Where the data came from and went is not told: %s.", type(error).__name__)

    def staged(self, *names: str) -> list[Dataset]:
        """Return staging tables, by their names without the prefix."""
        from airflow_cloudbilling.operators.arguments import given
        from airflow_cloudbilling.operators.database import database_of
        from airflow_cloudbilling.staging.tables import tables

        database, own = database_of(self.staging_conn_id), tables(given(getattr(self, "schema", None)))
        return [of_staging(database, getattr(own, name)) for name in names]

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return what the task is going to read and write; called by OpenLineage's listener."""
        expected = Lineage()
        self.expect(expected)
        return openlineage(expected)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what it has read and written, also where it failed; called by OpenLineage's listener.

        :param task_instance: not needed: the process that has run the task has kept it.
        """
        known = self.lineage
        return openlineage(known) if known.inputs or known.outputs else self.get_openlineage_facets_on_start()


def openlineage(lineage: Lineage) -> OperatorLineage[Any, Any]:
    """Return a lineage in OpenLineage's classes."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import external_query_run

    inputs = [
        InputDataset(one.namespace, one.name, facets=_facets(one), inputFacets=_read(amount, lineage.checked.get(one)))
        for one, amount in lineage.inputs.items()
    ]
    outputs = [
        OutputDataset(one.namespace, one.name, facets=_facets(one), outputFacets=_written(amount))
        for one, amount in lineage.outputs.items()
    ]
    run = external_query_run.ExternalQueryRunFacet(*lineage.external) if lineage.external else None
    return OperatorLineage(inputs=inputs, outputs=outputs, run_facets={"externalQuery": run} if run else {})


def _add(known: dict[Dataset, Amount], datasets: Iterable[Dataset], amount: Amount) -> None:
    for one in datasets:
        known[one] = known.get(one, Amount()).plus(amount)


def _facets(dataset: Dataset) -> dict[str, Any]:
    """Return what a staging table is, with EN 16931's terms in the descriptions of its columns."""
    from openlineage.client.facet_v2 import documentation_dataset, schema_dataset

    if dataset.table is None:
        return {}
    columns = [
        schema_dataset.SchemaDatasetFacetFields(one.name, _type(dataset.table, one.name), one.comment)
        for one in dataset.table.columns
    ]
    return {
        "schema": schema_dataset.SchemaDatasetFacet(columns),
        "documentation": documentation_dataset.DocumentationDatasetFacet(dataset.table.comment or ""),
    }


def _type(table: Table, column: str) -> str:
    return str(table.c[column].type.compile())


def _read(amount: Amount, failed: Sequence[str] | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality
    from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

    found: dict[str, Any] = {}
    if counts := _counts(amount):
        found["inputStatistics"] = statistics.InputStatisticsInputDatasetFacet(**counts)
    if failed is not None:
        told = [quality.Assertion(rule, success=False) for rule in failed]
        every = told or [quality.Assertion("every rule", success=True)]
        found["dataQualityAssertions"] = quality.DataQualityAssertionsDatasetFacet(every)
    return found


def _written(amount: Amount) -> dict[str, Any]:
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    if counts := _counts(amount):
        return {"outputStatistics": statistics.OutputStatisticsOutputDatasetFacet(**counts)}
    return {}


def _counts(amount: Amount) -> dict[str, Any]:
    named = {"rowCount": amount.rows, "size": amount.bytes, "fileCount": amount.files}
    return {name: count for name, count in named.items() if count is not None}
