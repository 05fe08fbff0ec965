"""How a request names a medium: a file's id, a ``data:`` URI, a URL or a path."""

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from shared.media.errors import corrupt, invalid_reference, too_large, url_refused

#: The id of an uploaded file: a time-ordered UUID (version 7) in hex.
FILE_ID = re.compile(r"file-[0-9a-f]{32}")
#: Longer ones are no URL or path that anybody has.
_MAX_CHARACTERS = 8192
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
#: What an error repeats of a value.
SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class FileReference:
    """A file of ``POST /files``."""

    file_id: str


@dataclass(frozen=True)
class DataReference:
    """A ``data:`` URI; what type it says it is, is not believed."""

    uri: str

    def decode(self, max_bytes: int, field: str) -> bytes:
        """Return the bytes that it holds."""
        header, comma, body = self.uri.partition(",")
        if not comma:
            raise corrupt("the data: URI has no comma, and so no data", field)
        is_base64 = header.lower().endswith(";base64")
        # Escapes take three characters for a byte, and base64 four for three.
        if len(body) // 3 - 2 > max_bytes:
            raise too_large(f"the data: URI holds more than {max_bytes} bytes", field)
        content = unquote_to_bytes(body)
        if is_base64:
            try:
                content = b64decode(content, validate=True)
            except binascii.Error as error:
                raise corrupt(f"the data: URI is not valid base64: {error}", field) from None
        if len(content) > max_bytes:
            raise too_large(f"the data: URI holds more than {max_bytes} bytes", field)
        return content


@dataclass(frozen=True)
class UrlReference:
    """An http or https URL."""

    url: str


@dataclass(frozen=True)
class PathReference:
    """A path, which must lie under a media root."""

    path: str


Reference = FileReference | DataReference | UrlReference | PathReference


def parse_reference(value: object, field: str) -> Reference:
    """Return what a value names, by its form alone."""
    if not isinstance(value, str) or not value:
        raise invalid_reference(
            f"{field} must be a file_id, a data: URI, an http(s) URL or a path", field
        )
    if value[:5].lower() == "data:":
        return DataReference(value)
    if len(value) > _MAX_CHARACTERS or not value.isprintable():
        raise invalid_reference(f"{field} is no file_id, data: URI, http(s) URL or path", field)
    if FILE_ID.fullmatch(value):
        return FileReference(value)
    if scheme := _SCHEME.match(value):
        if scheme[1].lower() not in {"http", "https"}:
            raise url_refused(f"URLs of the scheme {scheme[1]!r} are not fetched", field)
        return UrlReference(_checked(value, field))
    return PathReference(value)


def _checked(url: str, field: str) -> str:
    """Refuse a URL without a host, and one with a password, which would be kept with the job."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise url_refused(f"{url[:SHOWN_CHARACTERS]!r} is not a valid URL", field) from None
    if not host:
        raise url_refused("the URL names no host", field)
    if "@" in parts.netloc:
        raise url_refused("URLs with a user or a password are not fetched", field)
    return url
