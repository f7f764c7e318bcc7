"""The healer in simulation: the real core against a world that lies, hangs, flaps, storms and falls apart.

`world` has the machines (what is really wrong with them, monitors that may lie, repairs that may hang or do
half), `shell` the healer's lives (disk, crashes before and after a write, a zombie beside its successor),
`ghost` judges from outside, `sim` joins them, `plants` proves that the judge can fail.
``python -m omnimind.testing.healer --seeds 0:300`` runs it.

====  ======================================================================================
B     no budget is exceeded: target, kind, fleet, over restarts too
L     at most one repair runs on a target at a time; a node and what is on it count as one
E     no rung runs twice on the same evidence, nor for an issue that has come back
D     what runs was decided and written down before; every open issue has a decision with a reason
F     the fleet is never drained below its floor
K     while the breaker is open, or a person holds it back, nothing begins
V     `fixed` is said after the monitor that fired has seen it well, later than the repair's end
P     nothing disruptive begins without its price in work
T     nothing disruptive begins on a condition that flaps, or on the word of who doubts itself
Q     nothing is forgotten: an open issue is being repaired, or waits for something that will come
M     memory stays in proportion to what is wrong
S     the core's structure is sound, and no event makes it raise
R     the same events give a fresh core the same effects
====  ======================================================================================
"""
