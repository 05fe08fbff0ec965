"""What can be wrong with a medium, each with the code that clients see."""

from shared.errors import InvalidInputError, NotFoundError, UnavailableError


def corrupt(detail: str, field: str) -> InvalidInputError:
    """Make the error of a medium that is empty, truncated or otherwise broken."""
    return InvalidInputError(detail, field=field, code="media_corrupt")


def encrypted(detail: str, field: str) -> InvalidInputError:
    """Make the error of a medium that takes a password to read."""
    return InvalidInputError(detail, field=field, code="media_encrypted")


def too_large(detail: str, field: str) -> InvalidInputError:
    """Make the error of a medium with more bytes, pixels, seconds or pages than are allowed."""
    return InvalidInputError(detail, field=field, code="media_too_large")


def unsupported(detail: str, field: str) -> InvalidInputError:
    """Make the error of a medium of a type that is not taken here."""
    return InvalidInputError(detail, field=field, code="media_type_unsupported")


def invalid_reference(detail: str, field: str) -> InvalidInputError:
    """Make the error of a value that names no medium."""
    return InvalidInputError(detail, field=field, code="media_reference_invalid")


def path_refused(detail: str, field: str) -> InvalidInputError:
    """Make the error of a path that requests must not name."""
    return InvalidInputError(detail, field=field, code="media_path_refused")


def url_refused(detail: str, field: str) -> InvalidInputError:
    """Make the error of a URL that the platform does not fetch from."""
    return InvalidInputError(detail, field=field, code="media_url_refused")


def url_failed(detail: str, field: str) -> InvalidInputError:
    """Make the error of a URL whose server does not give the medium."""
    return InvalidInputError(detail, field=field, code="media_url_failed")


def url_unavailable(detail: str, field: str) -> UnavailableError:
    """Make the error of a URL whose server may give the medium another time."""
    return UnavailableError(detail, field=field, code="media_url_unavailable")


def not_found(detail: str, field: str) -> NotFoundError:
    """Make the error of a medium that is not there."""
    return NotFoundError(detail, field=field, code="media_not_found")
