"""Getting recordings back, with S3 alone: list, verify, restore, follow.

It knows neither Redis nor the daemon.
"""
