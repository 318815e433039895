"""The explorer's document says what is on record."""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXPLORER = (ROOT / "docs" / "explorer.md").read_text("utf-8")


NO_LONGER = "The same, as a cross-check", "Some change of the image", "Haar coefficients"
"""How claims begin that are on record and no longer measured; removed.md beside the record has them."""


def rows(header: str) -> list[list[str]]:
    """The cells of the table below a header."""
    lines = EXPLORER.split(header)[1].split("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def explored(table: str) -> list[dict[str, str]]:
    """The rows of a table that the explorer's record holds."""
    with (ROOT / "benchmarks" / "results" / "explorer" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_explorer_has_the_claims_on_record() -> None:
    found = rows("| claim | unit of exchangeability | smallest p | result | verdict |")
    assert found == [
        [
            row["claim"],
            row["unit"],
            "-" if row["smallest_p"] == "nan" else f"{float(row['smallest_p']):.2g}",
            row["result"],
            row["verdict"],
        ]
        for row in explored("claims")
        if not row["claim"].startswith(NO_LONGER)
    ]


def test_explorer_has_the_shares_on_record() -> None:
    shares = {(row["kind"], row["translations"], row["j"]): row for row in explored("translated")}
    apart = next(translations for _, translations, _ in shares if translations != "all")
    unmoved = {
        row["j"]: row["same_class"] for row in explored("agreement") if (row["kind"], row["tau"]) == ("trained", "0")
    }

    def shown(kind: str, translations: str, j: str) -> str:
        share, low, high = (100 * float(shares[kind, translations, j][name]) for name in ("same_class", "low", "high"))
        return f"{share:.1f} % [{low:.1f}, {high:.1f}]"

    columns = ("trained", apart), ("random order", apart), ("untrained", apart), ("trained", "all")
    header = "| depth | no translation | translated | axis in random order | untrained, translated | all translations |"
    assert rows(header) == [
        [j, f"{100 * float(share):.1f} %", *(shown(*column, j) for column in columns)] for j, share in unmoved.items()
    ]
