"""Several runners on one results folder, and runners that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_studies import calls, changed, run, stub_programs, tiny_study, write_study

from tse_ser.evaluation import experiment, guard, records
from tse_ser.evaluation.claims import Claims
from tse_ser.evaluation.study import StudyError

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    return tiny_study(tmp_path)


@pytest.fixture(autouse=True)
def quick_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub_programs(monkeypatch, tmp_path)


def start(study: Path, output_dir: Path, *more: str) -> Any:
    """A runner in a process of its own."""
    command = ["--study", str(study), "--output_dir", str(output_dir), *more]
    process = FORK.Process(target=experiment.main, args=(command,))
    process.start()
    return process


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.01)


def held_elsewhere(output_dir: Path, key: str) -> Path:
    """The claim of a runner on another machine."""
    claims = Claims(output_dir, stale_minutes=10)
    claim = claims.take(key)
    assert claim is not None
    content = {**claim.content, "machine": "another one", "host": "node7"}
    records.write_json(claim.path, content)
    claims.close()
    return claim.path


def test_three_runners_share_a_study_and_take_nothing_twice(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "sleep": 0.1})
    study, out = changed(study_file, seeds=[0, 1]), tmp_path / "out"
    score = experiment.evaluate_checkpoint

    def counted(labels: dict[str, Any], output: str, **arguments: Any) -> Any:
        with (tmp_path / "scored.txt").open("a") as file:
            file.write(f"{Path(output).name} {os.getpid()}\n")
        return score(labels, output=output, **arguments)

    monkeypatch.setattr(experiment, "evaluate_checkpoint", counted)
    runners = [start(study, out) for _ in range(3)]
    for runner in runners:
        runner.join(timeout=60)

    assert [runner.exitcode for runner in runners] == [0, 0, 0]
    assert len(calls(out)) == 8 and set(calls(out).values()) == {1}
    scored = [line.split()[0] for line in (tmp_path / "scored.txt").read_text().splitlines()]
    assert Counter(scored) == {path.name: 1 for path in (out / "cells").glob("*.json")}
    holders = {records.read_json(path)["pid"] for path in (out / "claims").glob("fold*.json")}
    assert len(holders) > 1  # or nothing was shared
    run(study, tmp_path / "alone")
    alone = (tmp_path / "alone/tables.md").read_text()
    assert (out / "tables.md").read_text().replace(str(out), "") == alone.replace(
        str(tmp_path / "alone"), ""
    )


def test_of_many_that_try_one_gets_a_claim(tmp_path: Path) -> None:
    runners = [Claims(tmp_path, stale_minutes=10) for _ in range(8)]
    barrier = threading.Barrier(len(runners))
    taken: list[str] = []

    def take_all(claims: Claims) -> None:
        barrier.wait()
        taken.extend(key for key in map(str, range(40)) if claims.take(key))

    threads = [threading.Thread(target=take_all, args=(claims,)) for claims in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(map(str, range(40)))


def test_a_claim_passes_on_when_it_is_released_or_not_renewed(tmp_path: Path) -> None:
    mine, other = Claims(tmp_path, stale_minutes=10), Claims(tmp_path, stale_minutes=10)
    claim = mine.take("fold1_seed0/first")
    assert claim is not None
    assert other.take("fold1_seed0/first") is None
    mine.say(claim, "released")
    second = other.take("fold1_seed0/first")
    assert second is not None and second.number == 2
    assert mine.take("fold1_seed0/first") is None and mine.is_lost(claim)

    path = held_elsewhere(tmp_path, "far")
    assert mine.take("far") is None
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    assert mine.take("far") is not None
    assert other.take("far") is None


def test_a_claim_of_a_process_that_is_gone_is_free_at_once(tmp_path: Path) -> None:
    process = FORK.Process(target=lambda: Claims(tmp_path, stale_minutes=10).take("first"))
    process.start()
    process.join()
    claims = Claims(tmp_path, stale_minutes=10)
    last = claims.current("first")
    assert last is not None and last.content["state"] == "held"
    assert claims.take("first") is not None


def test_a_claim_that_was_cut_off_while_written_is_held_until_it_is_stale(tmp_path: Path) -> None:
    claims = Claims(tmp_path, stale_minutes=10)
    (tmp_path / "claims/first.1.json").write_text("")
    assert claims.take("first") is None
    os.utime(tmp_path / "claims/first.1.json", (1.0, 1.0))
    assert claims.take("first") is not None


def test_a_runner_waits_for_what_another_one_holds_or_stops(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    path = held_elsewhere(out, "fold1_seed0/first")

    run(study_file, out, "--no_wait")

    printed = capsys.readouterr().out
    assert "Other runners hold all that can be done now: fold1_seed0/first (process" in printed
    assert "on node7). Stopping." in printed
    assert set(calls(out)) == {"fold2_seed0/first", "fold2_seed0/second"}

    content = records.read_json(path)
    release = threading.Timer(
        0.3, lambda: records.write_json(path, {**content, "state": "released"})
    )
    release.start()
    run(study_file, out)
    assert "Waiting for other runners: fold1_seed0/first" in capsys.readouterr().out
    assert len(calls(out)) == 4 and set(calls(out).values()) == {1}


def test_a_training_that_was_taken_over_is_stopped(study_file: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "sleep": 30})
    out = tmp_path / "out"
    runner = start(study_file, out, "--folds", "1", "--no_wait")
    wait_for(out / "steps/fold1_seed0/first/calls.txt")
    content = records.read_json(out / "claims/fold1_seed0-first.1.json")
    os.kill(runner.pid, signal.SIGSTOP)  # for minutes, say
    assert guard.marked_processes(content["runner"])
    records.write_json(
        out / "claims/fold1_seed0-first.2.json", {**content, "machine": "another one"}
    )
    os.kill(runner.pid, signal.SIGCONT)
    runner.join(timeout=30)

    assert runner.exitcode == 0
    assert not guard.marked_processes(content["runner"])
    assert records.read_json(out / "claims/fold1_seed0-first.1.json")["state"] == "held"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_killed_runner_started_ends_with_it(
    study_file: Path, tmp_path: Path, how: int
) -> None:
    steps = yaml.safe_load(study_file.read_text())["steps"]
    steps[1]["arguments"]["sleep"] = 20
    study, out = changed(study_file, steps=steps), tmp_path / "out"
    runner = start(study, out, "--folds", "1")
    marker = out / "steps/fold1_seed0/second/calls.txt"
    wait_for(marker)
    os.kill(runner.pid, how)
    runner.join(timeout=30)
    assert runner.exitcode != 0
    name = records.read_json(out / "claims/fold1_seed0-second.1.json")["runner"]
    deadline = time.monotonic() + 10
    while guard.marked_processes(name) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not guard.marked_processes(name)
    assert not (out / "cells").exists()
    assert not (marker.parent / "model.txt").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_was_killed_anywhere_gives_the_same_tables(
    study_file: Path, tmp_path: Path, how: int
) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "sleep": 0.1})
    study, out = changed(study_file, folds=[1]), tmp_path / "out"
    run(study, out)
    whole = (out / "tables.md").read_text()
    marks = ["steps/fold1_seed0/first", "steps/fold1_seed0/first/calls.txt"]
    marks += ["logs/second_fold1_seed0.log", "cells", "tables.md"]
    for mark in marks:
        out.rename(tmp_path / f"before {mark.replace('/', ' ')}")
        runner = start(study, out)
        wait_for(out / mark)
        os.kill(runner.pid, how)
        runner.join(timeout=30)

        run(study, out)
        assert (out / "tables.md").read_text() == whole, mark
        assert max(calls(out).values()) <= 2


def test_what_does_not_build_on_a_failed_step_is_still_run(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = yaml.safe_load(study_file.read_text())
    failing = {"name": "failing", "train": study["steps"][0]["train"], "arguments": {"fail": True}}
    above = {**failing, "name": "above", "arguments": {"extractor": "{failing}"}}
    cells = [*study["cells"], {"name": "lost", "arguments": {"model": "{above}"}}]
    steps = [failing, above, *study["steps"]]
    wrong = changed(study_file, steps=steps, cells=cells, folds=[1])

    with pytest.raises(StudyError) as error:
        run(wrong, tmp_path / "out")

    assert "the loss is no number" in str(error.value)
    assert "failed: fold1_seed0/failing\n" in str(error.value)
    assert "not run, as they build on that: fold1_seed0/above, cells/lost_fold1_seed0" in str(
        error.value
    )
    assert calls(tmp_path / "out")["fold1_seed0/second"] == 1
    assert (tmp_path / "out/cells/cell_fold1_seed0.json").exists()
    assert (tmp_path / "out/tables.md").exists()
    with pytest.raises(SystemExit, match="failed: fold1_seed0/failing"):
        experiment.main(["--study", str(wrong), "--output_dir", str(tmp_path / "out")])


def test_a_cell_that_fails_stops_no_other_and_leaves_its_trace(
    study_file: Path, tmp_path: Path
) -> None:
    cells = yaml.safe_load(study_file.read_text())["cells"]
    cells.insert(0, {"name": "broken", "arguments": {"model": "nowhere"}})

    with pytest.raises(StudyError, match="cells/broken_fold1_seed0: AssertionError"):
        run(changed(study_file, cells=cells), tmp_path / "out", "--folds", "1")

    assert "Traceback" in (tmp_path / "out/logs/broken_fold1_seed0.log").read_text()
    assert (tmp_path / "out/cells/cell_fold1_seed0.json").exists()


def test_a_step_that_failed_with_another_runner_is_not_tried_again_by_this_one(
    study_file: Path, tmp_path: Path
) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "fail": True, "sleep": 0.5})
    out = tmp_path / "out"
    runners = [start(study_file, out, "--folds", "1") for _ in range(2)]
    for runner in runners:
        runner.join(timeout=60)

    assert [runner.exitcode for runner in runners] == [1, 1]
    assert calls(out) == {"fold1_seed0/first": 1}
    # Later it may have been repaired.
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction"})
    run(study_file, out, "--folds", "1")
    assert (out / "cells/cell_fold1_seed0.json").exists()


def test_the_guard_ends_what_carries_its_mark_and_nothing_else() -> None:
    program = [sys.executable, "-c", "import time; time.sleep(60)"]
    marked, free = (
        subprocess.Popen(program, env={**os.environ, guard.VARIABLE: name}, start_new_session=True)
        for name in ("mark-1", "mark-10")
    )
    try:
        subprocess.run([sys.executable, "-I", "-S", guard.__file__, "mark-1"], input=b"")
        assert marked.wait(timeout=10) == -signal.SIGTERM
        assert free.poll() is None
    finally:
        for process in (marked, free):
            process.kill()
            process.wait()


def test_a_second_machine_takes_part_in_each_step_and_leads_none(
    study_file: Path, tmp_path: Path
) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "sleep": 0.5})
    config = tmp_path / "accelerate.yaml"
    config.write_text("num_processes: 2\nnum_machines: 2\nmachine_rank: 0\n")
    out, more = tmp_path / "out", ("--folds", "1", "--accelerate_config", str(config))
    second = start(study_file, out, *more, "--machine_rank", "1")
    first = start(study_file, out, *more)
    for runner in (first, second):
        runner.join(timeout=60)

    assert (first.exitcode, second.exitcode) == (0, 0)
    assert calls(out) == {"fold1_seed0/first": 2, "fold1_seed0/second": 2}
    assert {path.name for path in (out / "logs").glob("*.machine1.log")} == {
        "first_fold1_seed0.machine1.log",
        "second_fold1_seed0.machine1.log",
    }
    holders = {records.read_json(path)["pid"] for path in (out / "claims").glob("*.json")}
    assert holders == {first.pid}


def test_a_second_machine_does_not_run_beside_one_that_works_alone(
    study_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "sleep": 0.5})
    second = start(study_file, tmp_path / "out", "--machine_rank", "1")
    first = start(study_file, tmp_path / "out")
    for runner in (first, second):
        runner.join(timeout=60)

    assert (first.exitcode, second.exitcode) == (0, 1)
    assert "alone: give that runner the same accelerate config" in capfd.readouterr().err
    assert set(calls(tmp_path / "out").values()) == {1}
