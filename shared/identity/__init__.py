"""Who may call the front: API keys, kept in Redis beside the ledger, and how often each may."""

from shared.identity.keys import ApiKey, Role, digest_of
from shared.identity.rates import RateLimit
from shared.identity.store import KeyStore

__all__ = ["ApiKey", "KeyStore", "RateLimit", "Role", "digest_of"]
