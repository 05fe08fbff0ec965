"""lakeFS' program is found in three places, and brought by the ``lakefs`` package."""

import sys
from pathlib import Path

import pytest

from embedded.data_directory import DataDirectory
from embedded.errors import InstallError
from embedded.lakefs_program import find_lakefs, install_lakefs
from embedded.service import Service
from embedded.stores import lakefs
from tests.lakefs_program import write_lakefs

PORT = 8123


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without lakeFS."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    (tmp_path / "data").mkdir()
    return tmp_path


def started(data: Path) -> Service:
    return lakefs(DataDirectory(data), PORT)


@pytest.mark.parametrize("place", ["path", "environment/bin", "home/.lakefs/bin"])
def test_the_stack_starts_lakefs_itself_where_it_is_installed(home: Path, place: str) -> None:
    program = write_lakefs(home / place)

    service = started(home / "data")

    assert service.command == (str(program), "run")
    assert (service.component.note, service.component.data) == (
        "real",
        str(home / "data" / "lakefs-server"),
    )
    keys = DataDirectory(home / "data").credentials()
    assert service.env["LAKEFS_INSTALLATION_SECRET_ACCESS_KEY"] == keys.secret_access_key
    assert service.env["LAKEFS_LISTEN_ADDRESS"] == f"127.0.0.1:{PORT}"
    assert service.env["LAKEFS_STATS_ENABLED"] == "false"
    kept = [value for name, value in service.env.items() if name.endswith(("_PATH", "_DIR"))]
    assert all(value.startswith(str(home / "data" / "lakefs-server")) for value in kept)
    assert len(kept) == 3


def test_the_embedded_server_starts_where_lakefs_is_not_installed(home: Path) -> None:
    assert find_lakefs() is None
    assert started(home / "data").component.note == "embedded"


def test_the_embedded_server_goes_on_with_its_data(home: Path) -> None:
    write_lakefs(home / "path")
    (home / "data" / "lakefs" / "blobs").mkdir(parents=True)

    assert started(home / "data").component.note == "embedded"


def test_data_of_lakefs_are_not_given_to_the_embedded_server(home: Path) -> None:
    program = write_lakefs(home / "path")
    started(home / "data")
    program.unlink()

    with pytest.raises(InstallError, match="lifecycle lakefs install"):
        started(home / "data")


def fake_package(folder: Path, script: str) -> None:
    """Write a package ``lakefs`` whose downloader is a script."""
    download = folder / "lakefs" / "download"
    download.mkdir(parents=True)
    (folder / "lakefs" / "__init__.py").touch()
    (download / "__init__.py").touch()
    (download / "__main__.py").write_text(script)


def test_install_runs_the_downloader_of_the_package(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = home / "home" / ".lakefs" / "bin"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.lakefs_program import write_lakefs\n"
        "assert sys.argv[1:] == ['1.83.0']\n"
        f"write_lakefs(Path({str(target)!r}))\n"
    )
    fake_package(home / "packages", script)
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{home / 'packages'}:{root}")

    program, version = install_lakefs("1.83.0")

    assert program == str(target / "lakefs")
    assert version == "lakeFS version: 0.0.0-test"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise RuntimeError('Error downloading file: <urlopen error no route>')", "no route"),
        ("import sys; sys.exit(3)", "exit status 3"),
        ("", "left no program"),
    ],
    ids=["no network", "fails without a word", "brings nothing"],
)
def test_an_installation_that_fails_says_why_and_what_else_can_be_done(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    fake_package(home / "packages", script)
    monkeypatch.setenv("PYTHONPATH", str(home / "packages"))

    with pytest.raises(InstallError) as caught:
        install_lakefs()

    assert reason in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "https://github.com/treeverse/lakeFS/releases" in str(caught.value)


def test_a_program_that_does_not_run_is_not_an_installation(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = write_lakefs(home / "path")
    broken.write_bytes(b"half of a program")
    fake_package(home / "packages", "")
    monkeypatch.setenv("PYTHONPATH", str(home / "packages"))

    with pytest.raises(InstallError, match="does not run"):
        install_lakefs()
