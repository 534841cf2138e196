"""What the page "Cloud billing" shows: queries over the staging tables and HTML made of them; read-only, no Airflow."""
