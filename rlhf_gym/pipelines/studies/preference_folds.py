"""Human comparisons of assistant dialogues, parted by dialogue into what is learned and judged.

Expected in the data folder: `hh_rlhf/*.jsonl.gz` with `prompt`, `chosen`, `rejected` and `subset`
(Bai et al. 2022, "Training a Helpful and Harmless Assistant with RLHF").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_gym.core.data import read_records, write_jsonl

FOLDS = 5

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Fold:
    """One split of the comparisons.

    Attributes:
        folder: where its models go.
        train: file of the pairs that are learned from.
        texts: file of the same pairs' dialogues with both answers, for the language model.
        held_out: file of the others.
        train_records: what is in `train`.
        held_out_records: what is in `held_out`.
    """

    folder: Path
    train: Path
    texts: Path
    held_out: Path
    train_records: Sequence[Record]
    held_out_records: Sequence[Record]


def read_pairs(data: Path) -> list[Record]:
    """All pairs, with the dialogue that each belongs to as its `group`.

    Args:
        data: the folder of the real data sets.
    """
    columns = ("prompt", "chosen", "rejected", "subset")
    records = read_records(data / "hh_rlhf", required=columns)
    return [
        {name: record[name] for name in columns} | {"group": first_turn(record["prompt"])}
        for record in records
    ]


def write_fold(pairs: Sequence[Record], folder: Path, seed: int) -> Fold:
    """Write one split.

    Args:
        pairs: all of them.
        folder: where to.
        seed: seeds 0 to 4 hold every pair out once; 5 to 9 part the dialogues anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held_out = [pair for pair in pairs if is_held_out(pair["group"], seed)]
    train = [pair for pair in pairs if not is_held_out(pair["group"], seed)]
    fold = Fold(
        folder=folder,
        train=folder / "train.jsonl",
        texts=folder / "texts.jsonl",
        held_out=folder / "held-out.jsonl",
        train_records=train,
        held_out_records=held_out,
    )
    write_jsonl(fold.train, train)
    write_jsonl(fold.held_out, held_out)
    write_jsonl(fold.texts, ({"text": dialogue(pair)} for pair in train))
    return fold


def dialogue(pair: Record) -> str:
    """A dialogue with both answers, in an order that does not say which one people preferred.

    A language model that had read the preferred answers alone would know them again: a feature
    that tells the sides of the pairs to be learned from apart, and of no others.
    """
    first, second = sorted((pair["chosen"], pair["rejected"]))
    return f"{pair['prompt']}{first}\n\nAssistant:{second}".strip()


def first_turn(prompt: str) -> str:
    """What the human said first; dialogues that begin alike are kept together."""
    return prompt.strip().split("\n\nAssistant:", 1)[0]


def is_held_out(group: str, seed: int) -> bool:
    """True if this dialogue is one of a seed's fifth that is judged by."""
    partition, fold = divmod(seed, FOLDS)
    digest = hashlib.blake2b(f"{partition}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % FOLDS == fold
