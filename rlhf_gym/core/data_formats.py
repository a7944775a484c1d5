"""The file formats that `read_records` understands, each as an iterator of located records."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

from rlhf_gym.core.errors import InvalidData

Record = dict[str, Any]
TextUnit = Literal["line", "paragraph", "file"]

TEXT_COLUMNS = frozenset({"text", "prompt", "completion", "chosen", "rejected", "response"})
"""Columns that stay text in .csv and .tsv files even if every value looks like a number."""

SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""JSON's escape of half a character beyond U+FFFF; where only one half stands, it is none."""
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


def read_file(
    path: Path, text_unit: TextUnit, malformed: list[InvalidData] | None = None
) -> Iterator[tuple[str, Record]]:
    """Yield each record of a file and where it stands, such as "line 3".

    Args:
        path: a file whose name says its format.
        text_unit: what one record of a .txt file is.
        malformed: takes the errors of .jsonl lines that are none, so that the others are read; None
            raises the first.

    Raises:
        InvalidData: an unknown format, a malformed line, a damaged file.
    """
    kind = data_format(path)
    if kind is None:
        raise InvalidData(
            "path",
            str(path),
            "the name does not say the format",
            f"Supported are {supported_formats()}",
        )
    try:
        with cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            if kind == ".parquet":
                yield from _parquet(file, path)
                return
            # newline="" leaves line breaks inside quoted .csv fields as they are.
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            if kind == ".txt":
                yield from _text(text, text_unit)
            elif kind == ".jsonl":
                yield from _json_lines(text, path, malformed)
            elif kind == ".json":
                yield from _json_list(text, path)
            else:
                yield from _delimited(text, path, kind)
    except UnicodeDecodeError as error:
        raise InvalidData(
            "path", str(path), f"not UTF-8 text ({error.reason})", "Convert the file to UTF-8"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidData(
            "path", str(path), f"damaged gzip file ({error})", "Fetch the file again"
        ) from error
    except OSError as error:
        raise InvalidData(
            "path", str(path), f"it cannot be read ({error.strerror})", "Check its permissions"
        ) from error


def _text(file: IO[str], unit: TextUnit) -> Iterator[tuple[str, Record]]:
    if unit == "line":
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", {"text": line.rstrip("\r\n")}
        return
    whole = file.read()
    parts = re.split(r"(?:\r?\n[ \t]*){2,}", whole) if unit == "paragraph" else [whole]
    for number, part in enumerate((part.strip("\r\n") for part in parts), 1):
        if part.strip():
            yield f"{unit} {number}", {"text": part}


def _json_lines(
    file: IO[str], path: Path, malformed: list[InvalidData] | None
) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", _json_object(line, path, number)
        except InvalidData as error:
            if malformed is None:
                raise
            malformed.append(error)


def _json_object(line: str, path: Path, number: int) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise _malformed(path, f"line {number}", error.msg) from error
    if not isinstance(record, dict):
        raise _malformed(path, f"line {number}", "not a JSON object")
    return cast(Record, _whole_characters(record)) if _HALF.search(line) else record


def _json_list(file: IO[str], path: Path) -> Iterator[tuple[str, Record]]:
    text = file.read()
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(path, f"line {error.lineno}", error.msg) from error
    if not isinstance(records, list):
        raise _malformed(path, "the file", "not a list of objects")
    if _HALF.search(text):
        records = _whole_characters(records)
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise _malformed(path, f"record {number}", "not a JSON object")
        yield f"record {number}", record


def _whole_characters(value: Any) -> Any:
    """JSON data whose lone surrogates, which no tokenizer takes and no file holds, are U+FFFD."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _delimited(file: IO[str], path: Path, kind: str) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(2**31 - 1)  # the default refuses documents of more than 128 KiB
    if kind == ".tsv":
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file, strict=True)
    located: list[tuple[str, list[str]]] = []
    try:
        header = next(reader, [])
        doubled = sorted({name for name in header if name and header.count(name) > 1})
        if doubled:
            raise _malformed(path, "the header", f"two columns are called {doubled[0]!r}")
        for row in reader:
            if row and len(row) != len(header):
                what = f"{len(row)} fields where the header has {len(header)}"
                if kind == ".tsv":
                    what += " (quotation marks mean nothing in .tsv; with line breaks write .csv)"
                raise _malformed(path, f"line {reader.line_num}", what)
            if row:
                located.append((f"line {reader.line_num}", row))
    except csv.Error as error:
        raise _malformed(path, f"line {reader.line_num}", str(error)) from error
    values = [
        list(column) if name in TEXT_COLUMNS else _typed(column)
        for name, column in zip(
            header, zip(*(row for _, row in located), strict=True), strict=False
        )
    ]
    for (where, _), row_values in zip(located, zip(*values, strict=True), strict=False):
        yield where, dict(zip(header, row_values, strict=True))


def _typed(column: Sequence[str]) -> list[Any]:
    """Numbers if every value is one, booleans if every value is true or false, else the strings."""
    if all(_NUMBER.fullmatch(value) for value in column):
        return [json.loads(value) for value in column]
    if all(value.lower() in ("true", "false") for value in column):
        return [value.lower() == "true" for value in column]
    return list(column)


def _parquet(file: IO[bytes], path: Path) -> Iterator[tuple[str, Record]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(io.BytesIO(file.read())).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"record {number}", record
    except pyarrow.ArrowException as error:
        raise _malformed(path, "the file", str(error).splitlines()[0]) from error


def data_format(path: Path) -> str | None:
    """The supported suffix of a file name, .gz left out, or None."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def supported_formats() -> str:
    """The supported suffixes as a phrase for messages."""
    return ", ".join(SUFFIXES) + ", each also with .gz"


def _malformed(path: Path, where: str, problem: str) -> InvalidData:
    return InvalidData("path", str(path), f"{where} is malformed: {problem}", "Correct the file")
