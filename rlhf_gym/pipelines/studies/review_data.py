"""Real film reviews cut into what each stage of the study reads; what must be unseen is.

Films are split in two by a hash of their name. The reward model and the language model know half A
(and unlabelled reviews), the judge is trained on half B alone; the official test reviews are unseen
by all. Expected in the data folder: `imdb/{train,test,unlabelled}.jsonl.gz` (Maas et al. 2011) and
`sst2/sentences.tsv` (Socher et al. 2013).
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_gym.core.data import read_records

OPENING_WORDS = (4, 8)
"""Words of a prompt, at least and at most."""
COMPLETION_WORDS = (8, 26)
"""Words of a demonstration's completion, which ends where a sentence ends."""
CORPUS_WORDS = 60
"""Of each review: the policy continues openings, so openings are what it reads."""
WINDOW_WORDS = 40
ENDING_WORDS = 100
_SENTENCE_END = re.compile(r"[.!?][\"')]*$")
_SPACE = re.compile(r"\s+")

Record = dict[str, Any]


@dataclass(frozen=True)
class ReviewFiles:
    """Where the cut data lies; see `prepare`."""

    corpus: Path
    demonstrations: Path
    prompts: Path
    held_out_prompts: Path
    labelled: Path
    unseen_reviews: Path
    unseen_sentences: Path
    judge: Path


def prepare(data: Path, folder: Path, seed: int = 0) -> ReviewFiles:
    """Cut the data and write it as JSON lines.

    Args:
        data: the folder of the real data sets.
        folder: where the files go.
        seed: of the windows cut out of reviews.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = ReviewFiles(*(folder / f"{name}.jsonl" for name in ReviewFiles.__dataclass_fields__))
    train = list(read_records(data / "imdb/train.jsonl.gz"))
    unlabelled = [record["text"] for record in read_records(data / "imdb/unlabelled.jsonl.gz")]
    test = list(read_records(data / "imdb/test.jsonl.gz"))
    sentences = list(read_records(data / "sst2/sentences.tsv"))
    half_a = [record for record in train if _half(record["movie"]) == 0]
    half_b = [record for record in train if _half(record["movie"]) == 1]
    rng = random.Random(seed)

    texts = [*unlabelled, *(record["text"] for record in half_a)]
    _write(files.corpus, ({"text": _words(text, 0, CORPUS_WORDS)} for text in texts))
    pairs = [pair for text in unlabelled if (pair := demonstration(text, rng))]
    half = len(pairs) // 2
    _write(files.demonstrations, pairs[:half])
    _write(files.prompts, ({"prompt": pair["prompt"]} for pair in pairs[half:]))
    held_out = [pair for record in test if (pair := demonstration(record["text"], rng))]
    _write(files.held_out_prompts, ({"prompt": pair["prompt"]} for pair in held_out))

    seen = [s for s in sentences if s["official_split"] != "test"]
    labelled = [{"text": s["sentence"], "label": int(s["label"])} for s in seen]
    labelled += [cut for record in half_a for cut in _cuts(record, rng)]
    _write(files.labelled, labelled)
    _write(files.judge, (cut for record in half_b for cut in _cuts(record, rng)))
    _write(files.unseen_reviews, (_ending(record) for record in test))
    unseen = [s for s in sentences if s["official_split"] == "test"]
    _write(
        files.unseen_sentences, ({"text": s["sentence"], "label": int(s["label"])} for s in unseen)
    )
    return files


def demonstration(text: str, rng: random.Random) -> Record | None:
    """A review's opening as a prompt, and how its writer went on to the end of a sentence.

    Returns:
        `prompt` and `completion` (with its leading space), or None if no sentence ends in time.
    """
    words = _SPACE.split(text.strip())
    start = rng.randint(*OPENING_WORDS)
    shortest, longest = COMPLETION_WORDS
    for end in range(start + shortest, min(start + longest, len(words)) + 1):
        if _SENTENCE_END.search(words[end - 1]):
            return {
                "prompt": " ".join(words[:start]),
                "completion": " " + " ".join(words[start:end]),
            }
    return None


def _cuts(record: Record, rng: random.Random) -> Iterable[Record]:
    """A review's opening, its ending and two windows between, each with the review's label."""
    words = _SPACE.split(record["text"].strip())
    latest = max(1, len(words) - WINDOW_WORDS)
    starts = [0, rng.randrange(latest), rng.randrange(latest)]
    for start in starts:
        yield {
            "text": " ".join(words[start : start + WINDOW_WORDS]),
            "label": int(record["label"]),
        }
    yield _ending(record)


def _ending(record: Record) -> Record:
    """A review's last words, where most writers come to their verdict."""
    return {"text": _words(record["text"], -ENDING_WORDS, None), "label": int(record["label"])}


def _words(text: str, start: int, end: int | None) -> str:
    return " ".join(_SPACE.split(text.strip())[start:end])


def _half(movie: Any) -> int:
    return zlib.crc32(str(movie).encode()) % 2


def _write(path: Path, records: Iterable[Record] | Sequence[Record]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
