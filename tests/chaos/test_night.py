"""All scenarios in turn, broken off and gone on with; one verdict for all of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from chaos.live.__main__ import main
from chaos.live.judge import Fault
from chaos.live.night import Night, Slice, is_clean, verdict_of
from chaos.live.runner import NotPossibleError, Verdict
from chaos.live.scenario import Scenario


class Stage:
    """Plays nothing; `unlucky` finds a fault, `cuts` cannot be played here."""

    def __init__(self) -> None:
        self.played: list[tuple[str, int]] = []
        self.unlucky: tuple[str, int] | None = None
        self.breaks_off_at = 0

    async def play(self, scenario: Scenario, seed: int, seconds: float, place: Path) -> Verdict:
        if len(self.played) + 1 == self.breaks_off_at:
            self.breaks_off_at = 0
            raise KeyboardInterrupt
        self.played.append((scenario.name, seed))
        if scenario.name == "cuts":
            raise NotPossibleError("no wires")
        if scenario.name == "disks":
            raise TimeoutError("waited in vain for n1")
        place.mkdir(parents=True)
        verdict = Verdict(scenario.name, seed, Counter(kill_one=2), [0.5, 1.5])
        verdict.figures = {"jobs acknowledged": 100, "register operations": 10}
        if (scenario.name, seed) == self.unlucky:
            verdict.faults.append(Fault("ended once", "n1 lost job 7", "7"))
        return verdict


def night(stage: Stage, folder: Path) -> Night:
    names = ("crashes", "cuts", "stalls")
    return Night(names, 5, folder, folder / "log", slice_s=60.0, play=stage.play)


def test_scenarios_take_turns_and_rounds_have_their_seeds(tmp_path: Path) -> None:
    stage = Stage()
    told = night(stage, tmp_path).run(3)
    assert stage.played == [("crashes", 5), ("cuts", 5), ("stalls", 5), ("crashes", 6)]
    verdict = verdict_of(told)
    assert verdict.splitlines()[-1] == "CLEAN"
    assert "3 minutes, 3 runs of 2 scenarios, 6 faults: kill_one 6" in verdict
    assert "300 jobs acknowledged, 30 operations" in verdict
    assert "left out: cuts: no wires" in verdict
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_what_has_ended_before_is_not_repeated(tmp_path: Path) -> None:
    stage = Stage()
    stage.breaks_off_at = 3
    with pytest.raises(KeyboardInterrupt):
        night(stage, tmp_path).run(2)
    told = night(stage, tmp_path).run(2)
    assert stage.played == [("crashes", 5), ("cuts", 5), ("stalls", 5)]
    assert [each.scenario for each in told] == ["crashes", "cuts", "stalls"]
    assert night(stage, tmp_path).run(2) == told


def test_a_fault_decides_and_leaves_its_folder(tmp_path: Path) -> None:
    stage = Stage()
    stage.unlucky = ("stalls", 5)
    told = night(stage, tmp_path).run(3)
    verdict = verdict_of(told)
    assert verdict.splitlines()[-1] == "FAILED: 1 of 3 runs"
    assert "ended once: n1 lost job 7" in verdict
    assert (tmp_path / "stalls-5").is_dir()
    assert not (tmp_path / "crashes-6").exists()


def test_a_cluster_that_does_not_start_is_a_fault_and_the_night_goes_on(tmp_path: Path) -> None:
    told = Night(["disks", "stalls"], 1, tmp_path, tmp_path / "log", play=Stage().play).run(1)
    assert [(each.scenario, each.faults) for each in told] == [
        ("disks", ["start: waited in vain for n1"]),
        ("stalls", []),
    ]


def test_a_machine_that_can_run_nothing_comes_to_an_end(tmp_path: Path) -> None:
    told = Night(["cuts"], 1, tmp_path, tmp_path / "log", play=Stage().play).run(1)
    assert told == [Slice("cuts", 1, 0.0, "no wires")]
    assert verdict_of(told).splitlines()[-1] == "NOTHING RAN"
    assert not is_clean(told)


def test_a_night_that_was_broken_off_at_once_is_not_clean() -> None:
    assert verdict_of([]).splitlines()[-1] == "NOTHING RAN"
    assert not is_clean([])
    assert is_clean([Slice("crashes", 1, 60.0), Slice("cuts", 1, 0.0, "no wires")])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--minutes", "0"], "must be more than 0"),
        (["--scenario", "all", "--slice", "-1"], "must be more than 0"),
        (["--scenario", "all", "--mutant", "no_keys"], "--mutant is for one scenario"),
        (["--scenario", "stalls", "--log", "x"], "are for --scenario all"),
        (["--scenario", "stalls", "--slice", "9"], "are for --scenario all"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    flags: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["chaos.live", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
