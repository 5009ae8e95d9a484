"""`doctor`: the checks of a set-up before anyone records with it.

Face: `run`.
"""
