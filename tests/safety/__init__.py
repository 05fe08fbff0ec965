"""What strangers and broken services may do to the platform, each attack a test.

Refused where they are handled, and tested there: bad media (`tests/unit/test_media_refused.py`),
media's places (`tests/unit/test_media_references.py`, `tests/integration/test_media_web.py`), names
that a hub lists (`tests/integration/test_download.py`), links in the staging area
(`tests/unit/test_staging.py`). Here is what goes across those, and what they leave.
"""
