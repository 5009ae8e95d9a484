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

from tests.drills import soak_damage
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import ValkeyServer

if TYPE_CHECKING:
    from tests.drills.soak import Soak
    from tests.drills.soak_sites import SoakSite

Actor = Generator[float, None, None]

KILL_OCCASIONS = ("", "", "chunk stored", "chunk repaired", "finalizing", "complete")
"""What the daemon is killed right after, when that comes before its time."""

_MAX_WAITED_SECONDS = 5.0
_POLL_SECONDS = 0.02
LEASE_SECONDS = 30.0
SLOW_BYTES_PER_SECOND = 300_000
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
    """Return every fault of a soak, each with random numbers of its own."""

    def rng(name: str) -> random.Random:
        return random.Random(f"{seed} {name}")

    return [
        killed_daemon(soak, rng("killed daemon"), "A", often=1.0),
        killed_daemon(soak, rng("killed daemon at the second site"), "D", often=0.3),
        stopped_daemon(soak, rng("stopped daemon"), "B"),
        stopped_daemon(soak, rng("stopped daemon of the other namespace"), "C"),
        *(broken_valkey(soak, rng(f"valkey {number}"), each) for number, each in enumerate(soak.valkeys)),
        broken_store(soak, rng("store")),
        broken_network(soak, rng("network of s3"), "s3"),
        broken_network(soak, rng("network of redis"), "redis"),
        slow_line(soak, rng("slow line")),
        volume_away(soak, rng("volume")),
        *(paused_recorders(soak, rng(f"recorders of {site.plan.name}"), site) for site in soak.sites),
        *(
            soak_damage.damaged_records(soak, rng(f"records of {site.plan.name}"), site)
            for site in soak.sites
        ),
    ]


# ---------------------------------------------------------------------- daemons


def killed_daemon(soak: "Soak", rng: random.Random, letter: str, *, often: float) -> Actor:
    """Kill a daemon at a random moment and start it again; sometimes stop it for longer than a lease."""
    site = soak.site_of(letter)
    while True:
        yield rng.uniform(3, 20) / often
        if rng.random() < 0.15:
            yield from _stop(soak, letter, LEASE_SECONDS + rng.uniform(1, 5))
            continue
        while site.knows_alone():
            yield 1.0
        daemon = site.daemons[letter]
        occasion, deadline = rng.choice(KILL_OCCASIONS), time.monotonic() + _MAX_WAITED_SECONDS
        seen = len(daemon.events(occasion))
        while occasion and len(daemon.events(occasion)) == seen and time.monotonic() < deadline:
            yield _POLL_SECONDS
        assert daemon.running(), f"{letter} ended by itself:\n{daemon.output()[-8000:]}"
        daemon.kill()
        soak.say(f"{letter} killed", f"after {occasion or 'nothing'!r}")
        try:
            yield rng.choice((0.0, 0.0, rng.uniform(0, 10)))
        finally:
            site.start(letter)


def stopped_daemon(soak: "Soak", rng: random.Random, letter: str) -> Actor:
    """Stop a daemon that is never killed now and then."""
    while True:
        yield rng.uniform(10, 40)
        long = rng.random() < 0.15
        yield from _stop(soak, letter, LEASE_SECONDS + rng.uniform(1, 5) if long else rng.uniform(0.2, 5))


def _stop(soak: "Soak", letter: str, seconds: float) -> Actor:
    site = soak.site_of(letter)
    daemon = site.daemons[letter]
    site.blind[letter].begin()
    daemon.send(signal.SIGSTOP)
    soak.stopped.add(letter)
    soak.say(f"{letter} stopped", f"for {seconds:.1f} s")
    try:
        yield seconds
    finally:
        daemon.send(signal.SIGCONT)
        site.blind[letter].end()
        soak.stopped.discard(letter)


# ---------------------------------------------------------------------- servers


def broken_valkey(soak: "Soak", rng: random.Random, valkey: ValkeyServer) -> Actor:
    """Valkey: killed, frozen, emptied, or without power: its last second is lost as well."""
    ways = (_killed_valkey, _powerless_valkey, _flushed_valkey, _frozen_valkey)
    while True:
        yield rng.uniform(10, 30)
        yield from rng.choice(ways)(soak, rng, valkey)


def _killed_valkey(soak: "Soak", rng: random.Random, valkey: ValkeyServer) -> Actor:
    soak.lost_records(valkey)
    valkey.kill()
    yield from _down(soak, _name(valkey, "killed"), rng, until=valkey.start)


def _powerless_valkey(soak: "Soak", rng: random.Random, valkey: ValkeyServer) -> Actor:
    soak.lost_records(valkey)
    aof = _append_only_file(valkey.data_dir)
    size = aof.stat().st_size
    yield _AOF_SECONDS
    valkey.kill()
    if aof == _append_only_file(valkey.data_dir):
        os.truncate(aof, size)
    yield from _down(soak, _name(valkey, "lost its last second"), rng, until=valkey.start)


def _flushed_valkey(soak: "Soak", rng: random.Random, valkey: ValkeyServer) -> Actor:
    soak.lost_records(valkey)
    valkey.client.flushall()
    soak.say(_name(valkey, "emptied"))
    yield 0.0


def _frozen_valkey(soak: "Soak", rng: random.Random, valkey: ValkeyServer) -> Actor:
    valkey.freeze()
    yield from _down(soak, _name(valkey, "frozen"), rng, until=valkey.thaw)


def _name(valkey: ValkeyServer, event: str) -> str:
    return f"{valkey.data_dir.name.capitalize()} {event}"


def _append_only_file(data_dir: Path) -> Path:
    return max((data_dir / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)


def broken_store(soak: "Soak", rng: random.Random) -> Actor:
    """Rclone: killed or frozen, or killed and started with an empty bucket.

    While a line is slow it is left alone: no chunk takes less than 35 s there.
    """
    anew_at = time.monotonic() + rng.uniform(40, 60)
    while True:
        yield rng.uniform(15, 40)
        while soak.line_is_slow:
            yield 1.0
        if time.monotonic() >= anew_at and not any(site.away.since for site in soak.sites):
            soak.store.kill()
            soak.make_bucket_anew()
            anew_at = time.monotonic() + rng.uniform(150, 300)
            yield from _down(soak, "bucket made anew", rng, until=soak.store.start)
        elif rng.random() < 0.7:
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


# ---------------------------------------------------------------------- network, folders and recorders


def broken_network(soak: "Soak", rng: random.Random, service: str) -> Actor:
    """The way of one daemon or of several to one service."""
    while True:
        yield rng.uniform(8, 25)
        fault, letters = rng.choice(_NETWORK[service]), rng.choice(("A", "B", "AB", "C", "D", "ABCD"))
        seconds = rng.choice((1.0, 3.0, rng.uniform(2, 8), rng.uniform(8, 20)))
        proxies = [soak.site_of(letter).proxies[letter, service] for letter in letters]
        for proxy in proxies:
            fault.begin(proxy)
        soak.say(f"{service} {fault.name}", f"for {' and '.join(letters)}, {seconds:.1f} s")
        try:
            yield seconds
        finally:
            for proxy in proxies:
                proxy.heal()


def slow_line(soak: "Soak", rng: random.Random) -> Actor:
    """The whole way of the second site to S3, at the rate of a bad uplink."""
    line = next(site.line for site in soak.sites if site.line)
    while True:
        yield rng.uniform(15, 60)
        seconds, before = rng.uniform(40, 80), line.sent_bytes
        line.set_rate(SLOW_BYTES_PER_SECOND)
        soak.line_is_slow = True
        soak.say("line slow", f"for {seconds:.1f} s")
        try:
            yield seconds
        finally:
            line.set_rate(float("inf"))
            soak.line_is_slow = False
            soak.slow_bytes += line.sent_bytes - before


def volume_away(soak: "Soak", rng: random.Random) -> Actor:
    """The folder of the second site's recordings is unmounted, and mounted again."""
    site = next(site for site in soak.sites if site.line)
    if not site.volume.is_mounted:
        soak.say("volume away: left out", "only root may mount")
    while site.volume.is_mounted:
        yield rng.uniform(15, 60)
        while not site.saw_its_folder():
            yield 1.0
        seconds = rng.choice((rng.uniform(1, 4), rng.uniform(6, 20)))
        site.recorders.pause()
        site.away.begin()
        site.volume.unmount()
        soak.say("volume away", f"for {seconds:.1f} s")
        try:
            yield seconds
        finally:
            assert site.volume.mount(), "the volume cannot be mounted again"
            site.away.end()
            site.recorders.resume()
    while True:
        yield LEASE_SECONDS


def paused_recorders(soak: "Soak", rng: random.Random, site: "SoakSite") -> Actor:
    """All recorders of a site stand still: until files seem to have ended, or until everything is safe."""
    while True:
        yield rng.uniform(20, 60)
        seconds = rng.choice((rng.uniform(1, 6), rng.uniform(1, 6), rng.uniform(15, 30)))
        site.recorders.pause()
        soak.say("recorders paused", f"at {site.plan.name}, for {seconds:.1f} s")
        try:
            yield seconds
        finally:
            site.recorders.resume()
