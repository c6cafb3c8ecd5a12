"""The lease planner: who runs when, where, and what has to happen before and after.

`profile` is one node's room over time, `timeline` all nodes', `demand` what the planner knows of a lease and the block
of time it was given, `planner` the decisions, `haizea` the same with Haizea's rules, to compare with it.

Everything here is pure, and compiled where a compiler is at hand (setup.py).
"""
