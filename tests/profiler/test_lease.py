"""Locked clocks come free again: at the end, after an error, after SIGKILL."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from domain.complaint import Complaint
from domain.store import load, save
from profiler.lease import Clocks, Lease, leases_folder, restore_abandoned, start_of
from profiler.presence import Choice, Gpu
from tests.profiler.conftest import ROOT, FakeDriver

BASE = 0xFFFFFF01  # NVML_CLOCK_LIMIT_ID_TDP
LOCK = """
import sys
from profiler.lease import Clocks, restore_abandoned
from profiler.presence import Choice, Gpu
choice = Choice(kind="cuda", gpu=Gpu(index=0, name="A100", uuid="GPU-1234"))

def run(wanted, then):
    try:
        with Clocks(wanted, lambda text: print("said", text)) as clocks:
            print("locked", clocks.lock(choice))
            then()
    except Exception as error:
        print(type(error).__name__, error)
"""
NOTHING = "run('{}', lambda: None)"
HANG = "run('max', lambda: (print('ready', flush=True), sys.stdin.read()))"
RESTORE = "print(*restore_abandoned(), sep='\\n')"


def lease_file(driver: FakeDriver) -> Path:
    return driver.state.parent / "state" / "morsizer" / "clocks-GPU-1234.json"


@pytest.mark.parametrize(
    ("wanted", "megahertz"), [("base", BASE), ("max", 1980), ("1200", 1200), (" MAX ", 1980)]
)
def test_clocks_are_locked_and_unlocked_in_that_order(
    driver: FakeDriver, wanted: str, megahertz: int
) -> None:
    driver.python(LOCK + NOTHING.format(wanted))
    assert driver.told == [f"lock {megahertz} {megahertz}", "unlock 0 0"]
    assert not lease_file(driver).exists()


def test_by_default_nothing_is_touched(driver: FakeDriver) -> None:
    assert driver.python(LOCK + NOTHING.format("")).strip() == "locked"
    assert driver.told == []


def test_an_error_while_measuring_unlocks(driver: FakeDriver) -> None:
    said = driver.python(LOCK + "run('max', lambda: 1 / 0)")
    assert "ZeroDivisionError" in said
    assert driver.told[-1] == "unlock 0 0"


def test_an_exit_that_skips_the_block_unlocks(driver: FakeDriver) -> None:
    driver.python(LOCK + "Clocks('max').lock(choice)")
    assert driver.told == ["lock 1980 1980", "unlock 0 0"]


def test_without_permission_one_sentence_says_what_to_do(driver: FakeDriver) -> None:
    driver.say(**{"fail nvmlDeviceSetGpuLockedClocks": "4"})
    said = driver.python(LOCK + NOTHING.format("base")).splitlines()
    assert said[-1].startswith(
        "Complaint cannot lock the clocks of A100: the driver lets only root"
    )
    assert not lease_file(driver).exists()


def test_more_than_the_board_has_is_refused_before_anything_is_locked(driver: FakeDriver) -> None:
    assert "wanted at most 1980 MHz, got 2500" in driver.python(LOCK + NOTHING.format("2500"))
    assert "lock 2500 2500" not in driver.told


def killed_while_locked(driver: FakeDriver) -> int:
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK + HANG], env=driver.environment(), cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    while process.stdout.readline().strip() != "ready":
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stdin.close()
    return process.pid


def test_a_killed_run_leaves_a_lease_and_the_next_one_unlocks(driver: FakeDriver) -> None:
    pid = killed_while_locked(driver)
    assert driver.told == ["lock 1980 1980"]
    lease = load(lease_file(driver), Lease)
    assert (lease.pid, lease.clocks) == (pid, "max")
    said = driver.python(LOCK + NOTHING.format("base")).splitlines()
    assert said == [
        f"said unlocked the clocks of GPU-1234, which process {pid} had locked (max) and left",
        "locked base",
    ]
    assert driver.told[1:] == ["unlock 0 0", f"lock {BASE} {BASE}", "unlock 0 0"]


def test_repair_unlocks_once(driver: FakeDriver) -> None:
    killed_while_locked(driver)
    assert driver.python(LOCK + RESTORE).startswith("unlocked the clocks of GPU-1234")
    assert driver.python(LOCK + RESTORE).strip() == ""


def test_a_lease_that_cannot_be_restored_stays_and_says_what_to_do(driver: FakeDriver) -> None:
    killed_while_locked(driver)
    driver.say(**{"fail nvmlDeviceResetGpuLockedClocks": "4"})
    said = driver.python(LOCK + RESTORE)
    assert "only root" in said
    assert "sudo nvidia-smi -i GPU-1234 -rgc" in said
    assert lease_file(driver).exists()


def leased(folder: Path, process_start: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "clocks-GPU-1234.json"
    lease = Lease(pid=os.getpid(), process_start=process_start, uuid="GPU-1234", clocks="max")
    save(lease, path)
    return path


GPU = Choice(kind="cuda", gpu=Gpu(index=0, name="A100", uuid="GPU-1234"))


def test_a_process_that_lives_keeps_its_lease_and_a_second_is_refused(tmp_path: Path) -> None:
    path = leased(tmp_path, start_of(os.getpid()))
    assert restore_abandoned(tmp_path) == []
    with (
        Clocks("base", folder=tmp_path) as clocks,
        pytest.raises(Complaint, match=f"process {os.getpid()} holds the clocks"),
    ):
        clocks.lock(GPU)
    assert path.exists()


def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    leased(tmp_path, "another-boot:1")
    [said] = restore_abandoned(tmp_path)
    assert said.startswith("cannot unlock the clocks of GPU-1234, which process")


def test_a_lease_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    leased(tmp_path, "x").write_text(json.dumps({"pid": -1}))
    [said] = restore_abandoned(tmp_path)
    assert "nvidia-smi -rgc" in said


def test_a_cpu_has_no_clocks_to_lock(tmp_path: Path) -> None:
    with pytest.raises(Complaint, match="wants a GPU"), Clocks("max", folder=tmp_path) as clocks:
        clocks.lock(Choice(kind="cpu"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wanted", ["fast", "-5", "0", "1e3", "99999", "1410.5", "٣"])
def test_what_is_no_clock_is_refused(wanted: str) -> None:
    with pytest.raises(Complaint, match="base, max or a number of MHz"):
        Clocks(wanted)


def test_leases_lie_in_the_state_folder_or_with_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert leases_folder() == tmp_path / "morsizer"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setenv("MORSIZER_RESULTS", str(tmp_path / "results"))
    assert leases_folder() == tmp_path / "results"


def test_a_process_that_is_no_more_has_no_start(tmp_path: Path) -> None:
    assert start_of(os.getpid()) != ""
    assert start_of(os.getpid(), tmp_path) == ""
