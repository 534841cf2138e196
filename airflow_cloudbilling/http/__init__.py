"""Asking vendors over HTTP; :class:`~airflow_cloudbilling.http.client.Client` is what others use.

It drives a conversation (``drivers``), has requests under way (``in_flight``), waits between them (``pauses``), gives
each its access token or key (``credentials``, with tasks elsewhere: ``shared_token``, ``shared_key``), and sends it
(``transport``, the one module that imports httpx), so that the answer lies on disk (``spool``). Nothing is imported
here: hooks name the stores of credentials in DAG files, where httpx would cost half a second.
"""
