"""Every setting: default, bounds, unit, and one sentence that the docs and `omnimind config` show.

A value comes from the last of these that names it: the default, ``omnimind.toml``, the environment
(``OMNIMIND_RAY_NUM_CPUS`` for ``ray.num_cpus``), a flag (``--set ray.num_cpus=4``). Where it
came from is kept beside it, see `Settings.origins`. To add a setting, add a field to its section in
`sections.py`; nothing else.

The file is ``omnimind.toml`` in OMNIMIND_HOME, or the one that OMNIMIND_CONFIG names. Sizes may be
written like ``256MiB`` and times like ``90s``, ``15m``, ``8h`` or ``7d``.
"""

from __future__ import annotations

from omnimind.config.api import ApiSettings
from omnimind.config.elastic import ElasticSettings
from omnimind.config.load import Settings, dump, effective, load, specs
from omnimind.config.sections import CoordinatorSettings, InstanceSettings, RaySettings, RetentionSettings
from omnimind.config.spec import Spec

__all__ = [
    "ApiSettings",
    "CoordinatorSettings",
    "ElasticSettings",
    "InstanceSettings",
    "RaySettings",
    "RetentionSettings",
    "Settings",
    "Spec",
    "dump",
    "effective",
    "load",
    "specs",
]
