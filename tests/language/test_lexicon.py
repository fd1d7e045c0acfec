from pathlib import Path

import pytest

from wavasr.errors import CorpusError, TextError
from wavasr.language.lexicon import TIMIT_39, TIMIT_48, TIMIT_61, Lexicon, fold, fold_phone

# Lee and Hon's table, written out once more by hand: every phone that changes, as 61 -> 48 -> 39.
CHANGES = """
ao ao aa | ax ax ah | ax-h ax ah | axr er er | bcl vcl sil | dcl vcl sil | gcl vcl sil | pcl cl sil | tcl cl sil
| kcl cl sil | el el l | em m m | en en n | eng ng ng | epi epi sil | h# sil sil | pau sil sil | hv hh hh | ix ix ih
| nx n n | ux uw uw | zh zh sh
"""


def test_the_sets_have_the_sizes_that_name_them() -> None:
    assert (len(set(TIMIT_61)), len(set(TIMIT_48)), len(set(TIMIT_39))) == (61, 48, 39)
    assert set(TIMIT_39) < set(TIMIT_48)


def test_every_folding_is_the_published_one() -> None:
    changes = {row.split()[0]: tuple(row.split()[1:]) for row in CHANGES.split("|")}
    for phone in set(TIMIT_61) - {"q"}:
        assert (fold_phone(phone, 48), fold_phone(phone, 39)) == changes.get(phone, (phone, phone))
    assert fold_phone("q", 48) is None
    assert fold_phone("q", 39) is None
    assert fold_phone("q", 61) == "q"


@pytest.mark.parametrize("phone", sorted(set(TIMIT_61) - {"q"}))
def test_folding_in_two_steps_is_folding_in_one(phone: str) -> None:
    assert fold(fold([phone], 48), 39) == fold([phone], 39)
    assert fold(fold([phone], 39), 39) == fold([phone], 39)


def test_fold_deletes_q_and_keeps_runs_of_silence() -> None:
    spoken = "h# pau ax q ao tcl t epi h#".split()
    assert fold(spoken, 39) == "sil sil ah aa sil t sil sil".split()
    assert fold(spoken, 39, merge_silence=True) == "sil ah aa sil t sil".split()
    assert fold(spoken, 61) == spoken
    assert fold([], 39) == []


def test_unknown_phones_and_sets_are_refused() -> None:
    with pytest.raises(TextError, match="'xx' is no phone of TIMIT"):
        fold(["h#", "xx"], 39)
    with pytest.raises(TextError, match="phone set 40"):
        fold(["h#"], 40)
    with pytest.raises(TextError, match="'cl' is no phone"):
        fold(["cl"], 61)


def test_cmu_dictionaries_are_read(tmp_path: Path) -> None:
    text = ";;; comment\n## another\nREAD  R EH1 D\nREAD(2)  R IY1 D\nREAD(3)  R IY0 D\n'TIS  T IH1 Z # informal\n\n"
    (tmp_path / "d").write_text(text, encoding="utf-8")
    lexicon = Lexicon.read(tmp_path / "d")
    assert dict(lexicon.pronunciations) == {"READ": (("R", "EH", "D"), ("R", "IY", "D")), "'TIS": (("T", "IH", "Z"),)}
    assert lexicon["READ"][1] == ("R", "IY", "D")
    assert lexicon.phones == ("D", "EH", "IH", "IY", "R", "T", "Z")
    assert "READ" in lexicon
    assert list(lexicon) == ["READ", "'TIS"]
    assert len(lexicon) == 2
    assert lexicon.missing(["A", "READ", "B", "A"]) == ["A", "B"]
    assert Lexicon.read(tmp_path / "d", stress=True)["READ"][2] == ("R", "IY0", "D")
    with pytest.raises(TextError, match="'WRITE' is not in the lexicon"):
        lexicon["WRITE"]


def test_bad_dictionaries_are_named(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("A  AH\nB\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="d:2: 'B' has no phones"):
        Lexicon.read(tmp_path / "d")
    (tmp_path / "d").write_bytes("DÉJÀ  D EY ZH AA\n".encode("latin-1"))
    with pytest.raises(CorpusError, match="not UTF-8"):
        Lexicon.read(tmp_path / "d")
    (tmp_path / "d").write_text(";;; nothing\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="no words"):
        Lexicon.read(tmp_path / "d")
    with pytest.raises(CorpusError, match="no such lexicon"):
        Lexicon.read(tmp_path / "none")


def test_real_dictionaries_are_read(shared_data: Path) -> None:
    spelling = Lexicon.read(shared_data / "an4" / "etc" / "an4.dic")
    assert spelling["A"] == (("AH",), ("EY",))
    listed = (shared_data / "an4" / "etc" / "an4.phone").read_text(encoding="utf-8").split()
    assert set(spelling.phones) == set(listed) - {"SIL"}
    timit = Lexicon.read(shared_data / "timit-sample" / "TIMIT" / "DOC" / "TIMITDIC.TXT")
    assert timit["alimony"] == (("ae", "l", "ax", "m", "ow", "n", "iy"),)
    assert set(timit.phones) <= set(TIMIT_61)


def test_capitals_become_the_model_s_case(tmp_path: Path) -> None:
    path = tmp_path / "lex.txt"
    path.write_bytes("\ufeffTHE  DH AH0\r\nthe  DH IY0\r\nTHE(1)  DH AH0\r\nRIVER\tR IH1 V ER0\r\n".encode())
    lexicon = Lexicon.read(path)
    assert lexicon.in_case("keep") is lexicon
    lower = lexicon.in_case("lower")
    assert dict(lower.pronunciations) == {"the": (("DH", "AH"), ("DH", "IY")), "river": (("R", "IH", "V", "ER"),)}
    assert lower.in_case("lower") is lower
    assert list(lexicon.in_case("upper")) == ["THE", "RIVER"]
