"""A failover to a replica that lacks what the primary was told in the last second.

A replica is brought into step and cut off; a second later the primary is killed, and a Redis with
the replica's data takes its address. Connections break and are refused for a moment, as with every
failover behind one address. For a demoted primary that keeps its connections see
tests/integration/test_redis_failover.py.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from embedded.redis import redis_command
from tests.processes import free_port, running, wait_until

_SYNC_SECONDS = 30


@dataclass
class Replica:
    """A replica that has its own directory."""

    directory: Path
    client: "redis.Redis"

    def follow(self, port: int) -> float:
        """Copy a primary, and return a time before which everything it holds is here."""
        self.client.replicaof("127.0.0.1", str(port))
        wait_until(self._has_copied, _SYNC_SECONDS, "the replica has copied its primary")
        with redis.Redis(port=port) as primary:
            before = time.time()
            wanted = int(self._info(primary, "replication")["master_repl_offset"])
        wait_until(lambda: self._offset() >= wanted, _SYNC_SECONDS, "the replica is in step")
        return before

    def cut_off(self) -> None:
        """Have it follow nobody any longer."""
        self.client.replicaof("NO", "ONE")

    def _has_copied(self) -> bool:
        """Return whether all is in memory and in the file that a restart reads."""
        file = self._info(self.client, "persistence")
        return (
            self._info(self.client, "replication").get("master_link_status") == "up"
            and int(file["aof_enabled"]) == 1
            and not int(file["aof_rewrite_in_progress"])
            and not int(file["aof_rewrite_scheduled"])
        )

    def _offset(self) -> int:
        return int(self._info(self.client, "replication")["slave_repl_offset"])

    @staticmethod
    def _info(client: "redis.Redis", section: str) -> dict[str, Any]:
        return dict(client.info(section))


@contextmanager
def replica(directory: Path, env: Mapping[str, str]) -> Iterator[Replica]:
    """Run a replica for the length of a block; after it its directory has all that it had."""
    directory.mkdir()
    port = free_port()
    command, log = redis_command(port, directory), directory.with_suffix(".log")
    with running(command, port=port, log=log, env=env), redis.Redis(port=port) as client:
        yield Replica(directory, client)
