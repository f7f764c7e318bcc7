"""A slow and lossy wire: ``python -I -S relay.py DEVICE DEVICE DELAY JITTER LOSS SEED``.

It takes the frames of one network device and puts them on the other, both ways, each after `DELAY` seconds,
give or take `JITTER`, and without the share `LOSS` of them. It does what tc's netem does, which not every
kernel has. Order is kept, as on a wire.
"""

from __future__ import annotations

import heapq
import itertools
import random
import select
import socket
import sys
import time

_ALL = 0x0003
_SOL_PACKET, _VNET_HDR, _IGNORE_OUTGOING = 263, 15, 23
_OUTGOING = 4
_MAX = 1 << 17


def main() -> None:
    names, (delay, jitter, loss) = sys.argv[1:3], map(float, sys.argv[3:6])
    rng = random.Random(int(sys.argv[6]))
    ends = [open_device(name) for name in names]
    line: list[tuple[float, int, socket.socket, bytes]] = []
    number = itertools.count()
    last = [0.0, 0.0]
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        wait = None if not line else max(0.0, (line[0][0] - time.monotonic()) * 1000)
        poll.poll(wait)
        now = time.monotonic()
        for side, end in enumerate(ends):
            for frame in frames(end):
                if rng.random() < loss:
                    continue
                last[side] = max(last[side], now + delay + rng.uniform(-jitter, jitter))
                heapq.heappush(line, (last[side], next(number), ends[1 - side], frame))
        while line and line[0][0] <= time.monotonic():
            _, _, out, frame = heapq.heappop(line)
            try:
                out.send(frame)
            except OSError:  # the device is down, or its queue is full: lost, as on a wire
                continue


def open_device(name: str) -> socket.socket:
    """Open a device for whole frames. What it sends itself does not come back as received."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    # With its header the kernel says which checksums are still to be made, and takes that back.
    end.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
    end.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    end.bind((name, 0))
    end.setblocking(False)
    return end


def frames(end: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < 256:
        try:
            frame, address = end.recvfrom(_MAX)
        except BlockingIOError:
            break
        except OSError:  # the device went down: so does what was on its way
            break
        if address[2] != _OUTGOING:
            found.append(frame)
    return found


if __name__ == "__main__":
    main()
