"""`rlhf-gym feedback` from the command line."""

import json

import pytest

from rlhf_gym.cli import main
from rlhf_gym.core.data import read_records

PAIR = {"prompt": "The film", "good": "is fine.", "bad": "is dull."}


def test_import_report_export(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n{\n")
    columns = ["--columns", "good", "chosen", "bad", "rejected"]
    main(["feedback", "import", "pairs.jsonl", "--rater", "anna", *columns])
    printed = capsys.readouterr().out
    assert "1 labels stored, 0 known already, 1 records left out" in " ".join(printed.split())
    assert "line 2" in printed
    main(["feedback", "report"])
    assert "anna" in capsys.readouterr().out
    main(["feedback", "export", "out.parquet"])
    (record,) = read_records("out.parquet")
    assert (record["chosen"], record["rejected"], record["rater"]) == (
        "is fine.",
        "is dull.",
        "anna",
    )


def test_no_problem_is_kept_back(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair = {"prompt": "The film", "chosen": "is fine.", "rejected": "is dull."}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n" + "{\n" * 13)
    main(["feedback", "import", "pairs.jsonl"])
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("line ") == 10
    assert "and 3 more. Import it again with --all-problems" in printed
    main(["feedback", "import", "pairs.jsonl", "--all-problems"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "0 labels stored, 1 known already, 13 records left out" in printed
    assert all(f"line {number}" in printed for number in range(2, 15))
    assert "more" not in printed


def test_a_store_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["feedback", "report"])
    assert "there is no such file" in capsys.readouterr().err
    assert not (tmp_path / "feedback.db").exists()
