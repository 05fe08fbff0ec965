"""What an API key is: a text that its holder keeps, and a record that can only recognise it."""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from shared.identity.roles import Role

#: ``lc_<id>_<secret>``: the prefix is what scanners of leaked secrets look for.
_TEXT = re.compile(r"lc_([0-9a-f]{12})_[0-9a-f]{64}")
_ID_BYTES, _SECRET_BYTES = 6, 32


class ApiKey(BaseModel):
    """A key as Redis keeps it: without its text."""

    model_config = ConfigDict(frozen=True)

    #: Part of the text, and what jobs and files carry as their submitter.
    id: str
    #: Whose it is, or what it is for.
    name: str
    role: Role
    #: SHA-256 of the text. The secret in it is random, so a slow hash would add nothing.
    digest: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    #: Within seconds of the truth, and no nearer.
    last_used_at: datetime | None = None

    def matches(self, text: str) -> bool:
        """Return whether a text is this key's, in a time that tells nothing of where it differs."""
        return hmac.compare_digest(digest_of(text), self.digest)

    def refusal(self) -> str | None:
        """Return why the key is good for nothing any longer; None if it is good."""
        if self.revoked_at is not None:
            return "was revoked"
        if self.expires_at is not None and self.expires_at <= datetime.now(UTC):
            return "has expired"
        return None


def digest_of(text: str) -> str:
    """Return what is kept of a key's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def issue(name: str, role: Role, expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """Return a fresh key and its text, which nobody can learn from the key."""
    key_id = secrets.token_hex(_ID_BYTES)
    text = f"lc_{key_id}_{secrets.token_hex(_SECRET_BYTES)}"
    key = ApiKey(
        id=key_id,
        name=name,
        role=role,
        digest=digest_of(text),
        created_at=datetime.now(UTC),
        expires_at=expires_at,
    )
    return key, text


def id_in(text: str) -> str | None:
    """Return the id in a key's text; None if the text has not the form of a key."""
    found = _TEXT.fullmatch(text)
    return found[1] if found else None
