"""The work on one recording: which one it is, its end, its commit.

Face: `chunk_uploader.py` at the top. Threads belong to `video_processor.py`.
"""
