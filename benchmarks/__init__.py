"""Figures, and how they were measured: OmniMind beside its peers, in one run on one machine.

`python -m benchmarks` (or `make bench`) runs the suites, prints a table and writes `benchmarks/results/`.
Here belong measurements and what presents them. Nothing here asserts speed: tests assert counts and orders,
never milliseconds. What a figure must reach stands beside its measurement; the report says whether it holds.
"""
