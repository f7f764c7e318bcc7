"""The pure core of the runtime: what to do with tasks and nodes, decided from events.

Here belong decisions and the state that they need. Not here: time, randomness that was not passed in,
files, sockets, threads, Ray. Everything enters by ``CoordinatorCore.handle(event, now)``; what comes
out is one `Effects`: records for the ledger and sends for the world, the second only after the first.
"""
