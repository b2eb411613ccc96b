"""Decisions of the leader that are pure calculations: when to retry, when a schedule fires.

Their answers go into the log, their formulas do not, so any release may change them. Time and
chance are arguments; nothing here waits, remembers or talks to anyone.
"""
