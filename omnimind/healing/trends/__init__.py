"""What monitors work out from their samples: slopes, times until full, baselines, stragglers, crash loops.

Pure and bounded: a sample and its time go in, a verdict comes out. Here belongs arithmetic. Not here: reading
the machine, thresholds that people set (`omnimind.healing.policy`), and what is done about it.
"""
