"""What this package adds to Airflow itself."""
