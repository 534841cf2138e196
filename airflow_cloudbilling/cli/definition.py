"""The commands below ``airflow cloudbilling``; every ``airflow`` imports this, so it imports next to nothing."""

from __future__ import annotations

import argparse
from typing import Any

from airflow.cli.cli_config import ARG_VERBOSE, ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command


def _arg(name: str, words: str, **options: Any) -> Arg:
    return Arg((name,), help=words, **options)


_JSON = _arg("--json", "print JSON, money as text", action="store_true")
_STAGING = _arg("--staging-conn-id", "connection of the staging database; by default the first that the page shows")
_SCHEMA = _arg("--schema", "database schema of the staging tables")
_PERIOD = _arg("--period", "2026-10, or half-open days: 2026-10-01/2026-11-01", required=True)
_SOME_PERIOD = _arg("--period", "2026-10, or half-open days: 2026-10-01/2026-11-01")
_VENDOR = _arg("--conn-id", "connection of the vendor", required=True)
_KIND = _arg("--kind", "purchase, sales, consolidated or usage; by default the vendor's own")
_ARCHIVE = _arg("--archive", "folder or address that keeps every answer as received")
_ON_REJECT = _arg("--on-reject", "what records that cannot be read do", choices=("fail", "quarantine"))
_REMOVALS = _arg("--allow-removals", "lift the limit of invoices that may vanish", action="store_true")
_FAIL_ON = _arg(
    "--fail-on",
    "end with 1 on findings of this severity",
    choices=("error", "warning", "never"),
    default="error",
)
_PROVIDERS = _arg("--providers", "connection types of the vendors, such as twotcloud,store365; by default all")
_REASON = _arg("--reason", "why; it is kept", required=True)
_WHO = _arg("--who", "who decides; by default the user of this machine")
_RULE = _arg("--rule", "such as amount-drift")
_WHICH = _arg("--which", "which findings", choices=("open", "accepted", "resolved"), default="open")
_INVOICE = _arg("invoice", "provider/account/kind/id")
_INVOICES = _arg("invoices", "provider/account/kind/id", nargs="+")
_SOME_INVOICES = _arg("invoices", "provider/account/kind/id", nargs="*")
_LINE = _arg("--line", "a line's position, from 1", type=int)
_IDS = _arg("ids", "ids of findings, as list and the page show them", nargs="*")
_REFERENCE = _arg("--reference", "what the ERP calls its posting", required=True)
_REST = _arg(
    "arguments",
    "after --: as of python -m airflow_cloudbilling.sandbox; -- --help lists them",
    nargs=argparse.REMAINDER,
)


def _command(name: str, words: str, *args: Arg, function: str = "") -> ActionCommand:
    path = f"airflow_cloudbilling.cli.commands.{function or name.replace('-', '_')}"
    return ActionCommand(name=name, help=words, func=lazy_load_command(path), args=args)


def get_cli_commands() -> list[CLICommand]:
    """Return the commands; Airflow finds this through the provider's metadata."""
    where = (_STAGING, _SCHEMA, _JSON, ARG_VERBOSE)
    findings = (
        _command("list", "what a person should look at", _SOME_PERIOD, _RULE, _WHICH, *where, function="list_findings"),
        _command("accept", "accept findings: they fail nothing until they change", _IDS, _SOME_PERIOD, _RULE, _REASON,
                 _WHO, *where),
        _command("release", "let posted invoices follow the vendor again", _INVOICES, _REASON, _WHO, *where),
        _command("mark-posted", "freeze invoices that the ERP has posted", _SOME_INVOICES, _SOME_PERIOD, _REFERENCE,
                 *where),
    )  # fmt: skip
    load = (_VENDOR, _KIND, _PERIOD)
    commands = (
        _command("preview", "what a run would change, without writing anything", *load, *where),
        _command("stage", "import a month of a vendor", *load, _ARCHIVE, _ON_REJECT, _REMOVALS, *where),
        _command("reconcile", "check a month, and write findings and close", _PERIOD, _PROVIDERS, _FAIL_ON, *where),
        GroupCommand(name="findings", help="what a person decides", subcommands=findings),
        _command("explain", "where an invoice comes from", _INVOICE, _LINE, _ARCHIVE, *where),
        _command("ddl", "the SQL that makes the staging tables", _STAGING, _SCHEMA, ARG_VERBOSE),
        _command("sandbox", "run the vendors on this machine", _REST),
    )
    words = "Vendors' invoices: import, check, decide, explain"
    return [GroupCommand(name="cloudbilling", help=words, subcommands=commands)]
