"""Reconciling a month: what is staged against its own arithmetic, the vendors' counts and the month before."""
