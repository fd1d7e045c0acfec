"""Several files in one: what any ZIP program reads, in one line when damaged, never unpacked to a path of its own."""

import os
import random
import zipfile
from pathlib import Path

import pytest

from wavasr.archive import Member, is_archive, local_file, mapped, members_of, write_archive
from wavasr.errors import ModelError

PARTS = {"a.txt": "grüße\r\n".encode(), "empty": b"", "big.bin": bytes(range(256)) * 500}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_archive(tmp_path / "x.wavasr", PARTS)
    return tmp_path / "x.wavasr"


def test_every_zip_program_reads_it(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert {info.filename: file.read(info) for info in file.infolist()} == PARTS
        assert all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
    assert is_archive(path) and not is_archive(Path(__file__))


def test_the_same_content_makes_the_same_file(path: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "again", PARTS)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_members_are_read_like_paths(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = members_of(path)
    assert {name: member.read_bytes() for name, member in members.items()} == PARTS
    text = members["a.txt"]
    assert (text.name, text.suffix, str(text)) == ("x.a.txt", ".txt", f"{path} (a.txt)")
    assert text.read_text() == "grüße\n" and text.size() == 9 and text.is_file()
    assert not Member(path, "b").is_file() and not Member(path.with_name("none"), "a.txt").is_file()
    for name, member in members.items():
        with mapped(member) as (content, begin, end):
            assert content[begin:end] == PARTS[name]
        with local_file(member) as copy:
            assert copy.read_bytes() == PARTS[name]
        assert not copy.exists()
        with monkeypatch.context() as patched:
            patched.delattr(os, "memfd_create", raising=False)  # as on other systems
            with local_file(member) as copy:
                assert copy.read_bytes() == PARTS[name]
            assert not copy.parent.exists()
    with local_file(path) as itself:
        assert itself == path


def test_a_member_of_the_file_itself_is_kept(path: Path) -> None:
    write_archive(path, {**members_of(path), "a.txt": b"new"})
    assert {name: member.read_bytes() for name, member in members_of(path).items()} == {**PARTS, "a.txt": b"new"}


def test_names_lead_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "evil"
    write_archive(path, {"../../up.txt": b"up", "/tmp/absolute": b"root", "c:\\x": b"drive"})
    for member in members_of(path).values():
        with local_file(member) as copy:
            assert copy.read_bytes() in (b"up", b"root", b"drive")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["folder", "evil"]


def test_what_is_compressed_or_has_two_of_a_name_is_refused(tmp_path: Path) -> None:
    bomb, twice = tmp_path / "bomb", tmp_path / "twice"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(10_000_000))
    write_archive(twice, {"a1": b"x", "a2": b"y"})
    twice.write_bytes(twice.read_bytes().replace(b"a2", b"a1"))
    for path in (bomb, twice):
        with pytest.raises(ModelError, match=rf"{path.name}: is damaged \("):
            members_of(path)


def test_any_damage_is_told_in_one_line_or_does_not_matter(path: Path) -> None:
    """Bytes changed, cut out and put in, most of them where the archive's own tables are."""
    rng, content, told = random.Random(0), path.read_bytes(), 0
    for _ in range(300):
        data = bytearray(content)
        place = rng.choice([rng.randrange(len(data)), rng.randrange(200), rng.randrange(len(data) - 250, len(data))])
        match rng.randrange(4):
            case 0 | 1:
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                del data[place : place + rng.randrange(1, 300)]
            case _:
                data[place:place] = rng.randbytes(rng.randrange(1, 30))
        path.write_bytes(data)
        try:
            for name, member in members_of(path).items():
                assert PARTS.get(name, member.read_bytes()) == member.read_bytes()
                with local_file(member) as copy:
                    assert copy.read_bytes() == member.read_bytes()
        except ModelError as error:
            told += 1
            assert str(error).startswith(f"{path}: is damaged (") and "\n" not in str(error)
    assert told > 150
