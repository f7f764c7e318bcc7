"""The simulated network loses, doubles, delays and cuts by key, and nothing else."""

from __future__ import annotations

from omnimind.testing.clock import SimClock
from omnimind.testing.draws import Draws
from omnimind.testing.net import SimNet


class Place:
    def __init__(self, clock: SimClock) -> None:
        self.clock = clock
        self.got: list[int] = []
        self.times: list[float] = []

    def receive(self, number: int) -> None:
        self.got.append(number)
        self.times.append(self.clock.now)


def send_many(
    count: int = 1000, only: frozenset[str] | None = None, seed: int = 1, **faults: float
) -> tuple[list[int], list[float], Draws]:
    clock, draws = SimClock(0.0), Draws(seed, only)
    net = SimNet(clock, draws, delay=0.01, **faults)
    place = Place(clock)
    for number in range(count):
        net.send("a", "b", place.receive, number)
        clock.run(clock.now + 0.1)
    clock.run(clock.now + 100)
    return place.got, place.times, draws


def test_a_good_network_delivers_everything_in_order_after_a_while() -> None:
    got, times, draws = send_many()
    assert got == list(range(1000))
    assert all(0.005 <= time - 0.1 * n <= 0.016 for n, time in enumerate(times))
    assert not draws.fired


def test_losses_are_about_as_many_as_asked_for_and_each_has_an_id() -> None:
    got, _, draws = send_many(loss=0.3)
    assert 600 < len(got) < 800
    lost = {int(fault.rsplit(":", 1)[1]) for fault in draws.fired}
    assert lost == set(range(1000)) - set(got)


def test_duplicates_and_slow_messages_overtake() -> None:
    got, _, draws = send_many(duplicate=0.2, slow=0.2, slow_seconds=2.0)
    assert set(got) == set(range(1000))
    assert 1100 < len(got) < 1300
    assert got != sorted(got)
    assert set(draws.by_kind) == {"duplicate", "slow"}


def test_a_fault_that_is_left_out_does_not_shift_the_others() -> None:
    _, _, draws = send_many(loss=0.3)
    kept = frozenset(list(draws.fired)[::2])
    got, _, again = send_many(loss=0.3, only=kept)
    assert frozenset(again.fired) == kept
    assert len(got) == 1000 - len(kept)


def test_another_seed_is_another_history() -> None:
    assert send_many(loss=0.3)[0] != send_many(loss=0.3, seed=2)[0]


def test_a_cut_is_one_way_and_loses_what_is_under_way() -> None:
    clock = SimClock(0.0)
    net = SimNet(clock, Draws(1), delay=1.0)
    there, back = Place(clock), Place(clock)
    net.send("a", "b", there.receive, 1)
    clock.run(0.1)
    net.cut("a", "b", until=5.0)
    net.send("a", "b", there.receive, 2)
    net.send("b", "a", back.receive, 3)
    clock.run(6.0)
    net.send("a", "b", there.receive, 4)
    clock.run(10.0)
    assert there.got == [4]
    assert back.got == [3]
    assert net.lost_in_cuts == 2


def test_healing_ends_cuts_and_faults() -> None:
    clock = SimClock(0.0)
    net = SimNet(clock, Draws(1), delay=0.1, loss=1.0)
    place = Place(clock)
    net.cut("a", "b", until=1e9)
    net.heal()
    net.send("a", "b", place.receive, 1)
    clock.run(1.0)
    assert place.got == [1]
