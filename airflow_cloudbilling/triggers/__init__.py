"""Triggers: waits that cost no worker."""
