"""Whose turn it is, and what an outage stops.

Pure: no I/O; the clock is handed in.
"""
