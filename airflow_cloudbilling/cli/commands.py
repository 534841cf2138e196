"""What the commands do: the work of operators, told in tables; an error is one sentence and exit code 2."""

from __future__ import annotations

import getpass
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from airflow.cli.simple_table import AirflowConsole
from airflow.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from sqlalchemy.exc import DBAPIError

from airflow_cloudbilling.errors import CloudBillingError, ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.arguments import providers_of
from airflow_cloudbilling.operators.database import look_into_staging, open_staging
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.preview import Change, preview_of
from airflow_cloudbilling.page.details import every_finding
from airflow_cloudbilling.reconcile.month import Scope
from airflow_cloudbilling.reconcile.month import reconcile as reconcile_month
from airflow_cloudbilling.reconcile.report import screen
from airflow_cloudbilling.staging import findings as staged_findings
from airflow_cloudbilling.staging.create import script
from airflow_cloudbilling.staging.explain import explain as explain_invoice
from airflow_cloudbilling.staging.explain import in_words
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.reading import snapshot

if TYPE_CHECKING:
    from airflow_cloudbilling.staging.loader import Load, Loaded, Staging

Show = Callable[["Load"], None]
_FAILED, _WRONG = 1, 2  # exit codes: what was found, and what could not be done
_LOADED = ("provider", "account", "kind", "period", "status", "invoices", "lines", "new", "changed", "unchanged",
           "removed", "frozen", "rejected")  # fmt: skip
_FOUND = ("severity", "rule", "period", "provider", "account", "kind", "invoice_id", "expected", "actual", "message")


class Shown(StageInvoicesOperator):
    """An import that shows how far it is, and what a task's log would warn of.

    :param show: is told of the load several times a second.
    """

    progress_seconds = 0.2

    def __init__(self, *, show: Show, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.show = show

    def progressed(self, load: Load, seconds: float) -> None:
        """Show it."""
        self.show(load)

    def noticed(self, words: str) -> None:
        """Show it, beside the result."""
        sys.stderr.write(f"{words}\n")

    def load_slices(self, context: Any) -> Iterator[Loaded]:
        """Say what is odd about the connection before it is used."""
        for warning in self._hook().settings.warnings:
            self.noticed(warning)
        return super().load_slices(context)


def command(function: Callable[[Any], int | None]) -> Callable[[Any], None]:
    """Return a command: connections are looked up as the API server does, an error is a sentence, logs are quiet."""

    @wraps(function)
    @providers_configuration_loaded
    def run(args: Any) -> None:
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"  # as Airflow's own ``connections test`` has it
        codes: list[int] = []
        suppress_logs_and_warning(lambda given: codes.append(_code_of(function, given)))(args)
        if codes[0]:
            raise SystemExit(codes[0])

    return run


def _code_of(function: Callable[[Any], int | None], args: Any) -> int:
    """Run a command, and return its exit code."""
    try:
        return function(args) or 0
    except (CloudBillingError, AirflowNotFoundException) as error:
        sys.stderr.write(f"{error}\n")
    except DBAPIError as error:
        sys.stderr.write(f"The staging database refused: {error.args[0]}\n")
    return _WRONG


@command
def stage(args: Any) -> None:
    """Import a month of a vendor."""
    staging_conn_id, schema = _where(args)
    make = partial(
        Shown,
        task_id="stage",
        conn_id=args.conn_id,
        staging_conn_id=staging_conn_id,
        schema=schema,
        kind=args.kind,
        period=args.period,
        archive=args.archive,
        on_reject=args.on_reject or "fail",
        allow_removals=args.allow_removals,
        deferrable=False,
    )
    with _busy(f"Importing {args.period} from {args.conn_id}") as show:
        loaded = [one.as_dict() for one in make(show=show).load_slices({})]
    _tell(args, loaded, _LOADED)


@command
def preview(args: Any) -> None:
    """Say what an import would change; the vendor is asked, nothing is written."""
    staging = look_into_staging(*_where(args))
    with _busy(f"Asking {args.conn_id} for {args.period}") as show:
        changes, counts = preview_of(staging, args.conn_id, args.kind, args.period, partial(Shown, show=show))
    if args.json:
        _print_json({**counts, "changes": [one._asdict() for one in changes]})
        return
    _tell(args, [one._asdict() for one in changes], Change._fields)
    sys.stdout.write(", ".join(f"{count} {word}" for word, count in counts.items()) + ". Nothing was written.\n")


@command
def reconcile(args: Any) -> int:
    """Check a month, and write its findings and its close."""
    providers = providers_of(args.providers)
    with _busy(f"Checking {args.period}"):
        summary = reconcile_month(_staging(args), Scope(Period.parse(args.period), providers))
    found = {severity: summary.found(severity) for severity in ("error", "warning")}
    if args.json:
        close = summary.close
        own = {"period": str(summary.period), "close_id": close.close_id, "sha256": close.sha256}
        _print_json({**own, "findings": found, "totals": json.loads(close.totals)})
    else:
        sys.stdout.write(screen(summary) + "\n")
    severities = {"error": ("error",), "warning": ("error", "warning"), "never": ()}[args.fail_on]
    return _FAILED if any(found[one] for one in severities) else 0


@command
def list_findings(args: Any) -> None:
    """Show findings."""
    of = {"period": str(Period.parse(args.period))} if args.period else {}
    of |= {"rule": args.rule} if args.rule else {}
    staging = _staging(args)
    with snapshot(staging.engine) as connection:
        found = [*every_finding(connection, staging.tables, args.which, of, None)]
    _tell(args, found, ("finding_id", *_FOUND))


@command
def accept(args: Any) -> None:
    """Accept findings, by their ids or by period and rule."""
    staging = _staging(args)
    if bool(args.ids) == bool(args.period and args.rule):
        raise ConfigurationError("give either ids, or --period with --rule.", field="ids")
    ids = args.ids or staged_findings.open_ones(staging, Period.parse(args.period), args.rule)
    accepted = staged_findings.accept(staging, ids, args.who or getpass.getuser(), args.reason)
    _tell(args, [{"findings": len(ids), "accepted": accepted}])


@command
def release(args: Any) -> None:
    """Let posted invoices follow the vendor again."""
    keys = [_key(one) for one in args.invoices]
    released = Posting(_staging(args)).release(keys, args.who or getpass.getuser(), args.reason)
    _tell(args, [{"invoices": len(keys), "released": released}])


@command
def mark_posted(args: Any) -> None:
    """Freeze invoices that the ERP has posted."""
    if bool(args.invoices) == bool(args.period):
        raise ConfigurationError("give either invoices or --period.", field="invoices")
    posting = Posting(_staging(args))
    keys = [_key(one) for one in args.invoices] or posting.of_period(Period.parse(args.period))
    if not keys:
        raise ConfigurationError(f"nothing is staged of {args.period}.", field="period")
    _tell(args, [{"invoices": len(keys), "marked": posting.mark(keys, args.reference)}])


@command
def explain(args: Any) -> None:
    """Say where an invoice, or one of its lines, comes from."""
    from airflow_cloudbilling.archive import Archive

    archive = Archive(args.archive) if args.archive else None
    told = explain_invoice(look_into_staging(*_where(args)), _key(args.invoice), args.line, archive)
    if args.json:
        _print_json(told)
    else:
        sys.stdout.write(in_words(told) + "\n")


@command
def ddl(args: Any) -> None:
    """Print the SQL that makes the staging tables in the dialect of a staging database; it is not connected to."""
    staging = look_into_staging(*_where(args))
    sys.stdout.write(script(staging.engine, staging.tables) + "\n")


def sandbox(args: Any) -> None:
    """Run the sandbox with the arguments that follow a ``--``, without which argparse takes them for its own."""
    given = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    sys.argv = ["airflow cloudbilling sandbox", *given]
    runpy.run_module("airflow_cloudbilling.sandbox", run_name="__main__")


def _where(args: Any) -> tuple[str, str | None]:
    """Return connection and schema of the staging database: those given, else the first that the page shows."""
    first = str(conf.get("cloudbilling", "staging_conn_ids")).split(",")[0].strip()
    conn_id, _, schema = str(args.staging_conn_id or first).partition(":")
    return conn_id, args.schema or schema or None


def _staging(args: Any) -> Staging:
    return open_staging(*_where(args))


def _key(text: str) -> InvoiceKey:
    parts = text.split("/", 3)
    if len(parts) < len(InvoiceKey._fields):
        raise ConfigurationError(f"{text!r} is no invoice; write provider/account/kind/id.", field="invoice")
    return InvoiceKey(*parts)


def _tell(args: Any, rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> None:
    if args.json:
        _print_json([dict(row) for row in rows])
        return
    shown = [{name: "" if row[name] is None else row[name] for name in names or row} for row in rows]
    AirflowConsole().print_as(shown, "table")


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def _busy(words: str) -> Iterator[Show]:
    """Show that something goes on, to a person at a terminal; yield what shows how far a load is.

    The bar has an end where the vendor states how many records there are.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda load: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(words, total=None)

        def show(load: Load) -> None:
            told = f"{words}: {load.progress()}"
            progress.update(bar, description=told, completed=load.received, total=load.stated)

        yield show
