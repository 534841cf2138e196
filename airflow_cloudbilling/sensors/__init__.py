"""Sensors: tasks that wait for a vendor."""
