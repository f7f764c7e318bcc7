"""Homeostasis: how loaded a machine is, and what follows from it for admission and batches.

`ladder` decides (pure), `pressure` and `limits` say what counts as load (pure), `reader` reads the machine,
`controller` joins them to `HomeostaticController`. Here belong the five states and what they allow. Not
here: which node gets which task (`omnimind.cluster`), and repairs (`omnimind.healing`).
"""
