"""The folder of a run: held by one run at a time, never half-written, and what lies in it is checked before it is used.

What a run leaves in `runs/an4`:

    recipe.yaml     every key of the recipe, so that `--run_dir runs/an4 --resume` needs nothing else
    run.json        configuration and fingerprints of the data
    metrics.csv     losses and error rates; tensorboard/ has the same
    last.ckpt       to resume from; replaced as a whole, the previous one stays until then
    model.wavasr    the best epoch, ready for use
    dev/, test/     reports of the model
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

import wavasr
from wavasr.config import to_dict
from wavasr.errors import ConfigError
from wavasr.files import atomic_text, check_writable_folder, write_whole

RECIPE_NAME = "recipe.yaml"
RECORD_NAME = "run.json"
METRICS_NAME = "metrics.csv"
LAST_NAME = "last.ckpt"
MODEL_NAME = "model.wavasr"
_LOCK_NAME = ".lock"
# Keys that may change between a run and its resumption: they decide nothing about what is learnt.
_FREE_KEYS = (
    "run_dir",
    "checkpoint_minutes",
    "logger",
    "patience",
    "data.root",
    "data.workers",
    "data.cache_mb",
    "data.sources",
    "data.test",
)
# Keys that name files and folders.
_PLACES = ("run_dir", "start", "voice", "root", "init", "noise_dir", "room_dir")


@contextlib.contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Make the folder and keep it for this process; what killed runs left half-written in it is removed.

    The lock is the system's, so that of a dead process does not block.

    Raises:
        ConfigError: another process trains there, or the folder cannot be made or written.
    """
    try:
        check_writable_folder(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(run_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(
            f"{run_dir}: cannot be written ({(error.strerror or str(error)).lower()}); name another --run_dir"
        ) from error
    try:
        if not _lock(handle):
            who = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
            raise ConfigError(f"{run_dir}: {who} is training there; wait for its end, or name another --run_dir")
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        for part in (*run_dir.glob(".*.part"), *run_dir.glob("*/.report-*"), *run_dir.glob("*/.*.part")):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock a file for this process alone, not for its children; whether that worked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, 1000, os.SEEK_SET)  # beyond the text: a locked stretch cannot be read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: better unprotected than unusable
        return True
    return True


def claim(run_dir: Path, record: Mapping[str, Any], recipe: str, resume: bool) -> Path | None:
    """Begin a run in a folder, or go on with the one there: its checkpoint, None where there is none yet.

    Args:
        run_dir: a folder that is `held`.
        record: what `run.json` says.
        recipe: what `recipe.yaml` says.
        resume: whether a run that lies there is gone on with.

    Raises:
        ConfigError: the folder holds a run that nobody asked to resume, or one of another configuration or data, or
            damaged files.
    """
    last = run_dir / LAST_NAME
    if last.exists() and not resume:
        raise ConfigError(f"{run_dir} already holds a run; add --resume to go on with it, or name another --run_dir")
    if last.exists():
        refuse_other(read_record(run_dir), record, run_dir)
        return last
    with atomic_text(run_dir / RECORD_NAME) as stream:
        json.dump(record, stream, indent=2, ensure_ascii=False)
    with atomic_text(run_dir / RECIPE_NAME) as stream:
        stream.write(recipe)
    return None


def describe(config: Any, prints: Mapping[str, str]) -> dict[str, Any]:
    """What `run.json` and the model file say of how a model was made.

    Args:
        config: of the task.
        prints: SHA-256 of each manifest.
    """
    versions = {name: metadata.version(name) for name in ("torch", "pytorch-lightning", "numpy")}
    return {
        "config": to_dict(config),
        "manifests_sha256": dict(prints),
        "versions": {"wavasr": wavasr.__version__, "python": platform.python_version(), **versions},
    }


def portable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record for a model file, which travels: of folders and files on this machine only their names remain."""

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: named(value) if isinstance(value, Mapping) else Path(value).name if value and key in _PLACES else value
            for key, value in values.items()
        }

    return {**record, "config": named(record["config"])}


def read_record(run_dir: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        ConfigError: it is missing or damaged.
    """
    path = run_dir / RECORD_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: is missing, so nobody knows what {LAST_NAME} belongs to; {_begin_anew(run_dir)}"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is damaged; {_begin_anew(run_dir)}") from error
    if not (isinstance(record, dict) and all(isinstance(record.get(k), dict) for k in ("config", "manifests_sha256"))):
        raise ConfigError(f"{path}: is not the record of a run; {_begin_anew(run_dir)}")
    return record


def first_step(last: Path | None) -> int:
    """The step that follows a checkpoint; 0 without one.

    Raises:
        ConfigError: the checkpoint is damaged.
    """
    if last is None:
        return 0
    try:
        step = torch.load(last, map_location="cpu", weights_only=True)["global_step"]
    except Exception as error:  # torch raises nearly every kind on damaged files
        raise ConfigError(
            f"{last}: is damaged or no checkpoint; put a copy back if there is one, or {_begin_anew(last.parent)}"
        ) from error
    if not isinstance(step, int):
        raise ConfigError(f"{last}: is no checkpoint of wavasr fit; {_begin_anew(last.parent)}")
    return step


def _begin_anew(run_dir: Path) -> str:
    return f"to begin anew delete {run_dir}, or name another --run_dir"


def require_space(run_dir: Path, parameters: int) -> None:
    """Raise a ConfigError where the disk has no room for what a run writes.

    Two checkpoints at a time (weights, their average, two moments) and the model.
    """
    needed, free = 4 * parameters * (2 * 4 + 1) + 2_000_000, shutil.disk_usage(run_dir).free
    if free < needed:
        raise ConfigError(
            f"{run_dir}: {free / 1e6:.0f} MB are free there, and a run needs about {needed / 1e6:.0f} MB for its "
            "checkpoints; free some space, or name another --run_dir"
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written beside their place and then renamed: killed in between, the previous one is left."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            ConfigError: it cannot be written.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            write_whole(Path(path), content.getvalue())
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"{path}: cannot be written ({reason}); make room or change permissions, then --resume"
            ) from error


def refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> None:
    """Raise a ConfigError that names the first key in which a run and its resumption differ."""
    old, new = (_flat({"": r["config"], ".sha256": r["manifests_sha256"]}) for r in (before, now))
    for key in sorted(old.keys() | new.keys()):
        name = key.lstrip(".")
        if (key in old) != (key in new) and not name.startswith((*_FREE_KEYS, "sha256")):
            version = before.get("versions", {}).get("wavasr", "another version")
            raise ConfigError(
                f"{run_dir} was begun by wavasr {version}, which differs in {name}; finish it with that one, or name "
                "another --run_dir"
            )
        if old.get(key) != new.get(key) and not name.startswith(_FREE_KEYS):
            raise ConfigError(
                f"{run_dir} was trained with {name} {old.get(key)!r}, not {new.get(key)!r}; resume with the same "
                "recipe and data, or name another --run_dir"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        inside = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
    return found
