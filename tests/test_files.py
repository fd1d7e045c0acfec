"""The one atomic write: what is there stays whole, and what is no regular file is written through."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from wavasr.files import (
    atomic_bytes,
    atomic_text,
    check_writable,
    check_writable_folder,
    open_file,
    read_text,
    write_whole,
)

ROOT = os.geteuid() == 0
PACKAGE = Path(__file__).resolve().parent.parent
NOBODY = 65534


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def python(program: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    program = "from wavasr.files import *\nimport os, sys, signal\n" + program
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]


def as_nobody(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run without the rights of root; the package is imported before they go."""
    return python(f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n{program}", *arguments)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that every user reaches."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith(("test_", "pytest-", "popen-gw")):
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path


def test_a_file_takes_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_text(path) as stream:
        stream.write("grüße\n")
        assert not path.exists()
    assert path.read_bytes() == "grüße\n".encode() and names(path.parent) == ["a.txt"]
    write_whole(path, b"other")
    assert path.read_bytes() == b"other"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_text(path) as stream:
        stream.write("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_what_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    done = python(f"os.umask({umask}); write_whole(sys.argv[1], b'x')", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_private_file_stays_private_and_the_umask_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o600)
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask belongs to the whole process"))
    write_whole(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes() == b"new"


@pytest.mark.parametrize("length", [236, 240, 250, 255])
def test_names_as_long_as_a_file_system_takes(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("é" * 100 + "x" * (length - 200))
    write_whole(path, b"x")
    check_writable(path)
    assert names(tmp_path) == [path.name]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"x\xe9.txt")
    with atomic_text(path) as stream:
        stream.write(path.name)
    assert path.read_text() == "x\\udce9.txt"


# What is no regular file ----------------------------------------------------------------------------------------------


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link, second = tmp_path / "folder" / "target", tmp_path / "link", tmp_path / "folder" / "second"
    target.write_text("old")
    second.symlink_to("target")
    link.symlink_to("folder/second")
    write_whole(link, b"new")
    assert link.is_symlink() and second.is_symlink() and target.read_bytes() == b"new"
    assert names(tmp_path / "folder") == ["second", "target"]
    target.unlink()
    check_writable(link)
    write_whole(link, b"dangling no more")
    assert link.is_symlink() and target.read_bytes() == b"dangling no more"


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for write in (check_writable, lambda path: write_whole(path, b"x")):
        with pytest.raises(OSError) as error:
            write(tmp_path / "a")
        assert error.value.errno == errno.ELOOP and error.value.filename == str(tmp_path / "a")


def test_a_device_is_written_through(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"x")
    except OSError:
        pytest.skip("this user cannot make devices here")
    link = tmp_path / "link"
    link.symlink_to(device)
    for path in (device, link):
        check_writable(path)
        write_whole(path, b"gone")
        assert stat.S_ISCHR(device.stat().st_mode)
    assert link.is_symlink() and names(tmp_path) == ["link", "null"]


def test_a_full_device_names_itself() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError) as error:
        write_whole("/dev/full", b"x")
    assert error.value.errno == errno.ENOSPC and error.value.filename == "/dev/full"


def test_a_fifo_reaches_its_reader(tmp_path: Path) -> None:
    fifo, found = tmp_path / "fifo", list[bytes]()
    os.mkfifo(fifo)
    check_writable(fifo)  # does not open it: the reader would see an end
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    with atomic_text(fifo) as stream:
        stream.write("through")
    reader.join(10)
    assert found == [b"through"] and stat.S_ISFIFO(fifo.stat().st_mode)


def test_standard_output_has_its_name_on_windows_too() -> None:
    assert open_file(PureWindowsPath("/dev/stdout")) == open_file(PurePosixPath("/dev/stdout")) == 1
    assert open_file(PureWindowsPath("stdout")) is None


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output(tmp_path: Path, name: str) -> None:
    if name == "link":
        (tmp_path / "link").symlink_to("/proc/self/fd/1")
        name = str(tmp_path / "link")
    program = "check_writable(sys.argv[1]); write_whole(sys.argv[1], b'through')"
    assert python(program, name).stdout == "through"
    log = tmp_path / "log"  # a regular file behind it is appended to, not replaced
    log.write_text("first ")
    with log.open("a") as stream:
        subprocess.run(
            [sys.executable, "-c", f"from wavasr.files import *\nimport sys\n{program}", name],
            stdout=stream,
            cwd=PACKAGE,
            check=True,
        )
    assert log.read_text() == "first through"


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("folder", errno.EISDIR),
        ("file/below", errno.ENOTDIR),
        ("file/far/below", errno.ENOTDIR),
        ("x" * 256, errno.ENAMETOOLONG),
        ("link-to-folder", errno.EISDIR),
    ],
)
def test_failures_name_what_was_given(tmp_path: Path, place: str, reason: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link-to-folder").symlink_to("folder")
    path, before = tmp_path / place, names(tmp_path)
    for write in (check_writable, lambda path: write_whole(path, b"x")):
        with pytest.raises(OSError) as error:
            write(path)
        assert (error.value.errno, error.value.filename) == (reason, str(path))
    assert names(tmp_path) == before


def test_addresses_are_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (check_writable, check_writable_folder, lambda path: write_whole(path, b"x")):
        with pytest.raises(OSError, match="is an address, to which shards alone are written"):
            write("s3://bucket/texts")
    assert names(tmp_path) == []


def test_what_a_user_may_not_write(open_folder: Path) -> None:
    if not ROOT:
        pytest.skip("only root becomes another user")
    closed, mine = open_folder / "closed", open_folder / "open" / "mine"
    mine.parent.mkdir()
    mine.parent.chmod(0o777)
    mine.write_text("old")
    for path in (closed / "a", closed / "new" / "a", open_folder / "a", mine):
        closed.mkdir(exist_ok=True)
        for call in ("check_writable(sys.argv[1])", "write_whole(sys.argv[1], b'x')"):
            done = as_nobody(f"try: {call}\nexcept PermissionError as error: print(error.filename)", path)
            assert done.stdout == f"{path}\n", done.stderr
    assert mine.read_text() == "old" and names(mine.parent) == ["mine"]
    assert as_nobody("check_writable_folder(sys.argv[1])", closed).returncode != 0
    assert as_nobody("check_writable_folder(sys.argv[1])", mine.parent / "new").returncode == 0


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files ends a write as a full disk does, only with another number."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            write_whole(path, bytes(1_000_000))
        with pytest.raises(OSError) as second, atomic_text(path) as stream:
            for _ in range(100_000):
                stream.write("0123456789")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == second.value.filename == str(path)
    assert error.value.errno == second.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_other_errors_in_the_block_keep_their_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error, atomic_bytes(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()
    assert error.value.filename == str(tmp_path / "missing")


def test_checking_changes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "a.txt")
    check_writable_folder(tmp_path / "new" / "folder")
    assert names(tmp_path) == []


# Leftovers ------------------------------------------------------------------------------------------------------------


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    kill = "with atomic_text(sys.argv[1]) as stream: stream.write('half'); stream.flush(); os.kill(os.getpid(), 9)"
    for name in ("a", "b"):
        assert python(kill, tmp_path / name).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2 and all(name.endswith(".part") for name in names(tmp_path))
    write_whole(tmp_path / "a", b"whole")
    assert names(tmp_path)[1:] == ["a"]  # that of b may be wanted for finding out what went wrong
    write_whole(tmp_path / "b", b"whole")
    assert names(tmp_path) == ["a", "b"]


def test_two_writers_at_once_do_not_take_each_other_for_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_text(path) as first:
        first.write("first")
        assert python("write_whole(sys.argv[1], b'second')", path).returncode == 0
        assert path.read_text() == "second"
    assert path.read_text() == "first" and names(tmp_path) == ["a"]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    with atomic_text(tmp_path / "a"):
        part = names(tmp_path)[0]
    victim = tmp_path / "victim"
    victim.write_text("safe")
    (tmp_path / part).symlink_to(victim)
    write_whole(tmp_path / "a", b"x")
    assert victim.read_text() == "safe"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_texts_as_windows_saves_them(encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "a.txt").write_bytes(f"{mark}caf\u00e9\r\nyes\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "caf\u00e9\nyes\n"
