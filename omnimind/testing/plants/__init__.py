"""Bugs to plant: each must be caught by the invariant that it names, within its number of seeds.

An invariant that no plant breaks proves nothing, and a plant that is not caught means that an invariant
is missing. A plant is a function that patches the code under test for as long as `planted` is entered;
one file for each part of the code that it spoils.
"""

from __future__ import annotations

from omnimind.testing.plants import attempts, once_real, shells, tasks
from omnimind.testing.plants.registry import PLANTS, Plant, planted

__all__ = ["PLANTS", "Plant", "attempts", "once_real", "planted", "shells", "tasks"]
