"""Each item of the OCI checklist has a test, or a reason why it needs none, and the document is current."""

from tools.oci_coverage import DOCUMENT, document, proofs, troubles


def test_every_item_has_a_test_or_a_reason() -> None:
    assert troubles(proofs()) == []


def test_the_document_is_generated_from_the_tests() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(proofs()), "run make oci-coverage"
