"""Texts without credentials: what logs, errors and their readers may see."""

import re
from urllib.parse import quote

#: A word of a text, which may be quoted as JSON.
_WORD = r"[^\s&\"'\\<>]+"
#: Parameters of queries that are credentials: presigned links of S3, GCS and Azure, and tokens.
_PARAMETERS = (
    "x-(?:amz|goog)-(?:signature|credential|security-token)"
    "|signature|sig|awsaccesskeyid|googleaccessid"
    "|(?:access_|api_?)?(?:token|key)|password|secret"
)
#: What a credential looks like in a text; the group is kept.
_CREDENTIALS = tuple(
    (signs, re.compile(pattern, re.IGNORECASE))
    for signs, pattern in (
        # user:password@ in a URL
        (("@",), r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#\"'\\<>]+(?=@)"),
        (("=",), rf"([?&;](?:{_PARAMETERS})=){_WORD}"),
        (("bearer", "basic"), r"(\b(?:bearer|basic) +)[a-z0-9._~+/=-]{8,}"),
        # tokens of the hub, keys of ours
        (("hf_", "lc_"), r"(\b(?:hf_|lc_[0-9a-f]{12}_))[a-z0-9]{16,}"),
    )
)
#: Shorter ones may be words of any text.
_LEAST_CHARACTERS = 8
#: The secrets of this process' settings, longest first.
_known: tuple[str, ...] = ()


def keep_secret(value: str) -> None:
    """Take a secret out of every text from now on, whatever the text says around it."""
    global _known  # noqa: PLW0603 - a secret of the process, whoever reads it
    if len(value) >= _LEAST_CHARACTERS:
        _known = tuple(sorted({*_known, value, quote(value, safe="")}, key=len, reverse=True))


def redacted(text: str) -> str:
    """Return a text without the credentials in it."""
    for secret in _known:
        text = text.replace(secret, "***")
    lowered = text.lower()
    for signs, pattern in _CREDENTIALS:
        if any(sign in lowered for sign in signs):
            text = pattern.sub(r"\1***", text)
    return text
