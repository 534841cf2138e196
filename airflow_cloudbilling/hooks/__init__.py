"""Hooks: from an Airflow connection to a vendor's answers."""
