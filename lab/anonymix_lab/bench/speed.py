"""What a face costs now, in pairs with what it cost in an older revision.

Both revisions make the same faces in processes of their own, which take turns, so that both see the same load.
What counts is the median of the ratios of pairs: seconds depend on who else uses the cores, and ratios hardly do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from anonymix_adapters.errors import SdkMissingError, SdkVersionError
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.registry import load
from anonymix_lab.bench.clock import Clock
from anonymix_lab.bench.modes import Mode, measure_modes
from anonymix_lab.bench.sides import Side, Spent, Worker
from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.machine import machine, versions
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.errors import MissingModelError
from anonymix_plugin.generator.openvino_bfloat import has_bfloat16
from anonymix_plugin.pool import CORES

Progress = Callable[[str], None]

_STREAM = 8  # faces of a stream
_KEYFILE = "ANONYMIX_KEYFILE"


@dataclass(frozen=True)
class SpeedSettings:
    """What to measure.

    Attributes:
        pairs: Faces of either side, after two that are not counted.
        starts: Fresh processes of either side, and runs of `anonymix protect`; 0 leaves them out.
        streams: Streams of eight faces; 0 leaves them out.
        faces: How many faces a process has made when its memory is looked at.
        engines: Whether the small generator, a core for each face and, where the processor has it, bfloat16 are
            measured, too.
        stacks: Adapters whose back end's own time is measured beside ours. One whose library or weights are not
            there is left out, and named.
        threads: With how many threads both sides draw in float32; 0 leaves that to them. With one, other work on the
            machine disturbs the ratio in processor time least.
        modes: Rounds of the ways to share out the cores (`modes.measure_modes`); 0 leaves them out.
    """

    pairs: int = 30
    starts: int = 5
    streams: int = 6
    faces: int = 100
    engines: bool = True
    stacks: tuple[str, ...] = ()
    modes: int = 0
    threads: int = 0


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was measured.
        unit: "ms", "faces/s", "MB" or "".
        old: Median with the wheel; None where there is nothing to compare with.
        new: Median of this revision.
        ratio: Median of the pairs' new / old, by the clock.
        cpu: The same in processor time; None where that says nothing.
        wanted: The ratio that was asked for.
        most: Whether `wanted` is the most that it may be, or the least.
    """

    what: str
    unit: str
    old: float | None
    new: float
    ratio: float | None
    cpu: float | None = None
    wanted: float | None = None
    most: bool = True


@dataclass(frozen=True)
class Stack:
    """A recogniser's own stack.

    Attributes:
        name: The adapter's name.
        ms: Its own time a photo, decoding and detection included, median.
        cpu: The same in processor time.
        adds: What a cancelable face before it adds, in per cent of that: median of pairs.
        adds_cpu: The same in processor time.
    """

    name: str
    ms: float
    cpu: float
    adds: float
    adds_cpu: float


@dataclass(frozen=True)
class Speed:
    """Everything that was measured.

    Attributes:
        machine: Processor, cores, versions.
        rows: The table.
        same: How many faces have the same bytes on both sides, of how many; None where the fingerprints differ.
        stacks: Recognisers' stacks.
        left_out: Stacks that could not be measured, and why.
        modes: Ways to share out the cores.
    """

    machine: Mapping[str, Any]
    rows: Sequence[Row]
    same: tuple[int, int] | None
    stacks: Sequence[Stack] = field(default_factory=tuple)
    left_out: Mapping[str, str] = field(default_factory=dict)
    modes: Sequence[Mode] = field(default_factory=tuple)

    @property
    def face(self) -> float:
        """The ratio of one face."""
        ratio = self.rows[0].ratio
        assert ratio is not None  # noqa: S101 - one face is measured on both sides
        return ratio

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return asdict(self)


def measure_speed(
    wheel: Path, photos: Sequence[Path], settings: SpeedSettings, progress: Progress = lambda _: None
) -> Speed:
    """Measure this revision against a wheel.

    Args:
        wheel: A wheel of an older revision.
        photos: At least one photo with a face; they take turns.
        settings: What to measure.
        progress: Told what comes next.

    Raises:
        UsageError: It is no wheel.
        AnonymixError: A process failed.
    """
    with TemporaryDirectory(prefix="anonymix-speed-") as place:
        folder = Path(place)
        new, old = Side.here(), Side.of_wheel(wheel, folder / "wheel")
        with Worker(old, photos, threads=settings.threads) as before:
            with Worker(new, photos, threads=settings.threads) as after:
                rows, same, stacks, left_out = _float32(before, after, photos, settings, progress)
            if settings.engines:
                rows += _others(new, before, photos, settings, progress)
        if settings.starts:
            rows += _starts(old, new, photos, settings, folder, progress)
    modes = measure_modes(new, photos, settings.modes, progress) if settings.modes else []
    return Speed({**machine(), **versions(("openvino", "numpy"))}, rows, same, stacks, left_out, modes)


class _Pairs:
    """What both sides took, pair by pair; who begins changes."""

    def __init__(self) -> None:
        self.old, self.new = Clock(), Clock()
        self._turn = False

    def run(self, old: Callable[[], Spent], new: Callable[[], Spent]) -> None:
        """Let both do the same."""
        self._turn = not self._turn
        todo = [(old, self.old), (new, self.new)]
        for do, clock in todo if self._turn else reversed(todo):
            spent = do()
            clock.add(spent.wall, spent.cpu)

    def row(self, what: str, *, wanted: float | None = None) -> Row:
        """The line of the table, in ms."""
        old, new = np.array(self.old.wall), np.array(self.new.wall)
        spent = float(np.median(np.array(self.new.cpu) / np.array(self.old.cpu)))
        was, now = (1000 * float(np.median(side)) for side in (old, new))
        return Row(what, "ms", was, now, float(np.median(new / old)), spent, wanted)

    def rate(self, what: str, each: int, wanted: float) -> Row:
        """The line of the table, in faces a second."""
        old, new = (each / np.array(clock.wall) for clock in (self.old, self.new))
        return Row(
            what,
            "faces/s",
            float(np.median(old)),
            float(np.median(new)),
            float(np.median(new / old)),
            float(np.median(np.array(self.old.cpu) / np.array(self.new.cpu))),
            wanted,
            most=False,
        )


def _float32(
    before: Worker, after: Worker, photos: Sequence[Path], settings: SpeedSettings, progress: Progress
) -> tuple[list[Row], tuple[int, int] | None, list[Stack], dict[str, str]]:
    faces, passes, streams = _Pairs(), _Pairs(), _Pairs()
    equal, both = 0, (before, after)
    made: dict[int, list[list[str]]] = {}
    with _stacks(settings.stacks) as (stages, left_out):
        times: dict[str, Clock] = {name: Clock() for name in stages}
        for number in range(-2, settings.pairs):
            progress(f"face {max(0, number + 1)} of {settings.pairs}")
            here = made.setdefault(number, [])
            counted = number >= 0
            target, alone = (faces, passes) if counted else (_Pairs(), _Pairs())
            target.run(*(partial(_face, worker, number, here) for worker in both))
            alone.run(*(partial(worker.timed, "passes", count=1) for worker in both))
            for name, stage in stages.items():
                clock = times[name] if counted else Clock()
                clock.run(partial(stage.verify_original, "speed", photos[number % len(photos)]))
            equal += here[0] == here[1]
        own = [_stack(name, clock, faces.new) for name, clock in times.items()]
    for number in range(settings.streams):
        progress(f"stream {number + 1} of {settings.streams}")
        streams.run(*(partial(worker.timed, "stream", start=number, count=_STREAM) for worker in both))
    done = settings.pairs + 2 + _STREAM * settings.streams
    rest = max(0, settings.faces - done)
    progress(f"{rest} more faces, for the memory")
    held = []
    for worker in both:
        worker.ask("faces", start=0, count=rest)
        held.append(worker.ask("memory"))
    rows = [
        faces.row("one face, decode to picture", wanted=0.75),
        passes.row("the generator's pass alone"),
        _over_pass(faces, passes),
        *([streams.rate("faces a second, stream of many", _STREAM, 1.5)] if settings.streams else ()),
        *_memory(held, f"memory after {max(settings.faces, done)} faces"),
    ]
    same = (equal, len(made)) if before.fingerprint == after.fingerprint else None
    return rows, same, own, left_out


def _stack(name: str, own: Clock, ours: Clock) -> Stack:
    ms, cpu = (1000 * float(np.median(taken)) for taken in (own.wall, own.cpu))
    pairs = ((ours.wall, own.wall), (ours.cpu, own.cpu))
    adds, adds_cpu = (100 * float(np.median(np.array(face) / np.array(alone))) for face, alone in pairs)
    return Stack(name, ms, cpu, adds, adds_cpu)


def _face(worker: Worker, number: int, made: list[list[str]]) -> Spent:
    answer = worker.ask("faces", start=number, count=1)
    made.append(answer["faces"])
    return Spent(answer["wall"], answer["cpu"])


def _over_pass(faces: _Pairs, passes: _Pairs) -> Row:
    old, new = (
        float(np.median(np.array(total.wall) / np.array(alone.wall)))
        for total, alone in ((faces.old, passes.old), (faces.new, passes.new))
    )
    return Row("total / the generator's pass", "", old, new, None, wanted=1.2)


def _memory(held: Sequence[Mapping[str, float]], what: str) -> list[Row]:
    old, new = held
    kinds = {"resident": "resident", "proportional": "its share of what several hold", "own": "the process's own"}
    return [Row(f"{what}, {words}", "MB", old[kind], new[kind], new[kind] / old[kind]) for kind, words in kinds.items()]


def _others(
    new: Side, before: Worker, photos: Sequence[Path], settings: SpeedSettings, progress: Progress
) -> list[Row]:
    """The small generator, bfloat16 and a core for each face, each beside the wheel's large one in float32."""
    wide = {"at_once": CORES}
    small, bfloat = {"generator": "small"}, {"engine": "openvino-bf16"}
    kinds: list[tuple[str, dict[str, Any], float | None, float]] = [
        ("a core a face", wide, None, 1.5),
        ("small generator", small, 0.33, 3),
        ("small generator, a core a face", small | wide, None, 3),
    ]
    if has_bfloat16():
        kinds += [("bfloat16", bfloat, 0.5, 1.5), ("bfloat16, a core a face", bfloat | wide, None, 1.5)]
    rows = []
    for name, options, wanted, rate in kinds:
        faces, streams = _Pairs(), _Pairs()
        with Worker(new, photos, **options) as after:
            for number in range(-2, settings.pairs if wanted else 0):
                progress(f"{name}, face {max(0, number + 1)} of {settings.pairs}")
                target = faces if number >= 0 else _Pairs()
                target.run(*(partial(worker.timed, "faces", start=number, count=1) for worker in (before, after)))
            for number in range(settings.streams):
                progress(f"{name}, stream {number + 1} of {settings.streams}")
                streams.run(
                    *(partial(worker.timed, "stream", start=number, count=_STREAM) for worker in (before, after))
                )
        if wanted:
            rows.append(faces.row(f"{name}: one face", wanted=wanted))
        if settings.streams:
            rows.append(streams.rate(f"{name}: faces a second", _STREAM, rate))
    return rows


def _starts(
    old: Side, new: Side, photos: Sequence[Path], settings: SpeedSettings, folder: Path, progress: Progress
) -> list[Row]:
    firsts, files = _Pairs(), _Pairs()
    sides = {"old": old, "new": new}
    for name, side in sides.items():
        store, key = folder / f"{name}.db", folder / f"{name}.key"
        side.run("-m", "anonymix_plugin", "keys", "init", "--keystore", str(store), "--key-file", str(key))
    for number in range(settings.starts):
        progress(f"fresh process {number + 1} of {settings.starts}")
        firsts.run(*(partial(_first, side, photos[:1]) for side in sides.values()))
        files.run(*(partial(_file, side, folder, name, photos[0], number) for name, side in sides.items()))
    return [
        firsts.row("first face of a process", wanted=0.6),
        files.row("anonymix protect, start to file", wanted=0.6),
    ]


def _first(side: Side, photos: Sequence[Path]) -> Spent:
    clock, spent = Clock(), 0.0

    def start() -> Worker:
        nonlocal spent
        worker = Worker(side, photos)
        spent = worker.ask("faces", start=0, count=1)["spent"]
        return worker

    clock.run(start).close()
    return Spent(clock.wall[0], spent)


def _file(side: Side, folder: Path, name: str, photo: Path, number: int) -> Spent:
    output = str(folder / f"{name}-{number}")
    words = ("protect", str(photo), "--subject", "speed", "--enrol", "--output", output)
    store, key = str(folder / f"{name}.db"), str(folder / f"{name}.key")
    return side.run("-m", "anonymix_plugin", *words, "--keystore", store, **{_KEYFILE: key})


@contextmanager
def _stacks(names: Sequence[str]) -> Iterator[tuple[dict[str, Rehearsal], dict[str, str]]]:
    """Back ends without a mixer at work, ready to embed photos as they are; and which are not there, and why."""
    ready, left_out = {}, {}
    with ExitStack() as stack:
        if names:
            mixer = stack.enter_context(Anonymixer(SeededKeys(1)))
        for name in names:
            try:
                ready[name] = stack.enter_context(load(name).rehearse(mixer))
            except (SdkMissingError, SdkVersionError, MissingModelError) as error:
                left_out[name] = str(error)
        yield ready, left_out
