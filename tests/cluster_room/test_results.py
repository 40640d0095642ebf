"""The document of results holds the cases that the tests declare, no more and no fewer."""

import json
from pathlib import Path

import pytest

from tests.cluster import results
from tests.cluster.results import Row, Table

TABLE = Table("Traffic", (("HTTP", "ClusterIP"), ("HTTP", "pod address"), ("bytes | echo", "ClusterIP")))


def rows() -> list[Row]:
    outcomes = ("mutual TLS", "mutual TLS", "plaintext")
    return [Row("Traffic", *case, outcome, "seen") for case, outcome in zip(TABLE.cases, outcomes, strict=True)]


def test_document_has_the_cases_of_the_tests() -> None:
    wanted = {(table.title, *case) for table in results.declared() for case in table.cases}
    found = {(row.table, row.case, row.path) for row in results.rows_of(results.DOCUMENT.read_text())}
    assert found == wanted, "run `make results`"


def test_paths_with_the_same_outcome_share_a_line_and_are_found_again() -> None:
    document = results.render([TABLE], rows())
    assert "| HTTP | ClusterIP; pod address | mutual TLS | seen |" in document
    assert results.rows_of(document) == rows()


def test_case_that_nothing_was_recorded_of_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"nothing was recorded of .*pod address"):
        results.render([TABLE], [row for row in rows() if row.path != "pod address"])


def test_the_last_record_of_a_case_counts() -> None:
    document = results.render([TABLE], [*rows(), Row("Traffic", "HTTP", "pod address", "plaintext", "late")])
    assert "| HTTP | pod address | plaintext | late |" in document


def test_record_is_a_line_of_the_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows"
    monkeypatch.setenv(results.FILE_VARIABLE, str(file))
    TABLE.record("HTTP", "ClusterIP", "mutual TLS", "both proxies counted it")
    assert Row(**json.loads(file.read_text())) == Row(
        "Traffic", "HTTP", "ClusterIP", "mutual TLS", "both proxies counted it"
    )


def test_undeclared_case_is_refused() -> None:
    with pytest.raises(AssertionError, match="not declared"):
        TABLE.record("HTTP", "NodePort", "plaintext", "seen")
