"""The reference of the API says what calls take and answer."""

from api.app import create_app
from api.reference import PAGE, page
from shared.settings import Settings
from tests.docs.pages import ROOT


def test_the_page_is_current() -> None:
    assert (ROOT / PAGE).read_text("utf-8") == page(), "run `make docs`"


def test_every_schema_has_fields_or_values() -> None:
    schemas = create_app(Settings()).openapi()["components"]["schemas"]
    assert [name for name, each in schemas.items() if not {"properties", "enum"} & set(each)] == []


def test_every_call_of_the_front_is_in_the_reference() -> None:
    reference = page()
    for path, methods in create_app(Settings()).openapi()["paths"].items():
        for method in methods:
            assert f"### {method.upper()} {path}\n" in reference
