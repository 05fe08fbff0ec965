"""The one file in a multipart body, taken out as it comes: never whole in memory or on our disk."""

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from shared.errors import InvalidInputError

#: The name of the part that holds the file.
FIELD = "file"


class FilePart:
    """Takes a body in pieces and gives back the pieces of the file in it."""

    def __init__(self, content_type: str) -> None:
        kind, parameters = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
            raise _invalid(f"the body must be multipart/form-data with a part named {FIELD!r}")
        self._pieces: list[bytes] = []
        self._header = (b"", b"")
        self._seen = self._inside = self._ended = False
        self._parser = MultipartParser(
            parameters[b"boundary"],
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the body, and return what it holds of the file."""
        self._pieces.clear()
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _invalid(f"the body is not valid multipart/form-data: {error}") from None
        return b"".join(self._pieces)

    def finish(self) -> None:
        """Refuse a body that had no file, or that ended inside it."""
        if not self._seen:
            raise _invalid(f"the body has no part named {FIELD!r}")
        if not self._ended:
            raise _invalid("the body ends before the file does")

    def _on_part_begin(self) -> None:
        self._inside = False

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        name, value = self._header
        self._header = (name + data[start:end], value)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        name, value = self._header
        self._header = (name, value + data[start:end])

    def _on_header_end(self) -> None:
        name, value = self._header
        self._header = (b"", b"")
        if name.lower() == b"content-disposition":
            _, parameters = parse_options_header(value.decode("latin-1"))
            self._inside = parameters.get(b"name") == FIELD.encode()

    def _on_headers_finished(self) -> None:
        if not self._inside:
            raise _invalid(f"the body may have no part but one named {FIELD!r}")
        if self._seen:
            raise _invalid("the body has more than one file")
        self._seen = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def _invalid(detail: str) -> InvalidInputError:
    return InvalidInputError(detail, field=FIELD)
