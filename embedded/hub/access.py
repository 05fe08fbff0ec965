"""Who may see a model, and who may fetch its files."""

import hmac
from enum import Enum, auto

from embedded.hub.errors import (
    GatedRepoError,
    InvalidTokenError,
    RepoNotFoundError,
    UnauthorizedError,
)
from embedded.hub.records import Repo
from embedded.hub.repository import ModelStore


class Visitor(Enum):
    """What a request has shown of itself."""

    ANONYMOUS = auto()
    MEMBER = auto()


class Door:
    """Opens models to visitors; its one token, where there is one, opens all of them."""

    def __init__(self, store: ModelStore, token: str | None) -> None:
        self._store = store
        self._token = token

    def identify(self, authorization: str | None) -> Visitor:
        """Read the Authorization header; a hub without a token takes everybody as anonymous."""
        if authorization is None or self._token is None:
            return Visitor.ANONYMOUS
        if hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode()):
            return Visitor.MEMBER
        raise InvalidTokenError

    def see(self, model_id: str, visitor: Visitor) -> Repo:
        """Return a model that the visitor may know of."""
        try:
            repo = self._store.repo(model_id)
        except RepoNotFoundError:
            if visitor is Visitor.ANONYMOUS:
                raise UnauthorizedError from None
            raise
        if repo.private and visitor is Visitor.ANONYMOUS:
            raise UnauthorizedError
        return repo

    def enter(self, model_id: str, visitor: Visitor) -> Repo:
        """Return a model whose files the visitor may fetch."""
        repo = self.see(model_id, visitor)
        if repo.gated and visitor is Visitor.ANONYMOUS:
            raise GatedRepoError(model_id)
        return repo
