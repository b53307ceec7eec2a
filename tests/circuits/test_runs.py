"""The run folder: whole or absent, and read back as it was written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from circuits import records, runs
from circuits.errors import RunFolderError
from circuits.prompts import PromptPair
from circuits.records import json_text, read_prompts, read_table, write_prompts, write_table
from circuits.runs import check_output, read_run, write_records, writing_run

PAIR = PromptPair(
    "Mary and John", "Mary and Sue", (" Mary",), (" John",), {"IO": (0, 4)}, "", "ABBA", "Mary-John"
)
CONTENTS: dict[str, Any] = {
    "run": {"seed": 7, "model": "planted"},
    "prompts": (PAIR,),
    "nodes": pd.DataFrame({"node": ["a0.h1", "m0"], "score": [0.5, -0.25]}),
    "edges": pd.DataFrame({"source": ["input"], "target": ["a0.h1"], "score": [None]}),
    "circuit": {"nodes": ["a0.h1"]},
    "evaluation": {"faithfulness": 0.9},
}


def make_run(path: Path, force: bool = False, **changes: Any) -> None:
    with writing_run(path, force) as folder:
        write_records(folder, **(CONTENTS | changes))


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """A folder that must hold nothing but what the test names once the test is over."""
    yield tmp_path
    assert not [name for name in os.listdir(tmp_path) if "partial" in name or name.endswith(".old")]


def test_a_run_reads_back_as_it_was_written(bare: Path) -> None:
    make_run(bare / "run")
    run = read_run(bare / "run")
    assert run.run == {"format_version": 1, "seed": 7, "model": "planted"}
    assert run.prompts == (PAIR,)
    assert run.nodes.to_dict("list") == {"node": ["a0.h1", "m0"], "score": [0.5, -0.25]}
    assert run.edges["score"].isna().all()
    assert (run.circuit, run.evaluation) == (CONTENTS["circuit"], CONTENTS["evaluation"])


def test_parts_are_a_file_of_their_own_where_there_are_any(bare: Path) -> None:
    parts = pd.DataFrame({"part": ["a0.h1<q>", "resid1"], "score": [0.5, -0.25], "stderr": [0.125, None]})
    for name, table in (("with", parts), ("empty", parts[:0]), ("without", None)):
        make_run(bare / name, parts=table)
    found = read_run(bare / "with").parts
    assert found is not None
    pd.testing.assert_frame_equal(found, parts)
    for name in ("empty", "without"):
        assert read_run(bare / name).parts is None
        assert sorted(os.listdir(bare / name)) == sorted(runs.FILES)


def test_attention_is_written_in_one_line_and_read_back(bare: Path) -> None:
    attention = {"format_version": 1, "heads": {"a0.h1": [{"clean": {"queries": [1], "rows": [[1, 999]]}}]}}
    make_run(bare / "run", attention=attention)
    assert read_run(bare / "run").attention == attention
    assert (bare / "run" / "attention.json").read_text().split() == [json.dumps(attention).replace(" ", "")]


def test_the_same_run_has_the_same_bytes(bare: Path) -> None:
    make_run(bare / "one")
    make_run(bare / "two")
    for name in runs.FILES:
        assert (bare / "one" / name).read_bytes() == (bare / "two" / name).read_bytes()


def fail_after_writing(folder: Path, failure: type[BaseException]) -> None:
    write_records(folder, **CONTENTS)
    raise failure


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_goes_wrong_leaves_nothing(bare: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), writing_run(bare / "new" / "deep" / "run") as folder:
        fail_after_writing(folder, failure)
    assert os.listdir(bare) == []


def test_parents_that_were_there_stay(bare: Path) -> None:
    (bare / "runs").mkdir()
    with pytest.raises(ValueError), writing_run(bare / "runs" / "run"):
        raise ValueError
    assert os.listdir(bare) == ["runs"]


def test_a_full_disk_is_one_clear_message(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *rest: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunFolderError, match=r"run cannot be written: No space left on device"):
        make_run(bare / "run")
    assert os.listdir(bare) == []


def test_a_full_disk_at_the_last_moment_is_no_different(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="No space left"):
        make_run(bare / "run")
    assert os.listdir(bare) == []


def test_an_error_about_another_file_stays_what_it_is(bare: Path) -> None:
    with pytest.raises(FileNotFoundError), writing_run(bare / "run"):
        Path("/no/such/prompts.jsonl").read_text()


def test_a_read_only_place_is_refused_by_name(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(RunFolderError, match="no permission"):
        check_output(bare / "run")


def test_a_run_below_a_file_is_refused(bare: Path) -> None:
    (bare / "file").write_text("mine")
    with pytest.raises(RunFolderError, match="is not a folder"):
        check_output(bare / "file" / "run")


def test_an_existing_path_is_refused_with_the_way_out(bare: Path) -> None:
    make_run(bare / "run")
    with pytest.raises(RunFolderError, match=r"run exists: choose another --output, or pass --force"):
        check_output(bare / "run")
    with pytest.raises(RunFolderError), writing_run(bare / "run"):
        pytest.fail("work began although the path is taken")


def test_force_replaces_a_run_once_the_new_one_is_complete(bare: Path) -> None:
    make_run(bare / "run")
    (bare / "run" / "old.txt").write_text("of the old run")
    with writing_run(bare / "run", force=True) as folder:
        write_records(folder, **(CONTENTS | {"run": {"seed": 8}}))
        assert read_run(bare / "run").run["seed"] == 7
    assert read_run(bare / "run").run["seed"] == 8
    assert not (bare / "run" / "old.txt").exists()


def test_a_failed_replacement_leaves_the_old_run(bare: Path) -> None:
    make_run(bare / "run")
    with pytest.raises(KeyboardInterrupt), writing_run(bare / "run", force=True):
        raise KeyboardInterrupt
    assert read_run(bare / "run").run["seed"] == 7


def test_a_failed_rename_puts_the_old_run_back(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(bare / "run")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(RunFolderError, match="Permission denied"):
        make_run(bare / "run", force=True, run={"seed": 8})
    monkeypatch.undo()
    assert read_run(bare / "run").run["seed"] == 7


def test_an_interrupt_while_the_old_run_is_removed_leaves_only_the_new_one(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(bare / "run")
    remove = shutil.rmtree
    struck: list[Path] = []

    def interrupted(path: Path, **more: Any) -> None:
        if path.name.endswith(".old") and not struck:
            struck.append(path)
            raise KeyboardInterrupt
        remove(path, **more)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_run(bare / "run", force=True, run={"seed": 8})
    assert read_run(bare / "run").run["seed"] == 8
    assert os.listdir(bare) == ["run"]


def test_a_path_taken_meanwhile_is_not_overwritten(bare: Path) -> None:
    with pytest.raises(RunFolderError, match="exists"), writing_run(bare / "run"):
        (bare / "run").mkdir()
    assert os.listdir(bare) == ["run"]


def test_force_spares_what_is_no_run(bare: Path) -> None:
    (bare / "home").mkdir()
    (bare / "home" / "thesis.tex").write_text("years of work")
    (bare / "file").write_text("mine")
    make_run(bare / "run")
    (bare / "link").symlink_to(bare / "run")
    for name, reason in (("home", "without run.json"), ("file", "is a file"), ("link", "is a link")):
        with pytest.raises(RunFolderError, match=reason):
            check_output(bare / name, force=True)
    assert (bare / "home" / "thesis.tex").read_text() == "years of work"


def test_another_kind_of_folder_is_known_by_another_file(bare: Path) -> None:
    for seed in ("1", "2"):
        with writing_run(bare / "comparison", force=True, record="comparison.json") as folder:
            (folder / "comparison.json").write_text(seed)
    assert (bare / "comparison" / "comparison.json").read_text() == "2"


def test_what_is_no_run_is_said_so(bare: Path) -> None:
    with pytest.raises(RunFolderError, match="There is no run folder"):
        read_run(bare / "absent")
    (bare / "empty").mkdir()
    with pytest.raises(RunFolderError, match=r"is not a run folder: it has no run\.json"):
        read_run(bare / "empty")


def test_every_missing_file_is_named(bare: Path) -> None:
    make_run(bare / "run")
    (bare / "run" / "nodes.csv").unlink()
    (bare / "run" / "circuit.json").unlink()
    with pytest.raises(RunFolderError, match=r"lacks nodes\.csv, circuit\.json"):
        read_run(bare / "run")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("run.json", "{", "it is no JSON"),
        ("run.json", "[]", "no JSON object"),
        ("run.json", "{}", "format_version is None"),
        ("circuit.json", "[" * 100_000, "it is no JSON"),
        ("prompts.jsonl", '{"clean": "x"}\n', "line 1 is no prompt pair"),
        ("prompts.jsonl", "3\n", "line 1 is no prompt pair"),
        ("nodes.csv", "", "it is no table"),
        ("nodes.csv", "a,b\n1,2,3,4\n1\n1,2,3,4,5,6\n", "it is no table"),
        ("edges.csv", b"a\n\xff\n", "it is no table"),
        ("evaluation.json", b"\xff", "it is no JSON"),
        ("prompts.jsonl", b"\xff", "no UTF-8"),
    ],
)
def test_damage_is_named(bare: Path, name: str, text: str | bytes, reason: str) -> None:
    make_run(bare / "run")
    (bare / "run" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunFolderError, match=reason) as caught:
        read_run(bare / "run")
    assert name in str(caught.value)


def test_a_newer_format_asks_for_an_upgrade(bare: Path) -> None:
    make_run(bare / "run")
    (bare / "run" / "run.json").write_text(json.dumps({"format_version": 2}))
    with pytest.raises(RunFolderError, match="Upgrade"):
        read_run(bare / "run")


def test_json_knows_numpy_and_has_no_nan() -> None:
    value = {
        "z": np.float64(0.1),
        "a": np.arange(2),
        "n": np.nan,
        "i": [np.inf],
        "b": np.bool_(True),
        "t": (1,),
    }
    text = json_text(value)
    assert json.loads(text) == {"z": 0.1, "a": [0, 1], "n": None, "i": [None], "b": True, "t": [1]}
    assert list(json.loads(text)) == ["z", "a", "n", "i", "b", "t"]
    assert json_text(json.loads(text)) == text


texts = st.text(max_size=12)
pairs = st.builds(
    PromptPair,
    clean=texts,
    corrupt=texts,
    answers=st.lists(texts, max_size=3).map(tuple),
    distractors=st.lists(texts, max_size=3).map(tuple),
    positions=st.dictionaries(texts, st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=3),
    negative=texts,
    template=texts,
    key=texts,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
reuse = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@reuse
@given(st.lists(pairs, max_size=4).map(tuple))
def test_any_prompts_read_back(tmp_path: Path, prompts: tuple[PromptPair, ...]) -> None:
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts


@reuse
@given(st.dictionaries(texts, values, max_size=4))
def test_any_json_reads_back(tmp_path: Path, value: dict[str, Any]) -> None:
    records.write_json(tmp_path / "value.json", value)
    assert records.read_json(tmp_path / "value.json") == value


@reuse
@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=8), st.floats(-1e9, 1e9), st.integers(-99, 99)), min_size=1
    )
)
@example(rows=[("", -0.0, 0)])
def test_any_table_reads_back_to_nine_digits(tmp_path: Path, rows: list[tuple[str, float, int]]) -> None:
    table = pd.DataFrame(rows, columns=["name", "score", "count"])
    table["name"] = "n" + table["name"].str.replace("\x00", "").str.replace("\r", "")
    write_table(tmp_path / "table.csv", table)
    again = read_table(tmp_path / "table.csv")
    assert again["name"].tolist() == table["name"].tolist()
    assert again["count"].tolist() == table["count"].tolist()
    np.testing.assert_allclose(again["score"], table["score"], rtol=1e-8)
    write_table(tmp_path / "again.csv", again.astype({"score": float}))
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "table.csv").read_bytes()
