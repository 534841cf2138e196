"""Apache Airflow provider that imports cloud vendors' invoices into ERP staging.

Where what is, from what knows least to what knows most (import-linter's contracts in pyproject.toml keep it so):

* ``errors``, ``exact``, ``model``, ``disk``: what can go wrong, exact decimals, EN 16931's terms, full disks.
* ``source``, ``content``, ``found``: what a vendor is without I/O; what is sent to one, and what is found there.
* ``connection_fields``, ``settings``, ``urls``, ``redaction``, ``retry``: from a connection's fields to what may be
  asked, how often, and what no log shows.
* ``parse``: reading what vendors send. ``sources``: all that is known about each vendor, with their registry.
* ``http``: the client that asks them. ``readiness``: whether a vendor has billed yet.
* ``staging``: the tables and the loader. ``reconcile``: closing a month. ``einvoicing``: staged invoices as UBL.
* ``archive``, ``object_storage``, ``tabular``: bodies, objects and tables as files. ``assets``: what DAGs wait for.
* ``hooks``, ``triggers``, ``sensors``, ``operators``, ``notifications``: what DAG authors import.
* ``page``, ``stylesheet``, ``plugins``, ``cli``: what people see of it in Airflow.
* ``provider_info``: what Airflow knows before it imports anything. ``sandbox``: the vendors on loopback.
"""

__version__ = "0.1.0"
