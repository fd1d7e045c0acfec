"""The words of a language model: those that many documents use.

    python data/lm/choose_words.py --least 7 authors/*.txt > words.txt
    wavasr lm build authors/*.txt --vocabulary words.txt --drop-singletons --order 4 --ngrams 10500000 -o lm.arpa

A document is a file: all books of one author, say. By plain counts the heroes of one long novel come before words that
everybody uses now and then. Sorted by how many documents use a word, then by how often it occurs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from wavasr.language.sentences import read_sentences


def main() -> int:
    """Print the words."""
    parser = argparse.ArgumentParser(description="Words that at least so many documents use, one a line.")
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--least", type=int, default=2, metavar="N", help="documents that use a word")
    args = parser.parse_args()
    used: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for document in args.documents:
        words = Counter(word for sentence in read_sentences([document], str.strip) for word in sentence.split())
        used.update(words.keys())
        counts += words
    for word in sorted(used, key=lambda word: (-used[word], -counts[word], word)):
        if used[word] >= args.least:
            print(word)
    return 0


if __name__ == "__main__":
    sys.exit(main())
