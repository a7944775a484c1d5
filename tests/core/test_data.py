"""Reading records: every format gives the same ones, every mistake names its place."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_gym.core.data import hold_out, read_prompts, read_records, text_column, write_jsonl
from rlhf_gym.core.errors import InvalidArgument, InvalidData

RECORDS = [
    {"prompt": "1984", "completion": 'She said "no",\nthen left.', "label": 1},
    {"prompt": "1985", "completion": "été", "label": 0},
]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(RECORDS), sink)
    return sink.getvalue().to_pybytes()


CONTENT = {
    ".jsonl": "\n".join(json.dumps(record) for record in RECORDS) + "\n\n",
    ".json": json.dumps(RECORDS, indent=1),
    ".csv": 'prompt,completion,label\r\n1984,"She said ""no"",\nthen left.",1\r\n1985,été,0\r\n',
    ".parquet": parquet_bytes(),
}


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("suffix", CONTENT)
def test_every_format_gives_the_same_records(tmp_path, suffix, gz):
    path = write(tmp_path / f"data{suffix}{gz}", CONTENT[suffix])
    assert read_records(path) == RECORDS
    assert read_records(path, limit=1) == RECORDS[:1]


def test_a_quotation_mark_means_nothing_in_tsv(tmp_path):
    path = write(tmp_path / "sst.tsv", 'sentence\tlabel\n" what a film\t1\nthe "end\t0\n')
    assert read_records(path, columns={"sentence": "text"}) == [
        {"text": '" what a film', "label": 1},
        {"text": 'the "end', "label": 0},
    ]


def test_csv_columns_become_numbers_only_if_nothing_is_lost(tmp_path):
    path = write(
        tmp_path / "types.csv",
        "a,b,c,d,e\n1,0.5,007,true,1\n-2,1e3,1,False,x\n",
    )
    assert read_records(path) == [
        {"a": 1, "b": 0.5, "c": "007", "d": True, "e": "1"},
        {"a": -2, "b": 1000.0, "c": "1", "d": False, "e": "x"},
    ]


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        ("line", ["One", " two ", "Three"]),
        ("paragraph", ["One\n two ", "Three"]),
        ("file", ["One\n two \n\n \nThree"]),
    ],
)
def test_units_of_a_text_file(tmp_path, unit, texts):
    path = write(tmp_path / "story.txt", "\ufeff\nOne\n two \n\n \nThree\n")
    assert [record["text"] for record in read_records(path, text_unit=unit)] == texts


def test_a_folder_is_read_in_sorted_order(tmp_path):
    (tmp_path / "pos").mkdir()
    write(tmp_path / "pos" / "1.txt", "second")
    write(tmp_path / "a.jsonl.gz", '{"text": "first"}\n')
    write(tmp_path / "README.md", "not data")
    assert [r["text"] for r in read_records(tmp_path)] == ["first", "second"]
    assert [r["text"] for r in read_records(tmp_path, limit=1)] == ["first"]


def test_renaming_reaches_into_objects(tmp_path):
    path = write(tmp_path / "nested.jsonl", '{"prompt": {"text": "Hi", "toxicity": 0.5}, "id": 7}')
    (record,) = read_records(path, columns={"prompt.text": "prompt", "id": "label"})
    assert record == {"prompt": "Hi", "label": 7}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "line 2 is malformed"),
        ("a.jsonl", '"only a string"\n', "not a JSON object"),
        ("a.json", '{"text": "x"}', "not a list"),
        ("a.json", "[1]", "record 1 is malformed"),
        ("a.csv", "a,b\n1,2\n3\n", "line 3 is malformed: 1 fields where the header has 2"),
        ("a.csv", 'a,b\n1,"2\n', "malformed"),
        ("a.csv", "text,text\na,b\n", "two columns are called 'text'"),
        ("a.csv", "a,b\n", "no record"),
        ("a.tsv", "a\tb\n1\t2\t3\n", "line 2 is malformed"),
        ("a.tsv", 'a\tb\n"1\n2"\t3\n', r"quotation marks mean nothing in \.tsv"),
        ("a.parquet", b"PAR1 nonsense", "malformed"),
        ("a.txt", b"caf\xe9\n", "not UTF-8"),
        ("a.txt", " \n\n", "no record"),
        ("a.doc", "x", "does not say the format"),
    ],
)
def test_malformed_files_are_named_with_the_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(InvalidData, match=message):
        read_records(path)


def test_a_gzip_file_that_was_cut_off(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", CONTENT[".jsonl"])
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InvalidData, match="damaged gzip"):
        read_records(path)


def test_a_missing_column_names_the_place_and_what_is_there(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"prompt": "x"}\n{"prompt": null, "text": "y"}\n')
    with pytest.raises(InvalidData, match=r"column='prompt'.*line 2.*prompt, text"):
        read_records(path, required=("prompt",))
    with pytest.raises(InvalidData, match=r"column='review'.*line 1.*the columns there are prompt"):
        read_records(path, columns={"review": "text"})


def test_paths_that_are_not_there(tmp_path):
    with pytest.raises(InvalidData, match="no such file"):
        read_records(tmp_path / "nothing.jsonl")
    with pytest.raises(InvalidData, match="no data file"):
        read_records(tmp_path)
    with pytest.raises(InvalidArgument, match="limit=0"):
        read_records(tmp_path, limit=0)


def test_hub_names_carry_configuration_and_split(monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, config, *, split, streaming):
        asked.append((name, config, split))
        return [{"text": "a"}, {"text": "b"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_records("hub:imdb", limit=1) == [{"text": "a"}]
    read_records("stanfordnlp/imdb")
    read_records("hub:Salesforce/wikitext@wikitext-2-v1:validation")
    assert asked == [
        ("imdb", None, "train"),
        ("stanfordnlp/imdb", None, "train"),
        ("Salesforce/wikitext", "wikitext-2-v1", "validation"),
    ]


def test_a_mistyped_path_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(InvalidData, match="no such file"):
        read_records("data/trian")


def test_an_unreachable_hub_is_one_clear_error(monkeypatch):
    import datasets

    def load_dataset(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InvalidData, match="no such path here, and the hub gave ConnectionError"):
        read_records("nobody/nothing")


def test_text_column_refuses_what_is_no_text():
    assert text_column([{"text": "a"}, {"text": "b"}], "text", "here") == ["a", "b"]
    with pytest.raises(InvalidData, match="record 2 of here"):
        text_column([{"text": "a"}, {"text": 3}], "text", "here")


@pytest.mark.parametrize("name", ["deep/a.jsonl", "a.jsonl.gz"])
def test_written_records_are_read_again(tmp_path, name):
    assert write_jsonl(tmp_path / name, RECORDS) == 2
    assert read_records(tmp_path / name) == RECORDS


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", RECORDS)

    def broken():
        yield RECORDS[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(tmp_path / "a.jsonl", broken())
    assert read_records(tmp_path / "a.jsonl") == RECORDS


def test_a_key_never_stands_on_both_sides():
    items = [(f"prompt {i % 20}", i) for i in range(100)]
    kept, held = hold_out(items, 0.25, key=lambda item: item[0])
    assert not {k for k, _ in kept} & {k for k, _ in held}
    assert len({k for k, _ in held}) == 5  # a quarter of 20 prompts
    assert sorted(kept + held) == sorted(items)
    reversed_kept, _ = hold_out(items[::-1], 0.25, key=lambda item: item[0])
    assert sorted(reversed_kept) == sorted(kept)  # order does not matter
    assert hold_out(items, 0.25, seed=1, key=lambda item: item[0])[1] != held


def test_holding_out_none_or_all():
    assert hold_out(["a", "b"], 0.0) == (["a", "b"], [])
    assert len(hold_out(["a", "b"], 0.01)[1]) == 1
    assert hold_out([], 0.5) == ([], [])
    with pytest.raises(InvalidArgument, match="none would be left"):
        hold_out(["a", "a"], 0.1)
    with pytest.raises(InvalidArgument, match=r"held_out=1\.0"):
        hold_out(["a", "b"], 1.0)


@pytest.mark.skipif("RLHF_GYM_DATA" not in os.environ, reason="needs the real data")
@pytest.mark.parametrize(
    ("path", "columns", "required", "count"),
    [
        ("imdb/unlabelled.jsonl.gz", {}, ("text",), 11_889),
        ("sst2/sentences.tsv", {"sentence": "text"}, ("text", "label"), 7_682),
        ("sst2/phrases.tsv", {"phrase": "text"}, ("text", "label"), 60_124),
        ("fairytales", {}, ("text",), 278),
        ("instructions", {}, ("prompt", "completion"), 1_145),
        ("real_toxicity_prompts", {"prompt.text": "prompt"}, ("prompt",), 5_000),
        ("truthfulqa", {"Question": "prompt"}, ("prompt",), 817),
    ],
)
def test_real_files(path, columns, required, count):
    records = read_records(
        Path(os.environ["RLHF_GYM_DATA"]) / path, columns=columns, required=required
    )
    assert len(records) == count
    text_column(records, required[0], path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_half_a_character_is_replaced(tmp_path: Path, name: str) -> None:
    record = r'{"text": ["\ud83d\ude00 \ud83d x", "\\ud800"], "id": 7}'
    path = write(tmp_path / name, record if name == "a.jsonl" else f"[{record}]")
    assert read_records(path) == [{"text": ["\U0001f600 \ufffd x", r"\ud800"], "id": 7}]


def test_prompts_are_lines_or_a_column(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "one\n\ntwo\n")
    write(tmp_path / "b.jsonl", '{"prompt": "three", "text": "x"}\n')
    assert [r["prompt"] for r in read_prompts(tmp_path)] == ["one", "two", "three"]
    renamed = read_prompts(tmp_path / "b.jsonl", "text")
    assert renamed == [{"prompt": "x"}]
    with pytest.raises(InvalidData, match=r"question.*columns there are text"):
        read_prompts(tmp_path / "a.txt", "question")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.txt", "x")
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(InvalidData, match=r"a\.txt.*cannot be read \(Permission denied\)"):
        read_records(path)
