"""The HTTP server: metrics, health, the status page with its API, the player.

Face: `wiring`. Files of the page lie in `web/`.
"""
