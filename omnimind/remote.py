"""Commands on another host, by ssh, as the person who runs this is known there. Asks for nothing."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from omnimind.errors import HostUnreachable

_CONNECT = 10
_SSH_FAILED = 255
_ELSEWHERE = ("192.0.2.1", 9)
"""An address of the block kept for documentation: nobody's."""


class Remote(msgspec.Struct, frozen=True):
    """A host as ssh reaches it. user, key: empty for what ssh's own settings say.

    any_key: take any host key, as `ray up` does for the hosts of its file; otherwise ssh's own rules hold.
    """

    host: str
    user: str = ""
    key: str = ""
    any_key: bool = False

    def run(
        self, words: list[str], *, text: str = "", timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run `omnimind` with these words there, and return what it said. text: its standard input.

        It is looked for at the path where it is here, then on the PATH of a login shell. Raises
        HostUnreachable when ssh cannot get there, or gets no answer in time.
        """
        ssh = shutil.which("ssh")
        if ssh is None:
            raise HostUnreachable("there is no ssh here", hint="install openssh-client")
        place = f"{self.user}@{self.host}" if self.user else self.host
        try:
            done = subprocess.run(  # noqa: S603 (each word is quoted)
                [ssh, *self._options(), place, command(words)],
                input=text, capture_output=True, text=True, check=False, timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise HostUnreachable(f"{self.host} does not answer within {timeout:g} s") from error
        if done.returncode == _SSH_FAILED:
            said = done.stderr.strip().splitlines()
            msg = f"ssh does not get to {self.host}: {said[-1] if said else 'no word from ssh'}"
            raise HostUnreachable(msg, hint=f"try: ssh {place} true")
        return done

    def _options(self) -> list[str]:
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT}"]
        options += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
        if self.key:
            options += ["-i", self.key]
        if self.any_key:
            options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
            options += ["-o", "LogLevel=ERROR"]
        return options


def command(words: list[str]) -> str:
    """Return the line for the other host's shell that runs `omnimind` with these words."""
    here = shlex.quote(str(Path(sys.executable).parent / "omnimind"))
    rest = shlex.join(words)
    script = f'o={here}; [ -x "$o" ] || o=omnimind; exec "$o" {rest}'
    return f"bash --login -c {shlex.quote(script)}"


def own_address() -> str:
    """Return the address by which this machine speaks to others. Raises HostUnreachable when it has none."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)  # of a datagram socket: it chooses the way, and sends nothing
        except OSError as error:
            hint = "name it: --set ray.node_ip=ADDRESS"
            raise HostUnreachable("this machine has no way to other hosts", hint=hint) from error
        own: str = probe.getsockname()[0]
        return own


def is_here(address: str) -> bool:
    """Return whether an address is one of this machine's own."""
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, _, _, place in found:
        with socket.socket(family, kind) as probe:
            try:
                probe.bind(place)
            except OSError:
                continue
            return True
    return False
