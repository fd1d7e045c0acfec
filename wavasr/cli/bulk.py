"""`wavasr bulk`: a corpus to texts, by many processes and machines, again and again until it is done."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wavasr.cli.console import OK, SOME_FAILED, complain, configure_logging, starting
from wavasr.cli.options import Parser, add_decoding, add_model, count, decoding_config
from wavasr.errors import counted

if TYPE_CHECKING:
    from wavasr.recognition.bulk import Bulk, Done, Unit
    from wavasr.recognition.runners import Runners


def bulk(arguments: list[str]) -> int:
    """`wavasr bulk`: recordings of a corpus to JSON lines in a folder."""
    parser = _parser()
    args = parser.parse_args(arguments)
    share = re.fullmatch(r"(\d+)/(\d+)", args.shard)
    if not share or int(share[1]) >= int(share[2]):
        parser.error(f"--shard is {args.shard!r}; expected i/n with i from 0 to n - 1, such as 0/8")
    for name in ("workers", "block"):
        if getattr(args, name) == 0:
            parser.error(f"--{name} is 0; expected 1 or more")
    os.environ["OMP_NUM_THREADS"] = "1"  # of each worker: sums are rounded alike, and processes use the cores better
    configure_logging(args.quiet)
    with starting():
        from wavasr.recognition.bulk import Bulk, units_of
        from wavasr.recognition.runners import Actors, Processes

        units = units_of(args.sources, args.block)[int(share[1]) :: int(share[2])]
        work = Bulk(args.output, args.model, decoding_config(args), args.block)
    counts = _Counts(work, units, args.quiet, args.max_errors)
    if not counts.to_do or counts.too_many:
        return counts.conclude()
    workers = Actors(work, args.ray) if args.ray else Processes(work)
    return counts.carry_out(workers, args.workers or workers.processors)


class _Counts:
    """What is done and failed, on the progress line and at the end."""

    def __init__(self, work: Bulk, units: Sequence[Unit], quiet: bool, most_errors: int | None) -> None:
        self.work, self.units = work, units
        self.quiet = quiet
        self.most_errors = most_errors
        self.recordings = self.failed = self.earlier = 0
        self.duration_s = 0.0
        self.started_s = time.monotonic()
        self.to_do = []
        for unit in units:
            if earlier := work.finished(unit):
                self.earlier += 1
                self.failed += earlier.failed
            else:
                self.to_do.append(unit)

    @property
    def too_many(self) -> bool:
        """Whether more recordings failed than are allowed."""
        return self.most_errors is not None and self.failed > self.most_errors

    def carry_out(self, workers: Runners, number: int) -> int:
        """Do what is still to do; the exit code."""
        from tqdm import tqdm

        from wavasr.recognition.runners import carry_out

        left = sum(len(unit.utterances) for unit in self.to_do)
        with tqdm(total=left, unit=" recordings", disable=True if self.quiet else None) as bar:
            for done in carry_out(self.to_do, workers, number):
                self._add(done)
                left -= done.recordings + done.failed
                bar.update(done.recordings + done.failed)
                hours = self.duration_s / 3600
                bar.set_postfix_str(
                    f"{hours:.2f} h of audio done, about {hours / max(1, self.recordings) * left:.2f} left"
                )
                if self.too_many:
                    break
        return self.conclude()

    def _add(self, done: Done) -> None:
        self.recordings += done.recordings
        self.failed += done.failed
        self.duration_s += done.duration_s
        if done.lost:
            complain(f"{done.name}: its worker was killed twice, perhaps for lack of memory; it is not done")
        elif done.failed:
            complain(
                f"{self.work.output / done.name}.errors.jsonl: {counted(done.failed, 'recording')} could not be read"
            )

    def conclude(self) -> int:
        """Tell what was done; the exit code."""
        hours = self.duration_s / 3600
        line = f"{self.work.output}: {counted(self.recordings, 'recording')}, {hours:.2f} h of audio"
        if self.recordings:
            line += f", {hours / (time.monotonic() - self.started_s) * 3600:.0f} x real time"
        print(f"{line}; {self.earlier} of {counted(len(self.units), 'unit')} done before")
        if not self.failed:
            return OK
        stopped = "; stopped, since --max-errors is less" if self.too_many else ""
        complain(
            f"{counted(self.failed, 'recording')} failed{stopped}; to try a unit again, remove its result NAME.jsonl"
        )
        return SOME_FAILED


def _parser() -> Parser:
    parser = Parser(
        prog="wavasr bulk",
        description="Transcribe a corpus into DIR: for each shard, or each block of a manifest or folder, NAME.jsonl\n"
        "with an object per recording (id, text, confidence, duration_s, words), and NAME.errors.jsonl with\n"
        "those that could not be read. To go on after an interruption run the same command again.",
        epilog="examples:\n"
        "  wavasr bulk calls/ --output texts\n"
        "  wavasr bulk data/librispeech/dev.jsonl --output texts --workers 2\n"
        "  wavasr bulk shards/train --output texts --shard $SLURM_ARRAY_TASK_ID/100    # sbatch --array=0-99\n"
        "  wavasr bulk shards/train --output texts --ray auto --workers 200",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a manifest, a folder of shards or one of its shards, or a folder of recordings",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the results go")
    add_model(parser)
    parser.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="processes or actors (default: one per core of this machine or cluster)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="use a Ray cluster, whose machines see the same folders: HOST:PORT, auto, local",
    )
    parser.add_argument(
        "--shard", default="0/1", metavar="i/n", help="do part i of n only (i from 0): every n-th shard or block"
    )
    parser.add_argument(
        "--block",
        type=count,
        default=200,
        metavar="N",
        help="recordings per result file, for manifests and folders (default: %(default)s)",
    )
    parser.add_argument(
        "--max-errors", type=count, metavar="K", help="stop when more recordings than this have failed (default: never)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages but errors")
    add_decoding(parser)
    return parser
