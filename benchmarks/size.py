"""How much code there is, by room, and apart what version 0.1.0 could not do: `python -m benchmarks.size`.

Lines of Python, with docstrings, comments and blank lines. 0.1.0 prepared corpora, trained, evaluated, transcribed,
aligned, adapted and made language models: those are "recognition"; the rest came later.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "wavasr"
LATER = """
    generation serving pictures cli/bulk.py cli/generation.py cli/pictures.py cli/serving.py cli/speaking.py
    corpora/listing.py corpora/remote.py corpora/shar.py corpora/shards.py audio/pitch.py
    evaluation/generation.py language/spoken.py network/columns.py network/generator.py network/improviser.py
    network/inpainting.py network/text_to_frames.py recognition/activity.py recognition/bulk.py recognition/stream.py
    training/generate training/speak training/plan.py training/processes.py training/unlabelled.py
""".split()


def is_later(path: str) -> bool:
    """Whether a file came after 0.1.0."""
    return any(f"{path}/".startswith(f"{entry}/") for entry in LATER)


def main() -> None:
    """Print the table."""
    before, later = Counter[str](), Counter[str]()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        (later if is_later(name) else before)[name.partition("/")[0]] += len(path.read_bytes().splitlines())
    print(f"{'':16}{'recognition':>12}{'later':>8}")
    for room in sorted(before | later, key=lambda room: -(before + later)[room]):
        print(f"{room:16}{before[room]:12}{later[room]:8}")
    print(f"{'sum':16}{before.total():12}{later.total():8}{before.total() + later.total():8}")


if __name__ == "__main__":
    main()
