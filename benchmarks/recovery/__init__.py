"""How long it takes until work goes on after something has died: OmniMind beside plain Ray, on real hosts.

`clusters` starts both in the hosts of `tests/hosts/harness.py` (namespaces of this machine), `work` is the
handler and the witness, `driver` is the process that submits, `trials` kills and measures, `evaluate` turns
the times into figures. `python -m benchmarks.recovery` runs it all.
"""
