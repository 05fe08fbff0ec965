"""What the hub refuses, with the status and the headers that the real hub refuses it with.

HubError
├── InvalidNameError        400
├── UnauthorizedError       401  X-Error-Code: RepoNotFound; anonymous, private or missing
├── InvalidTokenError       401  the token is not the server's
├── GatedRepoError          401  X-Error-Code: GatedRepo
├── LinkRefusedError        403  a CDN link that is forged or too old
├── RepoNotFoundError       404  X-Error-Code: RepoNotFound
├── RevisionNotFoundError   404  X-Error-Code: RevisionNotFound
├── EntryNotFoundError      404  X-Error-Code: EntryNotFound
└── RangeError              416
PublishError                what cannot become a revision
"""

from typing import ClassVar


class PublishError(ValueError):
    """The directory or the revision's name cannot be published."""


class HubError(Exception):
    """A refusal that becomes an HTTP answer."""

    status: ClassVar[int] = 500
    code: ClassVar[str | None] = None

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}


class InvalidNameError(HubError):
    """A model id, revision or path that is no legal name."""

    status = 400


class UnauthorizedError(HubError):
    """The hub does not tell the anonymous a private model from a missing one.

    The real one sends no X-Error-Code here: its client goes by the address, but only by an https
    one (`REPO_API_REGEX` in huggingface_hub 2.4). Over plain http the code must say it.
    """

    status = 401
    code = "RepoNotFound"

    def __init__(self) -> None:
        challenge = 'Bearer realm="Authentication required", charset="UTF-8"'
        super().__init__("Invalid username or password.", {"WWW-Authenticate": challenge})


class InvalidTokenError(HubError):
    """A wrong token is refused for public models too."""

    status = 401

    def __init__(self) -> None:
        super().__init__("Invalid credentials in Authorization header")


class GatedRepoError(HubError):
    """The model can be seen by all but fetched only with a token."""

    status = 401
    code = "GatedRepo"

    def __init__(self, model_id: str) -> None:
        super().__init__(
            f"Access to model {model_id} is restricted. You must have access to it and be "
            "authenticated to access it. Please log in."
        )


class LinkRefusedError(HubError):
    """A CDN link that this server did not sign, or signed too long ago."""

    status = 403

    def __init__(self) -> None:
        super().__init__("The link is not valid, or not any more")


class RepoNotFoundError(HubError):
    """No model of that id."""

    status = 404
    code = "RepoNotFound"

    def __init__(self) -> None:
        super().__init__("Repository not found")


class RevisionNotFoundError(HubError):
    """The model has no such branch, tag or commit."""

    status = 404
    code = "RevisionNotFound"

    def __init__(self, revision: str) -> None:
        super().__init__(f"Invalid rev id: {revision}")


class EntryNotFoundError(HubError):
    """The commit has no such file or folder."""

    status = 404
    code = "EntryNotFound"

    def __init__(self, commit_sha: str) -> None:
        super().__init__("Entry not found", {"X-Repo-Commit": commit_sha})


class RangeError(HubError):
    """The asked range begins past the end of the file."""

    status = 416

    def __init__(self, size_bytes: int) -> None:
        super().__init__("Range not satisfiable", {"Content-Range": f"bytes */{size_bytes}"})
