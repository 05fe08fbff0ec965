"""Whether the server is set up: its only user and the key pair, from its start or from a call."""

from functools import cached_property

from embedded.lakefs.auth import Credentials
from embedded.lakefs.database import Database
from embedded.lakefs.errors import ConflictError

#: The user whom the key pair of the start belongs to.
DEFAULT_USERNAME = "admin"


class Installation:
    """Who may come in; nobody before the setup."""

    def __init__(self, database: Database, credentials: Credentials | None) -> None:
        """Take the key pair of the start; without one, that of a setup counts."""
        self._database = database
        self._credentials = credentials

    @property
    def credentials(self) -> Credentials | None:
        """The key pair that lets in; None before the setup."""
        if self._credentials is None:
            with self._database.transaction() as tx:
                row = tx.one("SELECT access_key_id, secret_access_key FROM installation")
            self._credentials = Credentials(*row) if row else None
        return self._credentials

    @cached_property
    def username(self) -> str:
        """The user whom the key pair belongs to; the committer of every commit."""
        with self._database.transaction() as tx:
            row = tx.one("SELECT username FROM installation")
        return row["username"] if row else DEFAULT_USERNAME

    def set_up(self, username: str, credentials: Credentials) -> None:
        """Let this key pair in from now on; only the first call does."""
        if self.credentials is None:
            keys = (credentials.access_key_id, credentials.secret_access_key)
            with self._database.transaction() as tx:
                if tx.run(
                    "INSERT OR IGNORE INTO installation VALUES (1, ?, ?, ?)", *keys, username
                ):
                    return
        raise ConflictError("lakeFS already initialized")
