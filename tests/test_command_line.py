"""The command line beyond running: version, completion, JSON in place of tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from reconstruct.__main__ import main
from reconstruct.datasets.synthetic import SyntheticDataset


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"reconstruct {version('reconstruct')}\n"


def test_the_console_script_is_this_command_line() -> None:
    script = Path(sys.executable).with_name("reconstruct")
    if not script.exists():
        pytest.skip("the package is not installed in this environment")
    found = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "COMMAND" in found.stdout


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-m", "reconstruct", "completion", "bash"]
    found = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert found.stdout is not None
    found.stdout.close()
    assert found.communicate()[1] == b""
    assert found.returncode == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_without_standard_output_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it after `>&-`
    assert main(["init", "sfm"]) == 0


def test_memory_that_does_not_suffice_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("reconstruct.command.template.commented", exhausted)
    assert main(["init", "sfm"]) == 1
    assert capsys.readouterr().err.startswith("error: out of memory; ")


def test_bash_completes_commands_and_options(command: Any, tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(command("completion", "bash").out, encoding="utf-8")
    check = (
        f"source {script}; COMP_WORDS=(reconstruct ru); COMP_CWORD=1; "
        "_shtab_reconstruct; echo ${COMPREPLY[@]}; "
        "COMP_WORDS=(reconstruct run --dev); COMP_CWORD=2; _shtab_reconstruct; echo ${COMPREPLY[@]}"
    )
    found = subprocess.run(["bash", "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["run", "--device"]


def test_json_in_place_of_tables(
    command: Any, finished: Path, chain: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    output = shutil.copytree(finished, tmp_path / "out")
    cameras = f"dataset.cameras={json.dumps(str(square.reference))}"
    given = (chain, "--images", square.images, "--output", output, "--set", cameras, "--json")
    planned = json.loads(command("plan", *given).out)
    assert {"extract": "done"}.items() <= {p["stage"]: p["state"] for p in planned}.items()
    ran = json.loads(command("run", *given).out)
    assert ran["output"] == str(output)
    assert ran["stages"]["map"]["figures"]["of_images"] == 6
    assert ran["skipped"] == {}
    errors = json.loads(command("evaluate", output, "--reference", square.reference, "--json").out)
    assert errors["registered"] == errors["reference"] == 6
