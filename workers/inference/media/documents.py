"""Pages of a document."""

import threading
from contextlib import closing
from dataclasses import dataclass
from os import SEEK_END
from typing import Any, BinaryIO

import pypdfium2
from PIL import Image
from pypdfium2 import raw

from shared.cancellation import CancelToken
from shared.errors import InvalidInputError
from shared.media.errors import corrupt, encrypted, too_large, unsupported
from shared.media.types import MediaKind, kind_of
from shared.settings import MediaSettings
from workers.inference.media.images import decode_image
from workers.inference.media.sources import Source, opened

#: PDFium must not be called from two threads at once.
_PDFIUM = threading.Lock()
_POINTS_PER_INCH = 72
#: A page that would have more pixels, such as a poster, is drawn at a lower resolution.
_MAX_PAGE_PIXELS = 4_000_000
#: Where a PDF that is whole has its end mark.
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class DecodedDocument:
    """Pages of a document as images."""

    #: In mode RGB; of the pages ``page_numbers``, in their order.
    images: tuple[Image.Image, ...]
    #: Counted from 1.
    page_numbers: tuple[int, ...]
    #: ``media_type``, ``pages`` (of the whole document), ``page_numbers``, ``width`` and ``height``
    #: (in pixels, of the first of the images): for the result.
    metadata: dict[str, Any]


def decode_document(
    source: Source,
    *,
    limits: MediaSettings,
    page: int | None = None,
    field: str = "data.document",
    page_field: str = "data.page",
    token: CancelToken | None = None,
) -> DecodedDocument:
    """Decode a page of a PDF (counted from 1), or all; an image is a document of one page."""
    with opened(source, field) as (file, media_type):
        kind = kind_of(media_type)
        if kind is MediaKind.IMAGE:
            numbers = _chosen(1, page, limits.max_document_pages, field, page_field)
            images = [decode_image(file, limits=limits, field=field).image]
            total = 1
        elif kind is MediaKind.DOCUMENT:
            total, numbers, images = _pages(file, limits, page, (field, page_field), token)
        else:
            raise unsupported(f"{media_type} is no document: PDF and images are", field)
    return DecodedDocument(
        images=tuple(images),
        page_numbers=numbers,
        metadata={
            "media_type": media_type,
            "pages": total,
            "page_numbers": list(numbers),
            "width": images[0].width,
            "height": images[0].height,
        },
    )


def _chosen(
    total: int, page: int | None, most: int, field: str, page_field: str
) -> tuple[int, ...]:
    if page is None:
        if total > most:
            raise too_large(
                f"the document has {total} pages; at most {most} are read: choose a page", field
            )
        return tuple(range(1, total + 1))
    if not 1 <= page <= total:
        raise InvalidInputError(
            f"there is no page {page}: the document has {total}", field=page_field
        )
    return (page,)


def _pages(
    file: BinaryIO,
    limits: MediaSettings,
    page: int | None,
    fields: tuple[str, str],
    token: CancelToken | None,
) -> tuple[int, tuple[int, ...], list[Image.Image]]:
    """Return how many pages a PDF has, and the chosen ones with their images."""
    _check_end(file, fields[0])
    images = []
    try:
        with _PDFIUM, closing(pypdfium2.PdfDocument(file)) as document:
            total = len(document)
            if not total:
                raise corrupt("the document has no pages", fields[0])
            numbers = _chosen(total, page, limits.max_document_pages, *fields)
            document.init_forms()
            for number in numbers:
                if token is not None:
                    token.check()
                images.append(_drawn(document, number - 1, limits.document_dpi))
    except pypdfium2.PdfiumError as error:
        if error.err_code in {raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY}:
            raise encrypted("the document is encrypted: it takes a password", fields[0]) from None
        raise corrupt(f"the document is broken: {error}", fields[0]) from None
    return total, numbers, images


def _check_end(file: BinaryIO, field: str) -> None:
    """Refuse a PDF without its end: PDFium would make up what is missing, and find less pages."""
    size_bytes = file.seek(0, SEEK_END)
    file.seek(max(0, size_bytes - _TAIL_BYTES))
    if b"%%EOF" not in file.read():
        raise corrupt("the document is truncated: its end is missing", field)
    file.seek(0)


def _drawn(document: pypdfium2.PdfDocument, index: int, dpi: int) -> Image.Image:
    with closing(document[index]) as page:
        width, height = page.get_size()
        scale = dpi / _POINTS_PER_INCH
        area = max(width * height, 1.0)
        scale = min(scale, (_MAX_PAGE_PIXELS / area) ** 0.5)
        with closing(page.render(scale=scale)) as bitmap:
            image: Image.Image = bitmap.to_pil().convert("RGB")
            image.load()
            return image
