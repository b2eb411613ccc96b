"""Backup files, kept log and planted folders, without a running node."""

from __future__ import annotations

import json
import os
import tarfile
from io import BytesIO
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest

from cluster.backup import BackupError, Manifest, open_bundle
from cluster.backup.__main__ import main
from cluster.backup.bundle import measure, stream
from cluster.backup.logs import KeptLog, Target, kept_files, needed, replay
from cluster.backup.manifest import STATE
from cluster.backup.restore import load_state
from cluster.backup.revive import revive
from cluster.backup.shelf import Shelf
from cluster.consensus.members import first_members
from cluster.consensus.snapfile import write_content
from cluster.history.ended import finished_of, record_of, spec_bytes
from cluster.history.record import FinishedJob, PastAttempt
from cluster.machine import snapshot
from cluster.machine.apply import apply
from cluster.machine.commands import (
    AssignJobs,
    Batch,
    JobGroup,
    RegisterWorker,
    SubmitJobs,
    encode_batch,
)
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.state import State

CLUSTER = b"c" * 16
NODE_A, NODE_B = "a" * 16, "b" * 16
FLAGS = ["--listen", "127.0.0.1:7101", "--http", "127.0.0.1:8101"]


def batches(count: int) -> list[Batch]:
    """One submission of three jobs a second, after a worker that takes the first two."""
    worker = WorkerSpec("w", 8, ("default",), ("task",))
    group = JobGroup(JobSpec("task", max_retries=1), [b"x", b"y", b"z"])
    first = [RegisterWorker(worker), SubmitJobs([group]), AssignJobs(1, [1, 2])]
    return [
        Batch(3, 1_000 * n, first if n == 1 else [SubmitJobs([group])]) for n in range(1, count + 1)
    ]


def replayed(count: int) -> State:
    state = State()
    for batch in batches(count):
        apply(state, batch)
    return state


def write_backup(path: Path, state: State, index: int, term: int = 3) -> None:
    snap = BytesIO()
    write_content(
        snap,
        cluster=CLUSTER,
        index=index,
        term=term,
        members=first_members(["127.0.0.1:7001"]),
        chunks=snapshot.dump(state),
    )
    snap.seek(0)
    manifest = Manifest(
        cluster_id=CLUSTER.hex(), node_id="127.0.0.1:7001", release="1", index=index, term=term,
        created_ms=1_000, jobs=len(state.tables.jobs), dead_letters=0, schedules=0,
        has_history=False, parts={STATE: measure(snap)},
    )  # fmt: skip
    path.write_bytes(b"".join(stream(manifest, {STATE: snap})))


def keep(folder: Path, writer: str, first: int, last: int) -> None:
    """Entries at log indexes 10 times their number, as other entries stand between them."""
    state, log = State(), KeptLog(folder, writer)
    for number, batch in enumerate(batches(last), 1):
        apply(state, batch)
        if number >= first:
            log.append([(10 * number, state.digest, encode_batch(batch))])
    log.close()


def test_a_backup_is_a_tar_that_anybody_can_read(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    write_backup(path, replayed(4), 40)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["manifest.json", STATE]
    with open_bundle(path) as bundle:
        bundle.check()
        state, index, term = load_state(bundle)
    assert (index, term, state.digest) == (40, 3, replayed(4).digest)


def test_every_damaged_byte_of_the_state_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    write_backup(path, replayed(2), 20)
    whole = path.read_bytes()
    with open_bundle(path) as bundle:
        size = bundle.manifest.parts[STATE].bytes
    begin = whole.index(b"QRTSNAP1")
    for at in range(begin, begin + size, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with open_bundle(path) as bundle, pytest.raises(BackupError, match="damaged"):
            bundle.check()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a backup"),
        (b"hello", "not a backup"),
        (bytes(10_240), "not a backup"),
    ],
)
def test_something_else_is_no_backup(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(content)
    with pytest.raises(BackupError, match=why):
        open_bundle(path)


def test_a_backup_that_was_cut_off_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    write_backup(path, replayed(2), 20)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2_000])
    with open_bundle(path) as bundle, pytest.raises(BackupError):
        bundle.check()
    for lacking in (1, 512, 1_024):  # nothing but the mark of the end
        path.write_bytes(whole[:-lacking])
        with open_bundle(path) as bundle, pytest.raises(BackupError, match="is cut off at"):
            bundle.check()


def test_what_ran_has_used_its_attempt_up_and_is_retried() -> None:
    state = replayed(2)
    assert revive(state, 1_000) == 2
    jobs = state.tables.jobs
    assert [(jobs[i].attempt, jobs[i].failures, jobs[i].worker_id) for i in (1, 2, 3)] == [
        (1, 1, 1),
        (1, 1, 1),
        (0, 0, 0),
    ]
    assert not state.tables.workers
    assert (state.next_job_id, state.next_worker_id) == (7 + 1_000, 2 + 1_000)


def test_kept_log_leads_from_a_backup_to_any_later_entry_or_time(tmp_path: Path) -> None:
    keep(tmp_path, NODE_A, 1, 9)
    for number in range(4, 9):
        state = replayed(4)
        assert replay(state, 40, 3, Target(tmp_path, 10 * number)) == (number - 4, 10 * number, 3)
        assert state.digest == replayed(number).digest
    state = replayed(4)
    assert replay(state, 40, 3, Target(tmp_path, at_ms=6_500)) == (2, 60, 3)
    state = replayed(4)
    assert replay(state, 40, 3, Target(tmp_path)) == (5, 90, 3)


def test_what_one_node_did_not_keep_another_one_has(tmp_path: Path) -> None:
    keep(tmp_path, NODE_A, 1, 5)
    keep(tmp_path, NODE_B, 4, 9)
    state = replayed(3)
    assert replay(state, 30, 3, Target(tmp_path)) == (6, 90, 3)
    assert state.digest == replayed(9).digest


def test_a_gap_in_the_kept_log_is_never_restored_over(tmp_path: Path) -> None:
    keep(tmp_path, NODE_A, 1, 5)
    keep(tmp_path, NODE_B, 7, 9)
    with pytest.raises(BackupError, match="does not go on from index 50"):
        replay(replayed(3), 30, 3, Target(tmp_path))
    assert replay(replayed(3), 30, 3, Target(tmp_path, 50)) == (2, 50, 3)


def test_a_moment_that_was_not_kept_is_refused(tmp_path: Path) -> None:
    keep(tmp_path, NODE_A, 1, 5)
    with pytest.raises(BackupError, match="ends at index 50, before index 60"):
        replay(replayed(3), 30, 3, Target(tmp_path, 60))
    with pytest.raises(BackupError, match="before that time"):
        replay(replayed(3), 30, 3, Target(tmp_path, at_ms=99_000))


def test_a_torn_end_of_kept_log_is_not_read(tmp_path: Path) -> None:
    keep(tmp_path, NODE_A, 1, 5)
    (file,) = kept_files(tmp_path)
    file.path.write_bytes(file.path.read_bytes()[:-3])
    assert replay(replayed(3), 30, 3, Target(tmp_path)) == (1, 40, 3)


def test_only_files_that_lead_beyond_the_backup_are_read(tmp_path: Path) -> None:
    for first, last in ((1, 3), (4, 6), (7, 9)):
        keep(tmp_path, NODE_A, first, last)
    names = [path.name[:24] for path in needed(kept_files(tmp_path), 60)]
    assert names == [f"log-{n:020d}" for n in (40, 70)]
    assert len(needed(kept_files(tmp_path), 69)) == 1


def test_the_shelf_keeps_the_newest_and_the_log_that_they_need(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, CLUSTER.hex())
    shelf.folder.mkdir()
    for index in (20, 50, 80):
        shelf.path_for(index, 1_000 + index).write_bytes(b"")
    for first, last in ((1, 3), (4, 6), (7, 9)):
        keep(shelf.folder, NODE_A, first, last)
    gone = {path.name[:24] for path in shelf.prune(2)}
    assert gone == {f"full-{20:020d}"[:24], f"log-{10:020d}"}
    assert [full.index for full in shelf.fulls()] == [50, 80]


def test_a_restarted_node_never_writes_over_what_it_kept_before(tmp_path: Path) -> None:
    keep(tmp_path, "", 1, 9)
    keep(tmp_path, "", 1, 2)  # it replays from its snapshot, and dies again
    assert replay(replayed(1), 10, 3, Target(tmp_path)) == (8, 90, 3)


def test_entries_whose_file_failed_are_kept_in_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batches(1)[0]
    state, log = State(), KeptLog(tmp_path)
    apply(state, batch)
    entries = [(10, state.digest, encode_batch(batch))]
    with monkeypatch.context() as broken:
        broken.setattr("os.fdatasync", Mock(side_effect=OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            log.append(entries)
    log.append(entries)
    log.close()
    assert replay(State(), 0, 0, Target(tmp_path)) == (1, 10, 3)


def test_a_dead_lifes_last_file_goes_and_a_living_one_begins_anew(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, CLUSTER.hex())
    shelf.folder.mkdir()
    shelf.path_for(50, 1_000).write_bytes(b"")
    state, log = State(), KeptLog(shelf.folder)
    for number, batch in enumerate(batches(6), 1):
        apply(state, batch)
        log.append([(10 * number, state.digest, encode_batch(batch))])
        if number == 4:
            (file,) = kept_files(shelf.folder)
            assert shelf.prune(1) == []  # it was written to a moment ago
            os.utime(file.path, (0, 0))
            assert shelf.prune(1) == [file.path]
    log.close()
    assert replay(replayed(4), 40, 3, Target(shelf.folder)) == (2, 60, 3)


def test_a_folder_with_anything_in_it_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.tar"
    write_backup(path, replayed(3), 30)
    data = tmp_path / "data"
    command = ["restore", str(path), "--", *FLAGS, "--data", str(data)]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["index"], told["jobs"], told["running_jobs"]) == (30, 9, 2)
    before = sorted(data.rglob("*"))
    assert main(command) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert sorted(data.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--to-index", "5"], "need --log"),
        (["--log", "x", "--to-time", "yesterday"], "write e.g."),
        (["--log", "x", "--to-time", "2026-11-21T15:00:00"], "add the zone"),
        (["--skip-ids", "-1"], "count from 0"),
        (["--", "--bogus", "1"], "bogus"),
    ],
)
def test_wrong_arguments_are_one_line_and_make_no_folder(
    arguments: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.tar"
    write_backup(path, replayed(3), 30)
    if "--" not in arguments:
        arguments = [*arguments, "--", *FLAGS, "--data", str(tmp_path / "data")]
    assert main(["restore", str(path), *arguments]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_row_of_the_history_comes_back_as_what_the_machine_told() -> None:
    past = PastAttempt(1, 4, 5, 6, "failed", "ValueError", "no", "log")
    row = FinishedJob(
        job_id=9, index=70, status="failed", name="task", queue="q", tags=("a",), finished_ms=11,
        created_ms=1, run_at_ms=2, started_ms=3, attempt=2, failures=2, worker_id=4, payload=b"p",
        output=b"o", error_type="E", error_message="m", log="l", schedule_id="s", nominal_ms=7,
        unique_key="u", expires_at_ms=8, deadline_ms=12, attempts=(past,),
        spec=spec_bytes(JobSpec("task", "q", 7, tags=("a",))),
    )  # fmt: skip
    assert record_of(finished_of(row), 70) == row
    assert set(msgspec.structs.asdict(row).values()).isdisjoint({0, "", None})
