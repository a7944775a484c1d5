"""Files of text, prompts, demonstrations and labels, in whatever common format, as plain records.

One function, `read_records`, reads .txt, .jsonl, .json, .csv, .tsv and .parquet (each also
gzipped), folders of them, and data sets of the Hugging Face hub. A record is a dictionary with the
column names the stages use: `text`, `prompt`, `completion`, `chosen`, `rejected`, `label`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from rlhf_gym.core.data_formats import (
    Record,
    TextUnit,
    data_format,
    read_file,
    supported_formats,
)
from rlhf_gym.core.errors import InvalidArgument, InvalidData

PathLike = str | os.PathLike[str]
Item = TypeVar("Item")

_HUB = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<config>[\w.-]+))?(:(?P<split>\S+))?")


def read_records(
    path: PathLike,
    *,
    columns: Mapping[str, str] | None = None,
    required: Sequence[str] = (),
    limit: int | None = None,
    text_unit: TextUnit = "line",
) -> list[Record]:
    """Read a file, a folder or a hub data set into records.

    Args:
        path: a file; a folder, of which every supported file is read, in sorted order, subfolders
            included; or `hub:owner/name`, with `@config` and `:split` behind it if needed (split
            `train` otherwise). `owner/name` alone is looked up on the hub if no such path is here.
        columns: names to change, `{name in the file: name wanted}`. A dot reaches into an object:
            `{"prompt.text": "prompt"}`.
        required: columns, after renaming, that every record must have.
        limit: read this many records at most.
        text_unit: what one record of a .txt file is: a line, a paragraph (blank lines part them) or
            the file. Blank ones are left out.

    Returns:
        At least one record. Columns of .csv and .tsv files whose values are all numbers (or all
        true/false) become numbers (or booleans), except the text columns. A quotation mark means
        nothing in a .tsv file, as in SST and GLUE.

    Raises:
        InvalidData: no such path, an unknown format, a malformed line, a record without a required
            column, or no record at all.
    """
    if limit is not None and limit < 1:
        raise InvalidArgument("limit", limit, "no record would be read", "Give 1 or more, or None")
    located = located_records(path, columns=columns, text_unit=text_unit)
    return _checked(islice(located, limit), required, os.fspath(path))


def read_prompts(path: PathLike, column: str = "prompt") -> list[Record]:
    """Read records that have a prompt; what is nothing but text, as .txt gives it, is one.

    Args:
        path: as in `read_records`.
        column: that holds the prompts, when it has another name.

    Raises:
        InvalidData: as `read_records`.
    """
    columns = {column: "prompt"} if column != "prompt" else None
    located = (
        (where, {"prompt": record["text"]} if record.keys() == {"text"} else record)
        for where, record in located_records(path, columns=columns)
    )
    return _checked(located, ("prompt",), os.fspath(path))


def located_records(
    path: PathLike,
    *,
    columns: Mapping[str, str] | None = None,
    text_unit: TextUnit = "line",
    malformed: list[InvalidData] | None = None,
) -> Iterator[tuple[str, Record]]:
    """Yield records one by one, each with where it stands, such as "line 3".

    Args:
        path: as in `read_records`.
        columns: as in `read_records`.
        text_unit: as in `read_records`.
        malformed: takes the errors of .jsonl lines that are none, so that the others are read; None
            raises the first.

    Raises:
        InvalidData: as `read_records`.
    """
    source = os.fspath(path)
    for where, record in _read_source(source, text_unit, malformed):
        yield where, _rename(record, columns or {}, source, where)


def text_column(records: Sequence[Mapping[str, Any]], column: str, source: PathLike) -> list[str]:
    """One column of records as strings.

    Raises:
        InvalidData: a value is no string.
    """
    for number, record in enumerate(records, 1):
        value = record.get(column)
        if not isinstance(value, str):
            raise InvalidData(
                column,
                value,
                f"record {number} of {os.fspath(source)} holds no text here",
                "Give strings; rename 'prompt.text' to 'prompt' to take a field of an object",
            )
    return [record[column] for record in records]


def write_jsonl(path: PathLike, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records, one JSON object a line (gzipped if the name ends in .gz).

    The file appears whole or not at all: it is written beside its place and then moved there.

    Returns:
        How many records were written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    count = 0
    opener: Callable[..., IO[str]] = gzip.open if target.suffix == ".gz" else open
    with opener(partial, "wt", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    partial.replace(target)
    return count


def hold_out(
    items: Sequence[Item], fraction: float, *, seed: int = 0, key: Callable[[Item], str] = str
) -> tuple[list[Item], list[Item]]:
    """Split so that items with the same key stand on the same side, whatever their order.

    Args:
        items: what to split.
        fraction: share of the keys to hold out, from 0 to below 1; above 0, one key at least.
        seed: another seed holds out other keys.
        key: what must not occur on both sides, such as the prompt.

    Returns:
        (kept, held out), each in the given order.

    Raises:
        InvalidArgument: `fraction` out of range, or nothing would be kept.
    """
    if not 0 <= fraction < 1:
        raise InvalidArgument("held_out", fraction, "no share", "Give a number from 0 to below 1")
    keys = [key(item) for item in items]
    ranked = sorted(
        set(keys), key=lambda k: hashlib.blake2b(f"{seed}\0{k}".encode(), digest_size=8).digest()
    )
    count = min(math.ceil(fraction * len(ranked)), len(ranked))
    if ranked and count == len(ranked):
        raise InvalidArgument(
            "held_out",
            fraction,
            f"of {len(ranked)} different records none would be left to train on",
            "Give more data, or hold out 0",
        )
    held = set(ranked[:count])
    kept = [item for item, k in zip(items, keys, strict=True) if k not in held]
    return kept, [item for item, k in zip(items, keys, strict=True) if k in held]


def _read_source(
    source: str, text_unit: TextUnit, malformed: list[InvalidData] | None
) -> Iterator[tuple[str, Record]]:
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and data_format(p) is not None)
        if not files:
            raise InvalidData(
                "path",
                source,
                "the folder holds no data file",
                f"Supported are {supported_formats()}",
            )
        for file in files:
            for where, record in read_file(file, text_unit, malformed):
                yield f"{file.relative_to(path)}, {where}", record
    elif path.is_file():
        yield from read_file(path, text_unit, malformed)
    elif source.startswith("hub:") or _looks_like_hub_name(source):
        yield from _read_hub(source.removeprefix("hub:"))
    else:
        raise InvalidData(
            "path",
            source,
            "there is no such file or folder",
            "Check the name; a data set of the hub is written hub:owner/name",
        )


def _read_hub(name: str) -> Iterator[tuple[str, Record]]:
    import datasets

    match = _HUB.fullmatch(name)
    if match is None:
        raise InvalidData("path", f"hub:{name}", "no name of a data set", "Write hub:owner/name")
    try:
        rows = datasets.load_dataset(
            match["name"], match["config"], split=match["split"] or "train", streaming=True
        )
        for number, record in enumerate(rows, 1):
            yield f"record {number}", dict(record)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InvalidData(
            "path",
            name,
            f"no such path here, and the hub gave {type(error).__name__}: {error}",
            "Check the name, the split (hub:owner/name:split) and the network",
        ) from error


def _looks_like_hub_name(source: str) -> bool:
    """True for owner/name, unless `owner` is a folder here: then it is a mistyped path."""
    owner, _, name = source.partition("/")
    is_name = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?(:\S+)?", source) is not None
    return is_name and data_format(Path(name)) is None and not Path(owner).exists()


def _rename(record: Record, columns: Mapping[str, str], source: str, where: str) -> Record:
    if not columns:
        return record
    renamed = {name: value for name, value in record.items() if name not in columns}
    for name, wanted in columns.items():
        value: Any = record
        for part in [name] if name in record else name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise _missing(name, record, source, where)
            value = value[part]
        renamed[wanted] = value
    return renamed


def _checked(
    located: Iterable[tuple[str, Record]], required: Sequence[str], source: str
) -> list[Record]:
    records = []
    for where, record in located:
        _require(record, required, source, where)
        records.append(record)
    if not records:
        raise InvalidData("path", source, "there is no record in it", "Give data that is not empty")
    return records


def _require(record: Record, required: Sequence[str], source: str, where: str) -> None:
    for name in required:
        if record.get(name) is None:
            raise _missing(name, record, source, where)


def _missing(name: str, record: Record, source: str, where: str) -> InvalidData:
    return InvalidData(
        "column",
        name,
        f"{source}, {where}: missing or null; the columns there are {', '.join(record) or 'none'}",
        "Rename a column of the file to it, or correct the file",
    )
