"""The command line. `app.py` is its face: it knows every command and what each error ends with.

A file per command holds its options, what it does and what it prints. They share `session.py` (settings,
servers, the bucket, signals) and `output.py` (lines, JSON, progress, and one formatter each for bytes,
durations and times); `requests.py` is what `cancel` and `retry` ask of running daemons.
"""
