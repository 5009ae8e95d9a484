"""The Redis records: what `checkpoint.py` is made of.

Nobody outside imports redis-py. The work goes through `checkpoint`; what stands beside it (requests, audits,
the claim of the store) has a module of its own here.
"""
