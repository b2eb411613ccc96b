"""`quorate drill`: rehearses a failure on a running cluster and judges what came of it.

A drill is a list of steps (`failover.py`, `worker_loss.py`, `backup.py`, `dr.py`); `engine.py` runs
them; `compare.py` and `criteria.py` judge and `report.py` tells, without touching anything.
"""
