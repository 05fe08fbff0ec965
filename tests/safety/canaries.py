"""Secrets that are like no other text, and the search for them everywhere."""

import sqlite3
import uuid
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import redis


@dataclass(frozen=True)
class Canary:
    """One secret, in every form in which it could be written."""

    name: str
    #: Whose password it is, where it travels as HTTP's basic authentication.
    user: str = ""
    #: With a letter that URLs and base64 write in another way.
    value: str = field(default_factory=lambda: f"canary+{uuid.uuid4().hex}")

    @property
    def forms(self) -> tuple[bytes, ...]:
        """Return what to look for."""
        basic = b64encode(f"{self.user}:{self.value}".encode())
        return self.value.encode(), quote(self.value).encode(), basic


class Search:
    """Looks for canaries in one place after the other, and remembers where they were."""

    def __init__(self, canaries: Iterable[Canary]) -> None:
        self._canaries = tuple(canaries)
        #: Place and name of the canary, for each appearance.
        self.found: list[tuple[str, str]] = []
        #: How much was looked at.
        self.places = 0
        self.bytes = 0

    def look(self, place: str, content: str | bytes) -> None:
        """Search a text."""
        data = content.encode() if isinstance(content, str) else content
        self.places += 1
        self.bytes += len(data)
        for canary in self._canaries:
            if any(form in data for form in canary.forms):
                self.found.append((place, canary.name))

    def look_at_files(self, place: str, directory: Path, pattern: str = "**/*") -> None:
        """Search files, byte by byte."""
        for path in sorted(directory.glob(pattern)):
            if path.is_file():
                self.look(f"{place} {path.relative_to(directory)}", path.read_bytes())

    def look_at_redis(self, client: "redis.Redis") -> None:
        """Search every key of every type."""
        for name, value in redis_values(client):
            self.look(f"redis {name!r}", f"{name} {value!r}")

    def look_at_command_lines(self) -> None:
        """Search the arguments of every process that can be seen here."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (process / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
            self.look(f"process {process.name}", arguments)

    def look_at_sqlite(self, place: str, database: Path) -> None:
        """Search all rows of all tables."""
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            dump = "\n".join(connection.iterdump())
        finally:
            connection.close()
        self.look(place, dump)


def redis_values(client: "redis.Redis") -> Iterator[tuple[str, object]]:
    """Yield each key of a Redis with all that it holds; the client decodes."""
    for key in client.scan_iter(count=1000):
        match client.type(key):
            case "string":
                yield key, client.get(key)
            case "hash":
                yield key, client.hgetall(key)
            case "list":
                yield key, client.lrange(key, 0, -1)
            case "set":
                yield key, client.smembers(key)
            case "zset":
                yield key, client.zrange(key, 0, -1, withscores=True)
            case "stream":
                yield key, client.xrange(key)
            case "none":  # it has expired meanwhile
                pass
            case kind:
                raise AssertionError(f"a type that is not searched: {kind!r}")
