"""How well a live bank's producer keeps to its budget of 2 %, in simulated trainings.

A host's steps take as long as its kind says, and longer while the producer works, which obeys
``pace.json``; a free host loses nothing by it, in five minutes of steps that last so many seconds.
Time is simulated, so the figures do not depend on the machine. For each host: the
mean and largest overhead of four seeds, and the share of time that the producer worked. Another
checkout of gansynth is measured with PYTHONPATH.

    python benchmarks/measure/bench_throttle.py [--seeds 4]
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.bank.throttle import ProducerThrottle, log_work, read_throttle_state
from gansynth.core.bank_options import RefreshPolicy

BUDGET = RefreshPolicy(overhead=0.02)
Array = npt.NDArray[np.float64]


class Loop:
    """Steps of a host, slowed down by a producer that obeys ``pace.json``; simulated seconds.

    Args:
        bank: a folder.
        slowdown: 1 if a step takes twice as long beside the producer's work.
        pacing: what was asked for.
        seed: of host and producer.
        stretch: seconds of the producer's batches, about.
    """

    def __init__(
        self,
        bank: Path,
        slowdown: float,
        pacing: RefreshPolicy = BUDGET,
        seed: int = 0,
        stretch: float = 1.0,
    ) -> None:
        self.bank, self.lost, self.stretch = bank, slowdown / (1 + slowdown), stretch
        self.rng = np.random.default_rng(seed)
        self.now = self.begin = self.end = self.first = 1000.0
        self.until: float | None = self.now + 1
        self.alone = self.worked = self.paused = self.done = 0.0
        self.published = 0
        self.duties: list[float] = []
        self.steering = ProducerThrottle(bank, pacing, lambda: 7)
        self.steering._chance.seed(seed)

    def run(self, steps: int, needs: Array | None = None, epoch: int = 0) -> None:
        """Train for so many steps, or those that take so long alone; validate after epochs."""
        found = 0.4 * np.exp(0.1 * self.rng.normal(size=steps)) if needs is None else needs
        for number, need in enumerate(found, 1):
            self.pace = read_throttle_state(self.bank)
            self.duties.append(0.0 if self.pace is None else self.pace.duty)
            begin = self.now
            self.alone += need
            self.advance(work=need)
            self.steering.step(begin, self.now)
            if epoch and number % epoch == 0:
                self.steering.pause()
                self.pace, begin = read_throttle_state(self.bank), self.now
                self.advance(until=self.now + 10)
                self.paused += self.now - begin

    def advance(self, work: float = math.inf, until: float = math.inf) -> None:
        """Let time pass until so much is done beside the producer, or until then."""
        while work > 1e-9 and self.now < until - 1e-9:
            speed = 1.0 if self.until is None else 1 - self.lost
            change = self._due() if self.until is None else self.until
            passed = min(max(0.0, change - self.now), work / speed, until - self.now)
            work -= passed * speed
            self.done += passed * speed
            self.now += passed
            self.worked += 0.0 if self.until is None else passed
            if self.now >= change - 1e-9:
                self._turn()

    def _turn(self) -> None:
        if self.until is None:
            self.begin, self.until = self.now, self.now + self.stretch * self.rng.gamma(20, 0.05)
        else:
            self.end, self.until = self.now, None
            self.published += 4
            log_work(self.bank, self.begin, self.end)
        beat = {
            "working_since": None if self.until is None else self.begin,
            "total": self.published,
            "held": 64,
            "state": "refreshing",
            "time": self.now,
        }
        (self.bank / "heartbeat.json").write_text(json.dumps(beat))

    def _due(self) -> float:
        assert self.pace is not None
        return self.end + (self.end - self.begin) * (1 - self.pace.duty) / self.pace.duty

    @property
    def overhead(self) -> float:
        """Relative slowdown of the training."""
        return (self.now - self.first - self.paused) / self.alone - 1

    @property
    def duty(self) -> float:
        """Share of time that the producer worked."""
        return self.worked / (self.now - self.first)


def needs(seed: int, steps: int, noise: float = 0.1, drift: float = 0.0) -> Array:
    """Return the seconds that steps take alone: correlated noise and a heavy tail."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=steps)
    for i in range(1, steps):
        z[i] = 0.5 * z[i - 1] + math.sqrt(0.75) * z[i]
    alone = 0.4 * np.exp(noise * z + drift * np.linspace(0, 1, steps))
    return np.asarray(alone * np.where(rng.random(steps) < 0.03, rng.uniform(1.5, 5, steps), 1))


HOSTS: Mapping[str, Callable[[int], Array]] = {
    "noise": lambda seed: needs(seed, 3000, noise=0.4),
    "drift": lambda seed: needs(seed, 3000, drift=1.0),
    "checkpoints": lambda seed: needs(seed, 3000) * np.where(np.arange(3000) % 50 == 49, 6, 1),
    "logging": lambda seed: needs(seed, 3000) * np.where(np.arange(3000) % 5 == 4, 2, 1),
    "accumulation": lambda seed: needs(seed, 3000) * np.resize([1, 1, 1, 2], 3000),
    "quick-steps": lambda seed: needs(seed, 8000) / 8,
    "long-steps": lambda seed: needs(seed, 1000) * 12,
}


def prefetched(bank: Path, workers: int, seed: int = 0) -> tuple[Loop, float]:
    """Return a host whose worker processes are slowed down, and its own overhead."""
    rng = np.random.default_rng(seed)
    batches = 0.5 * workers * np.exp(0.2 * rng.normal(size=4000))
    own = 0.3 * np.exp(0.1 * rng.normal(size=3000))

    def run(loop: Loop | None) -> float:
        ready, left, now = list(batches[:workers] / 2), iter(batches[workers:]), 0.0
        heapq.heapify(ready)
        for seconds in own:
            batch = heapq.heappop(ready)
            heapq.heappush(ready, batch + float(next(left)))
            if loop is None:
                now = max(now, batch) + seconds
                continue
            loop.pace = read_throttle_state(loop.bank)
            loop.advance(work=batch - loop.done)
            begin = loop.now
            loop.advance(until=begin + seconds)
            loop.steering.step(begin, loop.now)
        return now

    loop = Loop(bank, 0.5, seed=seed)
    alone = run(None)
    run(loop)
    return loop, (loop.now - loop.first) / alone - 1


def simulate(host: str, seed: int) -> tuple[float, float]:
    """Return overhead and duty of one simulated training."""
    with tempfile.TemporaryDirectory() as folder:
        if host.startswith("loader"):
            loop, overhead = prefetched(Path(folder), int(host.split()[1]), seed)
            return overhead, loop.duty
        if host.startswith("free"):
            loop = Loop(Path(folder), 0.0, seed=seed, stretch=0.15)
            step = float(host.split()[1])
            loop.run(0, step * np.exp(0.05 * loop.rng.normal(size=int(300 / step))))
            return loop.overhead, loop.duty
        slowdown = float(host.split()[1]) if host.startswith("slow") else 0.3
        loop = Loop(Path(folder), slowdown, seed=seed)
        loop.run(2000, HOSTS[host](seed) if host in HOSTS else None)
        return loop.overhead, loop.duty


def main() -> None:
    """Print and write the table."""
    from common import print_table, write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    seeds = range(parser.parse_args().seeds)
    rows: list[dict[str, Any]] = []
    for host in (
        "free 0.03",
        "free 0.2",
        "slow 0.05",
        "slow 0.3",
        "slow 1.0",
        *HOSTS,
        "loader 1",
        "loader 4",
    ):
        overheads, duties = np.array([simulate(host, seed) for seed in seeds]).T
        rows.append(
            {
                "host": host,
                "overhead_percent": round(100 * float(overheads.mean()), 2),
                "largest_percent": round(100 * float(overheads.max()), 2),
                "duty": round(float(duties.mean()), 4),
            }
        )
    print_table([list(rows[0]), *(list(row.values()) for row in rows)])
    write("throttle", {"budget_percent": 2, "seeds": len(seeds), "hosts": rows})


if __name__ == "__main__":
    main()
