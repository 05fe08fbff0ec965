"""Brings the files of commits from one lakeFS server to a branch of another, and compares them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from embedded.moving.server import Server
from shared.cancellation import CancelToken
from shared.errors import DigestMismatchError
from shared.models import StoredFile

Files = dict[str, StoredFile]
#: What makes two files of a repository the same: path, size and digest.
Content = tuple[str, int, str]


def content(file: StoredFile) -> Content:
    """Return what identifies a file's path and bytes on the source."""
    return file.path, file.size_bytes, file.sha256 or file.checksum


def same(left: StoredFile, right: StoredFile | None) -> bool:
    """Return whether two files have equal bytes, by size and digest.

    Two servers may have different checksums of the same bytes, since a checksum also depends on
    the parts in which a file was stored. So the checksum counts only where a digest is missing.
    """
    if right is None or left.size_bytes != right.size_bytes:
        return False
    if left.sha256 and right.sha256:
        return left.sha256 == right.sha256
    return left.checksum == right.checksum


@dataclass
class Transfer:
    """The files of one repository between two servers."""

    source: Server
    target: Server
    repository: str
    cancel: CancelToken
    #: Where files lie on their way.
    scratch: Path
    threads: int
    #: Gets the size of every chunk that has arrived; negative for what is sent again.
    on_bytes: Callable[[int], None]
    #: Commits of the target by the contents that they have.
    known: dict[Content, str] = field(default_factory=dict)
    #: Digests that the source does not record, learned by reading.
    _learned: dict[Content, str] = field(default_factory=dict)

    def files(self, commit: str) -> Files:
        """Return the files of a commit of the source by path."""
        found = self.source.files(self.repository, commit, "", missing_ok=True)
        return {
            file.path: replace(file, sha256=file.sha256 or self._learned.get(content(file)))
            for file in found
        }

    def bring(self, branch: str, commit: str) -> None:
        """Make what is on a branch of the target equal to a commit of the source.

        Files that are there already stay, so that a move which was stopped sends nothing twice.
        """
        wanted = self.files(commit)
        present = self._on_target(branch)
        extra = [path for path in present if path not in wanted]
        self.target.delete_files(self.repository, branch, extra)
        missing = [file for path, file in wanted.items() if not same(file, present.get(path))]
        with (
            TemporaryDirectory(dir=self.scratch) as folder,
            ThreadPoolExecutor(self.threads) as pool,
        ):
            sent = [
                pool.submit(self._send, branch, commit, file, Path(folder) / str(number))
                for number, file in enumerate(missing)
            ]
            try:
                for each in as_completed(sent):
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def differences(self, commit: str, new: str) -> list[str]:
        """Return the paths at which a commit of the target is not like one of the source."""
        found = self._on_target(new)
        with TemporaryDirectory(dir=self.scratch) as folder:
            for path, file in self.files(commit).items():
                if file.sha256 is None and not same(file, found.get(path)):
                    self._fetch(commit, file, Path(folder) / "file")
        wanted = self.files(commit)
        wrong = {path for path, file in wanted.items() if not same(file, found.get(path))}
        self.known |= {content(file): new for path, file in wanted.items() if path not in wrong}
        return sorted(wrong | (found.keys() - wanted.keys()))

    def _on_target(self, ref: str) -> Files:
        found = self.target.files(self.repository, ref, "", missing_ok=True)
        return {file.path: file for file in found}

    def _send(self, branch: str, commit: str, file: StoredFile, scratch: Path) -> None:
        """Bring one file, from the target itself if another commit there has it."""
        self.cancel.check()
        if holder := self.known.get(content(file)):
            self.target.copy(self.repository, branch, file.path, holder)
            return
        digest = self._fetch(commit, file, scratch)
        self.target.put(
            self.repository,
            branch,
            file.path,
            scratch,
            sha256=digest,
            token=self.cancel,
            on_bytes=self.on_bytes,
        )
        scratch.unlink()

    def _fetch(self, commit: str, file: StoredFile, destination: Path) -> str:
        """Write a file of the source to this machine's disk and return its digest."""
        digest = self.source.fetch(
            self.repository,
            commit,
            file.path,
            destination,
            token=self.cancel,
            on_bytes=lambda _: None,
        )
        if file.sha256 not in {None, digest}:
            raise DigestMismatchError(
                f"{file.path!r} in commit {commit[:12]} of {self.repository!r} does not have the "
                "bytes that were stored: the embedded server's data are damaged"
            )
        if file.sha256 is None:
            self._learned[content(file)] = digest
        return digest
