"""The directory that one stack keeps everything in, and what other processes learn from it."""

import fcntl
import json
import os
import secrets
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from embedded.errors import InUseError
from embedded.service import Component

#: A stack that was killed lets go of its lock when its warden is through.
_LOCK_SECONDS = 1.0


class StackRecord(BaseModel):
    """What runs, as of the last change; kept in `stack.json`."""

    model_config = ConfigDict(frozen=True)

    #: Of the supervisor.
    pid: int
    #: Where models are downloaded from.
    hub: str
    components: tuple[Component, ...]

    def component(self, name: str) -> Component:
        """Return a part by its name."""
        return next(component for component in self.components if component.name == name)


@dataclass(frozen=True)
class Credentials:
    """The key pair of this stack's lakeFS, the secret it encrypts with, and Redis' password."""

    access_key_id: str
    secret_access_key: str
    encryption_key: str
    redis_password: str


class DataDirectory:
    """Paths and records under one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def folder(self, name: str) -> Path:
        """Return a directory of that name, made if it is missing."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def logs(self) -> Path:
        """Where what the services print goes."""
        return self.path / "logs"

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Hold the directory for one stack; yields the descriptor that carries the lock."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a") as lock:
            deadline = time.monotonic() + _LOCK_SECONDS
            while not _locked(lock.fileno()):
                if time.monotonic() > deadline:
                    raise InUseError(self._in_use())
                time.sleep(0.05)
            try:
                yield lock.fileno()
            finally:
                self._record_path.unlink(missing_ok=True)

    def running(self) -> StackRecord | None:
        """Return what runs on the directory, if anything does."""
        try:
            with (self.path / "lock").open() as lock:
                if _locked(lock.fileno()):
                    return None
        except FileNotFoundError:
            return None
        return self._read()

    def write(self, record: StackRecord) -> None:
        """Put the record in the place of the last one; it may hold Redis' password."""
        unfinished = self._record_path.with_suffix(".new")
        write_private(unfinished, record.model_dump_json(indent=2))
        unfinished.replace(self._record_path)

    def credentials(self) -> Credentials:
        """Return the credentials of this directory; those that it lacks are made."""
        path = self.path / "credentials.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        letters = string.ascii_uppercase + string.digits
        made = {
            "access_key_id": "AKIA" + "".join(secrets.choice(letters) for _ in range(16)),
            "secret_access_key": secrets.token_urlsafe(30),
            "encryption_key": secrets.token_urlsafe(30),
            "redis_password": secrets.token_urlsafe(30),
        } | kept
        if made != kept:
            write_private(path, json.dumps(made, indent=2))
        return Credentials(**made)

    def _in_use(self) -> str:
        record = self._read()
        if record is None:
            return f"A stack runs on {self.path} already."
        api = next((part.address for part in record.components if part.name == "api"), None)
        if api is None:
            return f"`lifecycle lakefs move` works on {self.path} (process {record.pid})."
        return f"A stack runs on {self.path} already (process {record.pid}, API {api})."

    @property
    def _record_path(self) -> Path:
        return self.path / "stack.json"

    def _read(self) -> StackRecord | None:
        try:
            return StackRecord.model_validate_json(self._record_path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None


def _locked(descriptor: int) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file, in the place of another, that only its owner may read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
