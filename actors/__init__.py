"""The shells on Ray: they feed events into the cores and carry out what the cores return.

One actor class a file. Not here: decisions (they are `omnimind.cluster`'s), and anything that a user's
process imports, since the user's project may have a package called `actors` too.
"""
