"""A worker in a container counts the container's memory, not the host's."""

from pathlib import Path

import psutil
import pytest

from shared.settings import MIB
from workers.inference import host_memory


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups as the kernel shows them; the process is in ``/a/b``."""
    monkeypatch.setattr(host_memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(host_memory, "_OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text("1:name=systemd:/x\n0::/a/b\n")
    (tmp_path / "groups/a/b").mkdir(parents=True)
    return tmp_path / "groups"


def _group(path: Path, limit: str, current: int = 0, inactive_file: int = 0) -> None:
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text(f"{current}\n")
    (path / "memory.stat").write_text(f"anon 1\ninactive_file {inactive_file}\n")


def test_without_a_limit_it_is_the_hosts(groups: Path) -> None:
    _group(groups / "a/b", "max")
    assert host_memory.total_bytes() == psutil.virtual_memory().total
    assert host_memory.available_bytes() > 0


def test_without_control_groups_it_is_the_hosts(groups: Path) -> None:
    host_memory._OWN_GROUP.unlink()
    assert host_memory.total_bytes() == psutil.virtual_memory().total


def test_the_limit_of_a_group_counts_and_files_in_memory_are_free(groups: Path) -> None:
    _group(groups / "a/b", str(100 * MIB), current=80 * MIB, inactive_file=50 * MIB)
    assert host_memory.total_bytes() == 100 * MIB
    assert host_memory.available_bytes() == 70 * MIB


def test_the_least_limit_on_the_way_to_the_root_counts(groups: Path) -> None:
    _group(groups / "a/b", str(100 * MIB), current=10 * MIB)
    _group(groups / "a", str(60 * MIB), current=50 * MIB)
    assert host_memory.total_bytes() == 60 * MIB
    assert host_memory.available_bytes() == 10 * MIB


def test_a_group_over_its_limit_has_nothing_left(groups: Path) -> None:
    _group(groups / "a/b", str(10 * MIB), current=11 * MIB)
    assert host_memory.available_bytes() == 0
