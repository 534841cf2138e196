"""The ERP staging tables: their schema, the loader, and what finance asks of them; nothing here knows Airflow."""
