"""The watched folder: events, scans and how a source is opened.

Nothing here writes. Face: `watch.FolderWatch`.
"""
