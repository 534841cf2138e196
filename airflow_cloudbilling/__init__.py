"""Apache Airflow provider that imports cloud vendors' invoices into ERP staging."""

__version__ = "0.1.0"
