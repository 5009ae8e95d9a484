"""The Redis records: what `checkpoint.py` is made of.

Nobody but `checkpoint`, `doctor` and the commands opens it, and nobody outside imports redis-py.
"""
