"""Cleaning a corpus before a model learns it by heart, and saying what was dropped."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from rlhf_gym.core.errors import InvalidArgument, InvalidData

# Control characters but tab and line feed, the byte order mark, and lone surrogates, which no UTF-8
# file can hold. Joiners and other format characters stay: emoji and Indic scripts need them.
_UNWANTED = dict.fromkeys(
    [*(set(range(0x20)) - {0x09, 0x0A}), *range(0x7F, 0xA0), 0xFEFF, *range(0xD800, 0xE000)]
)

_COUNTED = (
    "documents_in",
    "characters_in",
    "duplicates",
    "too_short",
    "too_long",
    "with_control_characters",
    "normalised",
)


@dataclass(frozen=True)
class CleaningConfig:
    """What `clean_corpus` does."""

    control_characters: bool = True
    """Remove control characters, byte order marks and lone surrogates; CRLF becomes LF."""
    normalise: bool = True
    """Bring Unicode to its composed form (NFC): e + acute accent and the letter é become one."""
    deduplicate: bool = True
    """Keep the first of documents that differ in white space only."""
    min_characters: int = 1
    """Drop documents shorter than this, after cleaning."""
    max_characters: int | None = None
    """Drop documents longer than this, after cleaning; None drops none."""

    def __post_init__(self) -> None:
        if self.min_characters < 1:
            raise InvalidArgument(
                "min_characters",
                self.min_characters,
                "empty text teaches nothing",
                "Give 1 or more",
            )
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise InvalidArgument(
                "max_characters",
                self.max_characters,
                f"every document would be dropped (min_characters={self.min_characters})",
                "Give a larger number",
            )


@dataclass(frozen=True)
class CleaningReport:
    """What `clean_corpus` did, in documents unless it says otherwise.

    Attributes:
        documents_in, documents_out: before and after.
        characters_in, characters_out: characters before and after.
        duplicates: dropped because an earlier document is the same.
        too_short, too_long: dropped by the length filter; empty ones are too short.
        with_control_characters: had characters removed.
        normalised: were not in Unicode's composed form.
    """

    documents_in: int
    documents_out: int
    characters_in: int
    characters_out: int
    duplicates: int
    too_short: int
    too_long: int
    with_control_characters: int
    normalised: int

    def __str__(self) -> str:
        return (
            f"{self.documents_out:,} of {self.documents_in:,} documents kept"
            f" ({self.duplicates:,} duplicates, {self.too_short:,} too short, {self.too_long:,} too"
            f" long); control characters removed from {self.with_control_characters:,},"
            f" Unicode normalised in {self.normalised:,}"
        )


def clean_corpus(
    texts: Iterable[str], config: CleaningConfig | None = None
) -> tuple[list[str], CleaningReport]:
    """Clean documents; their order is kept.

    Args:
        texts: the documents.
        config: what to do; the defaults if None.

    Returns:
        The documents that are left, white space at both ends removed, and what was done.

    Raises:
        InvalidData: no document is left.
    """
    config = config or CleaningConfig()
    kept: list[str] = []
    seen: set[bytes] = set()
    counts = dict.fromkeys(_COUNTED, 0)
    for original in texts:
        counts["documents_in"] += 1
        counts["characters_in"] += len(original)
        text = original
        if config.control_characters:
            unix = text.replace("\r\n", "\n")
            text = unix.translate(_UNWANTED)
            counts["with_control_characters"] += len(text) != len(unix)
        if config.normalise and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            counts["normalised"] += 1
        text = text.strip()
        reason = _reason_to_drop(text, config, seen)
        if reason is None:
            kept.append(text)
        else:
            counts[reason] += 1
    report = CleaningReport(
        **counts, documents_out=len(kept), characters_out=sum(len(text) for text in kept)
    )
    if not kept:
        raise InvalidData(
            "corpus", counts["documents_in"], str(report), "Give more, or filter less"
        )
    return kept, report


def _reason_to_drop(text: str, config: CleaningConfig, seen: set[bytes]) -> str | None:
    if len(text) < config.min_characters:
        return "too_short"
    if config.max_characters is not None and len(text) > config.max_characters:
        return "too_long"
    if config.deduplicate:
        # Digests instead of texts: a corpus need not be in memory twice.
        same = " ".join(text.split()).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(same, digest_size=16).digest()
        if digest in seen:
            return "duplicates"
        seen.add(digest)
    return None
