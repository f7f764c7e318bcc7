"""From files, environment and flags to `Settings`."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from omnimind.config.api import ApiSettings
from omnimind.config.elastic import ElasticSettings
from omnimind.config.sections import (
    CoordinatorSettings,
    InstanceSettings,
    LedgerSettings,
    RaySettings,
    RetentionSettings,
)
from omnimind.config.spec import PREFIX, Spec, specs_of
from omnimind.errors import ConfigError

NOT_SETTINGS = frozenset({"HOME", "CONFIG", "DEBUG", "TOKEN", "URL", "INSTANCE", "FAILPOINT", "COMPLETE"})
"""Variables of OmniMind that are no settings; so are those that begin with TEST_, BENCH_ or CHAOS_."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. `origins` says for each key that is not at its default where it came from."""

    ray: RaySettings = RaySettings()
    instance: InstanceSettings = InstanceSettings()
    coordinator: CoordinatorSettings = CoordinatorSettings()
    retention: RetentionSettings = RetentionSettings()
    api: ApiSettings = ApiSettings()
    ledger: LedgerSettings = LedgerSettings()
    elastic: ElasticSettings = ElasticSettings()
    origins: dict[str, str] = {}

    def get(self, key: str) -> Any:
        """Return the value of ``section.name``. Raises ConfigError for an unknown key."""
        spec = _spec(key, "a program")
        return getattr(getattr(self, spec.section), spec.name)

    def changed(self, values: Mapping[str, Any], origin: str = "flag") -> Settings:
        """Return settings with some values replaced; strings are read as on the command line."""
        sections: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            spec = _spec(key, origin)
            sections.setdefault(spec.section, {})[spec.name] = spec.read(value, origin)
        new = {s: msgspec.structs.replace(getattr(self, s), **fields) for s, fields in sections.items()}
        origins = self.origins | dict.fromkeys(values, origin)
        return msgspec.structs.replace(self, origins=origins, **new)


@cache
def specs() -> tuple[Spec, ...]:
    """Return every setting, in the order of `sections.py`."""
    return tuple(spec for name, cls in _sections().items() for spec in specs_of(name, cls))


def load(
    home: Path, flags: Mapping[str, str] | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings of a home. Raises ConfigError for what is unknown, malformed or out of bounds."""
    settings = Settings()
    named = environ.get(f"{PREFIX}CONFIG")
    path = Path(named).expanduser() if named else home / "omnimind.toml"
    for key, (value, origin) in _from_file(path, must_exist=bool(named)).items():
        settings = settings.changed({key: value}, origin)
    for key, (value, origin) in _from_environment(environ).items():
        settings = settings.changed({key: value}, origin)
    settings = settings.changed(flags or {}, "flag")
    _check_together(settings)
    return settings


def dump(settings: Settings) -> bytes:
    """Return settings as JSON, for ``run/settings.json``."""
    return msgspec.json.encode(settings)


def effective(path: Path) -> Settings:
    """Return the settings that a running instance was started with, from its ``run/settings.json``."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError:
        return Settings()
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"cannot read the settings in effect: {error}"
        raise ConfigError(msg, hint=f"stop the instance and remove {path}") from error


def _check_together(settings: Settings) -> None:
    """Raise ConfigError for values that are fine alone but not together."""
    coordinator = settings.coordinator
    if coordinator.suspect_after >= coordinator.heartbeat_timeout:
        key = "coordinator.suspect_after"
        origin = settings.origins.get(key) or settings.origins["coordinator.heartbeat_timeout"]
        other = f"coordinator.heartbeat_timeout, which is {coordinator.heartbeat_timeout:g} s"
        msg = f"it must be less than {other} ({origin})"
        raise ConfigError(msg, field=key, hint="lower one or raise the other", origin=origin)
    _check_head(settings)


def _check_head(settings: Settings) -> None:
    """Raise ConfigError for a head that could not come back as it is asked to."""
    ray, origins = settings.ray, settings.origins
    if ray.gcs_storage == "redis" and not ray.gcs_redis:
        key = "ray.gcs_redis"
        origin = origins.get("ray.gcs_storage", "")
        msg = f"ray.gcs_storage is redis ({origin}), and no Redis is named"
        raise ConfigError(msg, field=key, hint="name it as host:port", origin=origin)
    if ray.gcs_redis and ray.gcs_storage != "redis":
        msg = f"it is named, and ray.gcs_storage is {ray.gcs_storage}"
        hint = "set ray.gcs_storage to redis, or leave the address out"
        raise ConfigError(msg, field="ray.gcs_redis", hint=hint, origin=origins.get("ray.gcs_redis", ""))
    if settings.coordinator.nodes and not settings.ledger.url:
        key = "coordinator.nodes"
        msg = "a ledger in SQLite is on the head's disk, so the coordinator runs there"
        hint = "name a PostgreSQL in ledger.url, or leave coordinator.nodes out"
        raise ConfigError(msg, field=key, hint=hint, origin=origins.get(key, ""))


@cache
def _sections() -> dict[str, type[msgspec.Struct]]:
    return {name: hint for name, hint in get_type_hints(Settings).items() if name != "origins"}


def _spec(key: str, origin: str) -> Spec:
    known = {spec.key: spec for spec in specs()}
    if key not in known:
        raise _unknown(key, known, origin)
    return known[key]


def _unknown(key: str, known: Mapping[str, Any], origin: str) -> ConfigError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    mend = f"did you mean {near[0]}?" if near else "see all with: omnimind config"
    msg = f"there is no such setting ({origin})"
    return ConfigError(msg, field=key, hint=mend, origin=origin)


def _from_file(path: Path, *, must_exist: bool) -> dict[str, tuple[Any, str]]:
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except FileNotFoundError as error:
        if not must_exist:
            return {}
        msg = f"{path} does not exist"
        raise ConfigError(msg, field=f"{PREFIX}CONFIG", hint="name a file that does, or unset it") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"cannot read {path}: {error}"
        raise ConfigError(msg, hint="mend the file; it is TOML in UTF-8", origin=str(path)) from error
    found: dict[str, tuple[Any, str]] = {}
    for section, values in data.items():
        if section not in _sections() or not isinstance(values, dict):
            raise _unknown(section, _sections(), f"{path}:{_line(text, section, None)}")
        for name, value in values.items():
            origin = f"{path}:{_line(text, section, name)}"
            found[_spec(f"{section}.{name}", origin).key] = (value, origin)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    known = {spec.variable: spec.key for spec in specs()}
    found = {}
    for name, value in environ.items():
        rest = name.removeprefix(PREFIX)
        if rest == name or rest in NOT_SETTINGS or rest.startswith(("TEST_", "BENCH_", "CHAOS_")):
            continue
        if name not in known:
            raise _unknown(name, known, "environment")
        found[known[name]] = (value, name)
    return found


def _line(text: str, section: str, name: str | None) -> int:
    """Return the line where a key stands; the section's, or 1, where it is written in an unusual way."""
    header = re.compile(rf"\s*\[\s*\"?{re.escape(section)}\"?\s*\]")
    wanted = re.compile(rf"\s*\"?{re.escape(name or '')}\"?\s*=")
    dotted = re.compile(rf"\s*\"?{re.escape(section)}\"?\s*[.=].*?{re.escape(name or '')}")
    start, inside = 1, False
    for number, line in enumerate(text.splitlines(), start=1):
        if header.match(line):
            start, inside = number, True
        elif re.match(r"\s*\[", line):
            inside = False
        elif (inside and name and wanted.match(line)) or (not inside and dotted.match(line)):
            return number
    return start
