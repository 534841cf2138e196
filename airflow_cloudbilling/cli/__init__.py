"""``airflow cloudbilling``: what operators do, by hand."""
