"""Healing: from what monitors observe to repairs that are made, verified and written down, or not made.

`core` is the one door: ``HealingCore.handle(event, now)`` returns records for the ledger and sends for the
world. `conditions`, `guards`, `budgets`, `price` and `decide` are its parts, `policy` what people set,
`story` what explains it. `loop` and `integration` are shells around it for programs without a cluster.
Here belong decisions about issues and repairs. Not here: monitors' I/O and the repairs themselves.
"""
