"""The main job's workload: measure every Python file of a tree, each file as one task.

Here belong the analysis of one file, the discovery of files, the fold into a report, the report's pages, the
live display, and the same survey as a plain single-process run, against which the distributed one is checked.
Nothing here knows of Ray, of nodes or of the ledger: the survey is an ordinary user of the client.
"""
