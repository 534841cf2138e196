"""Notifiers: what people are told by whatever Airflow can send."""
