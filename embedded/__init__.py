"""The local Valkey and S3 server of `--embedded`, as children of the daemon.

Face: `servers`.
"""
