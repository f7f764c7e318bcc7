"""The `omnimind` command: click, one module for each group, loaded when it is asked for.

What people see lives here: grammar, rendering, exit codes, completion. Not here: any decision about tasks
or nodes (the coordinator's), and anything that every client needs (`omnimind.client`).

Rules of this package. Start-up imports click and the standard library only: a command imports what it
needs inside (`tests/unit/cli/test_lazy.py` holds the list). A read returns a `View`, a write a `Change`
(see `output` and `options`); neither prints. Data goes to stdout, prose to stderr.
"""
