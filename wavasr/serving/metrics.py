"""What a server counts, in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_RATES = (0.5, 1, 2, 5, 10, 20, 50, 100)  # upper bounds of the histogram, in times real time


@dataclass
class Metrics:
    """Counters since the start.

    Attributes:
        requests: finished requests and sessions, by (route, status).
        audio_s: seconds of audio recognised, by route.
        speeds: finished uploads by how many times faster than real time they were recognised, queueing included.
    """

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    audio_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    speeds: list[int] = field(default_factory=lambda: [0] * (len(_RATES) + 1))
    speed_sum: float = 0.0

    def finished(self, route: str, status: object, audio_s: float = 0.0) -> None:
        """Count one request or session."""
        self.requests[route, str(status)] += 1
        self.audio_s[route] += audio_s

    def took(self, audio_s: float, seconds: float) -> None:
        """Count the speed of one upload."""
        speed = audio_s / max(seconds, 1e-6)
        self.speed_sum += speed
        index = next((i for i, bound in enumerate(_RATES) if speed <= bound), len(_RATES))
        self.speeds[index] += 1

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """The page that Prometheus reads; `gauges`: name -> (help, value of this moment)."""
        return "\n".join(self._lines(gauges)) + "\n"

    def _lines(self, gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
        yield from _head("wavasr_requests_total", "counter", "finished requests and live sessions")
        for (route, status), number in sorted(self.requests.items()):
            yield f'wavasr_requests_total{{route="{route}",status="{status}"}} {number}'
        yield from _head("wavasr_audio_seconds_total", "counter", "seconds of audio recognised or spoken")
        for route, seconds in sorted(self.audio_s.items()):
            yield f'wavasr_audio_seconds_total{{route="{route}"}} {seconds:.3f}'
        yield from _head("wavasr_speed", "histogram", "seconds of audio recognised in a second, of each upload")
        total = 0
        for bound, count in zip([*map(str, _RATES), "+Inf"], self.speeds, strict=True):
            total += count
            yield f'wavasr_speed_bucket{{le="{bound}"}} {total}'
        yield f"wavasr_speed_sum {self.speed_sum:.3f}"
        yield f"wavasr_speed_count {total}"
        for name, (text, value) in gauges.items():
            yield from _head(f"wavasr_{name}", "gauge", text)
            yield f"wavasr_{name} {value:g}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
