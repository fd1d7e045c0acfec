"""The report's three forms from one evaluation, read back, compared, and refused where they do not fit."""

import base64
import csv
import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import kaldialign
import numpy as np
import pytest
import soundfile

from wavasr import files
from wavasr.corpora.manifest import Utterance
from wavasr.errors import WavasrError
from wavasr.evaluation import report
from wavasr.evaluation.metrics import ErrorCounts, align
from wavasr.evaluation.report import analysis, store
from wavasr.evaluation.report.render import alignment_lines
from wavasr.evaluation.results import Evaluation, Failure, Provenance, UtteranceResult, assemble
from wavasr.evaluation.scoring import score
from wavasr.language.config import TextConfig
from wavasr.language.text import Units

WORDS = "zero one two three four five six seven eight nine go stop".split()
LETTERS = Units.characters(["abcdefghijklmnopqrstuvwxyz '"])
VOID = {"meta", "input", "br"}


def result(name: str, reference: str, hypothesis: str, speaker: str = "", duration_s: float = 2.0) -> UtteranceResult:
    utterance = Utterance(name, Path(f"audio/{name}.wav"), duration_s, reference, speaker)
    return score(utterance, hypothesis, units=LETTERS, text=TextConfig(case="keep", punctuation="keep"), compute_s=0.1)


def corpus(rate: float, seed: int, n: int = 40) -> list[UtteranceResult]:
    said, recognised = random.Random(0), random.Random(seed)
    found = []
    for i in range(n):
        reference = [said.choice(WORDS) for _ in range(said.randint(1, 12))]
        hypothesis = [
            recognised.choice(WORDS) if recognised.random() < rate else w
            for w in reference
            if recognised.random() > rate / 3
        ]
        hypothesis += ["oh"] * (recognised.random() < rate)
        u = result(
            f"utt-{i}", " ".join(reference), " ".join(hypothesis), f"speaker-{i % 4}", 0.4 * len(reference) + 0.3
        )
        found.append(replace(u, confidence=recognised.uniform(0.4, 1.0)))
    return found


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    provenance = Provenance(
        model="runs/a/best.wavasr",
        model_sha256="0123abcd" * 8,
        manifest="data/test.jsonl",
        decoder="greedy",
        batch_s=60.0,
        device="cpu",
        date="2025-01-02T03:04:05+00:00",
        command="wavasr evaluate --manifest data/test.jsonl",
        versions={"wavasr": "0.1.0"},
    )
    failures = [Failure("cut", "audio/cut.wav", "audio/cut.wav: is cut off; copy it again")]
    notes = ["1 of 41 utterances could not be recognised and are not in the counts."]
    return assemble(corpus(0.2, 1), failures, notes=notes, wall_s=9.5, provenance=provenance)


@pytest.fixture(scope="module")
def better(evaluation: Evaluation) -> Evaluation:
    return assemble(corpus(0.05, 2), provenance=replace(evaluation.provenance, model="runs/b/best.wavasr"))


@pytest.fixture(scope="module")
def phones() -> Evaluation:
    units, text = Units.phones(["sil", "sh", "ih", "ah"]), TextConfig(case="keep", punctuation="keep")
    said = ["h# sh ix h#", "h# sh ax-h q sh h#"]
    recognised = ["sil sh ah sil", "sil ah sh"]
    results = [
        score(Utterance(f"p{i}", Path(f"p{i}.wav"), 1.0, a, "s"), b, units=units, text=text)
        for i, (a, b) in enumerate(zip(said, recognised, strict=True))
    ]
    return assemble(results, metric="per", phone_set="TIMIT 39 phones")


class Page(HTMLParser):
    """Checks that every element is closed, and collects elements, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def test_writing_and_reading_back(evaluation: Evaluation, tmp_path: Path) -> None:
    page = report.write_report(evaluation, tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html"
    assert sorted(p.name for p in page.parent.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
        "utterances.csv",
    ]
    assert report.read(page.with_name("report.json")) == evaluation
    assert report.read(page.parent) == evaluation, "the folder will do"


def test_the_contract_of_report_json(evaluation: Evaluation, phones: Evaluation) -> None:
    values = json.loads(report.to_json(evaluation))
    assert {"wer", "cer", "per", "speakers", "utterances", "audio_s", "compute_s"} <= values.keys()
    rate = evaluation.rate
    assert rate.ci95 is not None
    assert values["wer"]["value"] == rate.value
    assert values["wer"]["ci95"] == [rate.ci95.low, rate.ci95.high]
    for name in ("substitutions", "insertions", "deletions", "reference"):
        assert values["wer"][name] == getattr(rate.counts, name)
        assert values["wer"][name] == sum(u["errors"][name] for u in values["utterances"])
        assert values["wer"][name] == sum(s[name] for s in values["speakers"].values())
        assert values["cer"][name] == sum(u["character_errors"][name] for u in values["utterances"])
    assert values["per"] is None
    assert values["compute_s"] == pytest.approx(4.0)
    assert values["provenance"]["model"] == "runs/a/best.wavasr"
    assert values["failures"][0]["id"] == "cut"
    values = json.loads(report.to_json(phones))
    assert (values["wer"], values["cer"], values["per"]["phone_set"]) == (None, None, "TIMIT 39 phones")
    assert (values["per"]["substitutions"], values["per"]["deletions"], values["per"]["reference"]) == (1, 2, 9)


def test_phones_are_read_back(phones: Evaluation, tmp_path: Path) -> None:
    assert report.read(report.write_report(phones, tmp_path).with_name("report.json")) == phones


def test_no_reference_is_null_not_infinity(tmp_path: Path) -> None:
    empty = assemble([result("a", "", "oh")])
    page = report.write_report(empty, tmp_path)
    values = json.loads(page.with_name("report.json").read_text(encoding="utf-8"))
    assert (values["wer"]["value"], values["wer"]["ci95"], values["wer"]["insertions"]) == (None, None, 1)
    assert report.read(tmp_path) == empty
    assert "no reference" in report.summary(empty)


@pytest.mark.parametrize("kind", ["evaluation", "better", "phones", "perfect", "single"])
def test_the_page_is_whole_and_loads_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made = {
        "perfect": lambda: assemble([result("a", "one two", "one two"), result("b", "", "")]),
        "single": lambda: assemble([result("a", "one", "")]),
    }
    shown = made[kind]() if kind in made else request.getfixturevalue(kind)
    source = report.write_report(shown, tmp_path).read_text(encoding="utf-8")
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in ("img", "link", "iframe", "object", "audio")
        assert "src" not in attributes and not any(name.startswith("on") for name in attributes)
        if tag == "a":
            assert not re.match(r"(https?:)?//", attributes["href"] or "")
    assert "url(http" not in source and "@import" not in source
    anchors = {attributes.get("id") for _, attributes in page.tags}
    targets = [a["href"] or "" for tag, a in page.tags if tag == "a" and (a["href"] or "").startswith("#")]
    assert targets and all(target[1:] in anchors or target == "#confusions" for target in targets)
    assert f"{100 * shown.rate.value:.2f}" in page.text


def test_transcripts_cannot_break_the_page(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script> & "quoted" </p>'
    name = 'x"><b>'
    shown = assemble(
        [replace(result("a", evil, "one <b> two"), id=name, speaker=name, audio='"><i>.wav'), result("b", "ok", "no")],
        [Failure(name, name, evil)],
        notes=[evil],
        provenance=Provenance(model=f"m/{name}", command=evil, manifest=name),
    )
    baseline = assemble([replace(u, ops=align(["ok"], ["ok"]).ops) if u.id == "b" else u for u in shown.utterances])
    source = report.write_report(shown, tmp_path, baseline).read_text(encoding="utf-8")
    page = Page(source)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert "i" not in {tag for tag, a in page.tags if "class" not in a}
    assert evil in page.text
    for line in (tmp_path / "report.md").read_text(encoding="utf-8").splitlines():
        assert line.startswith("    ") or not re.search(r"(?<!\\)[<>]", line.removeprefix("> ")), (
            "escaped, or in a code block"
        )


def test_what_the_page_says(evaluation: Evaluation, tmp_path: Path) -> None:
    text = " ".join(Page(report.html(evaluation, folder=tmp_path)).text.split())
    counts = evaluation.rate.counts
    assert f"{counts.errors} errors in {counts.reference} words" in text
    for part in ("speaker-0", "cut off; copy it again", "1 of 41 utterances", "recognised as", "deleted:", "inserted:"):
        assert part in text, part
    for part in (
        "wavasr evaluate --manifest data/test.jsonl",
        "0123abcd",
        "best.wavasr on test.jsonl",
    ):
        assert part in text, part


def test_errors_are_not_marked_by_colour_alone(evaluation: Evaluation) -> None:
    source = report.html(evaluation)
    assert '<span class="unseen"> recognised as </span>' in source
    assert "<s>" in source and "<u>" in source
    assert 'id="hatch"' in source and 'id="dots"' in source


def test_recordings_are_linked_relative_to_the_page(tmp_path: Path) -> None:
    audio = tmp_path / "data" / "a b.wav"
    shown = assemble([replace(result("a", "one", "two"), audio=audio.as_posix(), offset_s=1.5)])
    source = report.write_report(shown, tmp_path / "reports").read_text(encoding="utf-8")
    assert 'href="../data/a%20b.wav#t=1.5,3.5"' in source


def test_many_utterances_are_listed_and_the_worst_come_first(evaluation: Evaluation) -> None:
    worst = analysis.worst(evaluation)
    errors = [u.counts.errors for u in worst]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0
    source = report.html(evaluation)
    assert source.count('<article class="utterance">') == min(20, len(worst))
    assert f"All {len(worst)} utterances with errors" in source


def test_alignment_in_fixed_width() -> None:
    ops = align("one two three four go".split(), "one too four go five".split()).ops
    assert alignment_lines(ops) == [
        "REF: one two three four go ****",
        "HYP: one too ***** four go five",
        "         S   D             I",
    ]
    wrapped = alignment_lines(align(["word"] * 40, ["word"] * 40).ops, width=60)
    assert len(wrapped) == 3 * 4 and max(map(len, wrapped)) <= 60
    assert sum(line.count("word") for line in wrapped) == 80


def test_markdown_has_every_part(evaluation: Evaluation, better: Evaluation) -> None:
    text = report.markdown(better, report.compare(better, evaluation))
    for title in ("Compared with the baseline", "Speakers", "Utterances with the most errors", "Most frequent errors"):
        assert f"## {title}" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    assert "audio/cut.wav: is cut off" in report.markdown(evaluation).replace("\\", "")


def test_summary_for_the_terminal(evaluation: Evaluation, phones: Evaluation) -> None:
    lines = report.summary(evaluation).splitlines()
    assert lines[0].startswith("WER ") and lines[1].startswith("CER ")
    assert "95 % interval" in lines[0]
    assert lines[-1].startswith("note: 1 of 41")
    assert "scored on TIMIT 39 phones" in report.summary(phones)


def test_confusions() -> None:
    found = analysis.confusions(
        assemble([result("a", "b d b", "d d d"), result("b", "b x", "b"), result("c", "", "x x")])
    )
    assert found.substitutions == (("b", "d", 2),)
    assert found.insertions == (("x", 2),)
    assert found.deletions == (("x", 1, 1),)
    assert found.missed == (("b", 2, 3), ("x", 1, 1))


def test_the_profile_counts_every_utterance_once(evaluation: Evaluation) -> None:
    bins = analysis.duration_profile(evaluation)
    assert sum(b.size for b in bins) == len(evaluation.utterances)
    assert sum((b.rate.counts for b in bins), ErrorCounts()) == evaluation.rate.counts
    assert 2 <= len(bins) <= 9
    assert len({b.label for b in bins}) == len(bins)


def test_profile_of_equal_lengths_and_of_long_recordings() -> None:
    same = assemble([result(f"u{i}", "a b", "a", duration_s=3.0) for i in range(5)])
    assert [b.size for b in analysis.duration_profile(same)] == [5]
    long = assemble([result(f"u{i}", "a b", "a", duration_s=10.0 * (1 + i)) for i in range(30)])
    assert [b.label for b in analysis.duration_profile(long)] == [
        "0–50",
        "50–100",
        "100–150",
        "150–200",
        "200–250",
        "250–300",
        "300+",
    ]


def test_confusion_matrix(phones: Evaluation) -> None:
    names, cells = analysis.confusion_matrix(phones)
    assert names == ["ah", "ih", "sh", "sil"]
    assert cells[("ih", "ah")] == 1
    assert sum(n for (said, _), n in cells.items() if said == "sh") == 3
    assert "ih recognised as ah: 1 of 1" in report.html(phones)


def test_a_better_system_is_found(evaluation: Evaluation, better: Evaluation, tmp_path: Path) -> None:
    found = report.compare(better, evaluation)
    references = [u.reference.split() for u in better.utterances]
    systems = [[u.hypothesis.split() for u in e.utterances] for e in (evaluation, better)]
    judged = kaldialign.bootstrap_wer_ci(references, *systems, replications=10_000)
    assert found.paired.probability_b_better == pytest.approx(judged["p_s2_improv_over_s1"], abs=0.01)
    assert found.decided and found.paired.difference < 0
    assert found.verdict.startswith("This system makes fewer errors than the baseline, by ")
    assert "difference −" in str(found)
    assert len(found.improved) == found.paired.b_wins and len(found.worsened) == found.paired.a_wins
    assert found.paired_speakers is not None
    files = [report.write_report(e, tmp_path / name).parent for e, name in ((better, "b"), (evaluation, "a"))]
    assert report.compare(*files) == found, "from the files alone"
    reverse = report.compare(evaluation, better)
    assert reverse.paired.difference == -found.paired.difference
    assert reverse.verdict.startswith("The baseline makes fewer errors than this system, by ")


def test_a_comparison_is_part_of_the_report(evaluation: Evaluation, better: Evaluation, tmp_path: Path) -> None:
    page = report.write_report(better, tmp_path, evaluation)
    values = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["comparison"]
    assert values["baseline"] == "runs/a/best.wavasr (greedy)"
    assert values["difference"] == pytest.approx(better.rate.value - evaluation.rate.value)
    text = Page(page.read_text(encoding="utf-8")).text
    assert "Most improved" in text and "makes fewer errors than" in text
    assert report.read(tmp_path) == better


def test_a_system_is_no_better_than_itself(evaluation: Evaluation) -> None:
    found = report.compare(evaluation, evaluation)
    assert not found.decided and found.changes == ()
    assert found.verdict.startswith("No difference shown")
    Page(report.html(evaluation, found))


def test_other_utterances_are_refused(evaluation: Evaluation, phones: Evaluation) -> None:
    fewer = assemble(evaluation.utterances[1:])
    with pytest.raises(
        WavasrError, match=r"not scored on the same utterances: 1 only in the baseline \(first: utt-0\)"
    ):
        report.compare(fewer, evaluation)
    renamed = assemble([replace(evaluation.utterances[0], id="new"), *evaluation.utterances[1:]])
    with pytest.raises(WavasrError, match=r"1 only in this evaluation \(first: new\), 1 only in the baseline"):
        report.compare(renamed, evaluation)
    other = assemble([result("utt-0", "other words", "x"), *evaluation.utterances[1:]])
    with pytest.raises(WavasrError, match="references of utterance utt-0 differ"):
        report.compare(other, evaluation)
    with pytest.raises(WavasrError, match="scored by PER TIMIT 39 phones, the baseline by WER"):
        report.compare(phones, evaluation)


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], str]:
    def apply(values: dict[str, Any]) -> str:
        change(values)
        return json.dumps(values)

    return apply


BAD_REPORTS: list[tuple[Callable[[dict[str, Any]], str], str]] = [
    (lambda v: "", "is not JSON"),
    (lambda v: "{", "is not JSON"),
    (lambda v: "[" * 100_000, "is not JSON"),
    (lambda v: "[1, 2]", "is not a report"),
    (lambda v: "{}", "no key 'utterances'"),
    (lambda v: json.dumps({**v, "wall_s": float("nan")}), "wall_s is nan"),
    (lambda v: json.dumps(v).replace('"wall_s": 9.5', '"wall_s": 1e999'), "wall_s is inf"),
    (damaged(lambda v: v.update(wall_s=10**400)), "int too large"),
    (damaged(lambda v: v["wer"].update(reference=10**400)), "wer is not the sum"),
    (damaged(lambda v: v.update(format=99)), "format is 99, expected 1"),
    (damaged(lambda v: v.pop("format")), "format is None"),
    (damaged(lambda v: v.pop("wer")), "wer is not the sum"),
    (damaged(lambda v: v["wer"].pop("reference")), "wer is not the sum"),
    (damaged(lambda v: v["wer"].update(substitutions=1000)), "wer is not the sum"),
    (damaged(lambda v: v["cer"].update(deletions="3")), "cer is not the sum"),
    (damaged(lambda v: v["utterances"].append(3)), "is damaged"),
    (damaged(lambda v: v["utterances"][2].pop("id")), "missing .*'id'"),
    (damaged(lambda v: v["utterances"][2].update(duration_s=True)), "UtteranceResult.duration_s is 'True'"),
    (damaged(lambda v: v["utterances"][1]["ops"].append(["X", "a"])), "'X' is missing"),
    (damaged(lambda v: v["utterances"][1]["ops"].append(["I", "a"])), "errors of utterance utt-1 are not those"),
    (damaged(lambda v: v["provenance"].update(parameters="many")), "Provenance.parameters is 'many'"),
    (damaged(lambda v: v.update(failures=3)), "is damaged"),
]


@pytest.mark.parametrize(("make", "message"), BAD_REPORTS)
def test_a_damaged_report_is_one_clear_line(
    make: Callable[[dict[str, Any]], str], message: str, evaluation: Evaluation, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.write_text(make(json.loads(report.to_json(evaluation))), encoding="utf-8")
    with pytest.raises(WavasrError, match=message) as caught:
        report.read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_report_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WavasrError, match="no such report"):
        report.read(tmp_path / "none.json")
    with pytest.raises(WavasrError, match=r"report\.json: no such report"):
        report.read(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WavasrError, match="not UTF-8"):
        report.read(tmp_path / "bytes.json")


def test_a_failed_write_leaves_the_old_report(
    evaluation: Evaluation, better: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report.write_report(evaluation, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write = files.NamedSink.write

    def fill(sink: files.NamedSink, data: Any) -> int:
        if sink._given.name == "report.html":
            raise OSError(28, "No space left on device", str(sink._given))
        return write(sink, data)

    monkeypatch.setattr(files.NamedSink, "write", fill)
    with pytest.raises(OSError, match=r"No space.*report\.html"):
        report.write_report(better, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before, "nothing changed, nothing left behind"


def test_a_large_evaluation_makes_a_page_of_bounded_size() -> None:
    many = [replace(u, id=f"{u.id}-{i}") for i in range(75) for u in corpus(0.2, 1)]
    page = report.html(assemble(many))
    assert len(page) < 3_000_000
    assert "The first 1,000; report.json and utterances.csv have all" in page


def test_the_csv_has_a_row_an_utterance(evaluation: Evaluation, tmp_path: Path) -> None:
    report.write_report(evaluation, tmp_path)
    with (tmp_path / "utterances.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [u.id for u in evaluation.utterances]
    for row, u in zip(rows, evaluation.utterances, strict=True):
        assert (row["reference"], row["hypothesis"]) == (u.reference, u.hypothesis)
        assert (int(row["errors"]), int(row["reference_symbols"])) == (u.counts.errors, u.counts.reference)


def test_half_a_character_in_a_name_does_not_stop_the_report(tmp_path: Path) -> None:
    """A lone surrogate is what a name of bytes that are not UTF-8 becomes, and what JSON may hold."""
    name = "x\udce9\udfff"
    shown = assemble([replace(result("a", "one", "two"), id=name, speaker=name, audio=f"{name}.wav")] * 2)
    report.write_report(shown, tmp_path)
    assert report.read(tmp_path) == shown
    for form in ("report.html", "report.md", "utterances.csv"):
        assert "\\udfff" in (tmp_path / form).read_text(encoding="utf-8").replace("\\\\", "\\")


def test_audio_in_the_page(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    said = replace(result("a", "one", "two"), audio=str(tmp_path / "a.wav"), offset_s=0.5, duration_s=1.0)
    lost = replace(result("b", "one", "two"), audio=str(tmp_path / "lost.wav"))
    source = report.write_report(assemble([said, lost]), tmp_path, with_audio=True).read_text(encoding="utf-8")
    players = [attributes for tag, attributes in Page(source).tags if tag == "audio"]
    assert len(players) == 1 and "media-src data:" in source
    address = players[0]["src"] or ""
    kind, data = address.split(",")
    assert kind == "data:audio/mpeg;base64"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == 16000 and len(samples) == pytest.approx(16000, abs=3000), "the utterance's stretch, in MP3's frames"
    assert 'href="lost.wav"' in source


def test_json_lines_hold_one_utterance_each(evaluation: Evaluation) -> None:
    lines = [line for line in store.to_json(evaluation).splitlines() if line.startswith('  {"id"')]
    assert len(lines) == len(evaluation.utterances)
    assert json.loads(lines[0].rstrip(","))["id"] == "utt-0"
