"""What users and our own tests need to test work on OmniMind without a cluster. Public.

The deterministic simulator (`simulation.run`, ``python -m omnimind.testing.simulate``) drives the real
core, gate and node agent with virtual time and drawn faults: `cluster` wires the parts together,
`invariants` and `order` judge, `plants` proves that they can. Besides it, fakes: `fake` (a coordinator in
memory) and `transport`.

Here belong stand-ins and judges. Not here: tests, and anything that the runtime itself needs.
"""
