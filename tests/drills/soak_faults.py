"""What befalls the parts of a soak: kills, stops, pauses, lost records, faults of the network.

Each fault is a generator that yields how many seconds it wants to be left alone. One thread steps them
all, so nothing here needs a lock, and a seed tells what each of them does and in which order.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.support.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from tests.drills.soak import Soak

Actor = Generator[float, None, None]

KILL_OCCASIONS = ("", "", "chunk stored", "chunk repaired", "finalizing", "complete")
"""What the daemon is killed right after, when that comes before its time."""

_MOST_WAITED_SECONDS = 5.0
_POLL_SECONDS = 0.02
LEASE_SECONDS = 30.0
_AOF_SECONDS = 1.0  # what appendfsync everysec may lose when the machine loses its power


class NetworkFault(NamedTuple):
    """A fault of the connections to one service."""

    name: str
    begin: Callable[[FaultProxy], None]


_NETWORK: dict[str, list[NetworkFault]] = {
    service: [
        NetworkFault("refused", FaultProxy.refuse),
        NetworkFault("black hole", FaultProxy.black_hole),
        NetworkFault("silent", lambda proxy: proxy.stall_after(0, to="client")),
        NetworkFault("stalled", lambda proxy, after=after: proxy.stall_after(after)),  # type: ignore[misc]
        NetworkFault("reset", lambda proxy, after=after: proxy.reset_after(after)),  # type: ignore[misc]
        NetworkFault("replies lost", lambda proxy: proxy.lose_reply(times=5)),
        NetworkFault("throttled", lambda proxy, rate=rate: proxy.throttle(rate)),  # type: ignore[misc]
    ]
    for service, after, rate in (("redis", 300, 20_000), ("s3", 300_000, 500_000))
}
# Only of S3: Redis has no sum by which a damaged byte could be known.
_NETWORK["s3"].append(NetworkFault("damaged", lambda proxy: proxy.flip_byte(1_000_000, times=2)))


def all_of(soak: "Soak", seed: int) -> list[Actor]:
    """Give every fault of a soak, each with random numbers of its own."""

    def rng(name: str) -> random.Random:
        return random.Random(f"{seed} {name}")

    return [
        killed_daemon(soak, rng("killed daemon")),
        stopped_daemon(soak, rng("stopped daemon")),
        broken_valkey(soak, rng("valkey")),
        broken_store(soak, rng("store")),
        broken_network(soak, rng("network of s3"), "s3"),
        broken_network(soak, rng("network of redis"), "redis"),
        paused_recorders(soak, rng("recorders")),
    ]


# ---------------------------------------------------------------------- daemons


def killed_daemon(soak: "Soak", rng: random.Random) -> Actor:
    """Daemon A: killed at a random moment and started again; sometimes stopped for longer than a lease."""
    while True:
        yield rng.uniform(3, 20)
        if rng.random() < 0.15:
            yield from _stop(soak, "A", LEASE_SECONDS + rng.uniform(1, 5))
            continue
        occasion, deadline = rng.choice(KILL_OCCASIONS), time.monotonic() + _MOST_WAITED_SECONDS
        seen = len(soak.a.events(occasion))
        while occasion and len(soak.a.events(occasion)) == seen and time.monotonic() < deadline:
            yield _POLL_SECONDS
        assert soak.a.running(), f"A ended by itself:\n{soak.a.output()[-8000:]}"
        soak.a.kill()
        soak.say("A killed", f"after {occasion or 'nothing'!r}")
        try:
            yield rng.choice((0.0, 0.0, rng.uniform(0, 10)))
        finally:
            soak.start_a()


def stopped_daemon(soak: "Soak", rng: random.Random) -> Actor:
    """Daemon B: never killed, stopped now and then."""
    while True:
        yield rng.uniform(10, 40)
        long = rng.random() < 0.15
        yield from _stop(soak, "B", LEASE_SECONDS + rng.uniform(1, 5) if long else rng.uniform(0.2, 5))


def _stop(soak: "Soak", name: str, seconds: float) -> Actor:
    daemon = soak.a if name == "A" else soak.b
    daemon.send(signal.SIGSTOP)
    soak.stopped.add(name)
    soak.say(f"{name} stopped", f"for {seconds:.1f} s")
    try:
        yield seconds
    finally:
        daemon.send(signal.SIGCONT)
        soak.stopped.discard(name)


# ---------------------------------------------------------------------- servers


def broken_valkey(soak: "Soak", rng: random.Random) -> Actor:
    """Valkey: killed, frozen, emptied, or without power: its last second is lost as well."""
    ways = (_killed_valkey, _powerless_valkey, _flushed_valkey, _frozen_valkey)
    while True:
        yield rng.uniform(10, 30)
        yield from rng.choice(ways)(soak, rng)


def _killed_valkey(soak: "Soak", rng: random.Random) -> Actor:
    soak.lost_records()
    soak.valkey.kill()
    yield from _down(soak, "Valkey killed", rng, until=soak.valkey.start)


def _powerless_valkey(soak: "Soak", rng: random.Random) -> Actor:
    soak.lost_records()
    aof = _append_only_file(soak.valkey.data_dir)
    size = aof.stat().st_size
    yield _AOF_SECONDS
    soak.valkey.kill()
    if aof == _append_only_file(soak.valkey.data_dir):
        os.truncate(aof, size)
    yield from _down(soak, "Valkey lost its last second", rng, until=soak.valkey.start)


def _flushed_valkey(soak: "Soak", rng: random.Random) -> Actor:
    soak.lost_records()
    soak.valkey.client.flushall()
    soak.say("Valkey emptied")
    yield 0.0


def _frozen_valkey(soak: "Soak", rng: random.Random) -> Actor:
    soak.valkey.freeze()
    yield from _down(soak, "Valkey frozen", rng, until=soak.valkey.thaw)


def _append_only_file(data_dir: Path) -> Path:
    return max((data_dir / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)


def broken_store(soak: "Soak", rng: random.Random) -> Actor:
    """Rclone: killed or frozen."""
    while True:
        yield rng.uniform(15, 40)
        if rng.random() < 0.7:
            soak.store.kill()
            yield from _down(soak, "rclone killed", rng, until=soak.store.start)
        else:
            soak.store.freeze()
            yield from _down(soak, "rclone frozen", rng, until=soak.store.thaw)


def _down(soak: "Soak", what: str, rng: random.Random, *, until: Callable[[], None]) -> Actor:
    seconds = rng.choice((0.0, rng.uniform(0, 8)))
    soak.say(what, f"for {seconds:.1f} s")
    soak.down.add(what)
    try:
        yield seconds
    finally:
        until()
        soak.down.discard(what)


# ---------------------------------------------------------------------- network and recorders


def broken_network(soak: "Soak", rng: random.Random, service: str) -> Actor:
    """The way of one daemon or of both to one service."""
    while True:
        yield rng.uniform(8, 25)
        fault, names = rng.choice(_NETWORK[service]), rng.choice(("A", "B", "AB"))
        seconds = rng.choice((1.0, 3.0, rng.uniform(2, 8), rng.uniform(8, 20)))
        proxies = [soak.proxies[name, service] for name in names]
        for proxy in proxies:
            fault.begin(proxy)
        soak.say(f"{service} {fault.name}", f"for {' and '.join(names)}, {seconds:.1f} s")
        try:
            yield seconds
        finally:
            for proxy in proxies:
                proxy.heal()


def paused_recorders(soak: "Soak", rng: random.Random) -> Actor:
    """All recorders stand still, some of them for long enough that their files seem to have ended."""
    while True:
        yield rng.uniform(20, 60)
        seconds = rng.uniform(1, 6)
        soak.recorders.pause()
        soak.say("recorders paused", f"for {seconds:.1f} s")
        try:
            yield seconds
        finally:
            soak.recorders.resume()
