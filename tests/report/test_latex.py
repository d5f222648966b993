from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexGroupNode, LatexMacroNode, LatexNode, LatexWalker

from scisci.report.cells import Cell, Table, number
from scisci.report.export import write_tex
from scisci.report.fits import parse
from scisci.report.latex import MOST_ROWS, escape, paragraph, table_tex
from scisci.report.layout import sections
from scisci.report.methods import formulas, methods
from scisci.report.provenance import Provenance, provenance
from scisci.report.study import Study, assemble

# symbols of the LaTeX kernel (source2e) that the reader does not know or reads otherwise
KERNEL = {"textless": "<", "textgreater": ">", "textbar": "|", "textasciicircum": "^", "textperiodcentered": "·"}
KERNEL["textquotedbl"] = '"'  # of the T1 encoding
TEXTS = st.text(
    st.one_of(st.characters(max_codepoint=0x17F), st.sampled_from("\\{}$&#_%~^-',`\"<>|[]*±×−–·→αµ⁻⁷²中😀 "))
)


def read(latex: str) -> str:
    """The text that LaTeX stands for, read by another library, which refuses what is not well-formed."""
    LatexWalker(latex, tolerant_parsing=False).get_latex_nodes()
    context = get_default_latex_context_db()
    context.add_context_category(
        "kernel", macros=[MacroTextSpec(name, text) for name, text in KERNEL.items()], prepend=True
    )
    return str(LatexNodes2Text(context, math_mode="text", strict_latex_spaces=True).latex_to_text(latex))


def printed(text: str) -> str:
    """What a reader should see of `text`: as it is, but for layout, and codes for what LaTeX has no letter for."""
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    plain = re.sub(
        "[⁰¹²³⁴-⁹⁻]+", lambda found: "^" + found[0].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")), plain
    )
    return plain.replace("−", "-").replace("µ", "μ")


def as_codes(read_back: str, expected: str) -> bool:
    """Whether two texts agree where a letter may be written by its code."""
    at = 0
    for letter in expected:
        code = f"[U+{ord(letter):04X}]"
        if not letter.isascii() or not letter.isprintable():
            step = len(code) if read_back.startswith(code, at) else 1 if read_back[at : at + 1] == letter else 0
        else:
            step = 1 if read_back[at : at + 1] == letter else 0
        if not step:
            return False
        at += step
    return at == len(read_back)


@given(TEXTS)
@example("0.31 [-0.04, 0.1] ± 1.2×10⁻⁷ (km/s)² meV/Å³")
@example(r"\input{/etc/passwd} $x$ %done \\ {} ^^41")
@example("a---b '' ,, ?` !` \"quoted\" <<x>>")
@example("Łukasiewicz, Erdős, ſ, Ș, Ǘ, ĳ, 中, \x07")
def test_any_text_is_printed_as_it_is(text: str) -> None:
    latex = escape(text)
    assert latex.isascii()
    assert as_codes(read(latex), printed(text)), latex
    outside_of_math = re.sub(r"\$[^$]*\$", "", latex.replace(r"\$", ""))
    assert not re.search(r"(?<!\\)[%#&_^~$]|--|''|,,|``", outside_of_math), "active characters and ligatures"


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("size_l & 5 %", r"size\_l \& 5 \%"),
        ("-0.04 [-0.09, 0.01]", "$-$0.04 [$-$0.09, 0.01]"),
        ("2026-01-05 xtb-molecules", "2026-01-05 xtb-molecules"),
        ("1.2×10⁻⁷", r"1.2$\times$10$^{-7}$"),
        ("force MAE [meV/Å]", r"force MAE [meV/\AA{}]"),
        ("α → é", r"$\alpha$ $\rightarrow$ \'{e}"),
        ("中", "[U+4E2D]"),
    ],
)
def test_what_reports_are_made_of_is_written_as_a_typesetter_would(text: str, latex: str) -> None:
    assert escape(text) == latex


def environments(nodes: list[LatexNode]) -> list[LatexEnvironmentNode]:
    """Every environment in `nodes`, those inside groups, arguments and others included."""
    found: list[LatexEnvironmentNode] = []
    for node in nodes:
        if isinstance(node, LatexEnvironmentNode):
            found.append(node)
        inner = list(getattr(node, "nodelist", None) or [])
        if isinstance(node, LatexMacroNode | LatexEnvironmentNode) and node.nodeargd:
            inner += [argument for argument in node.nodeargd.argnlist if argument is not None]
        found += environments(inner)
    return found


def cells_of(latex: str) -> list[list[list[str]]]:
    """Per tabular of a document its rows of cells, as a reader sees them; a row of another length is an error."""
    nodes = LatexWalker(latex, tolerant_parsing=False).get_latex_nodes()[0]
    tables = []
    for tabular in (node for node in environments(nodes) if node.environmentname == "tabular"):
        first = next(n for n in tabular.nodeargd.argnlist if isinstance(n, LatexGroupNode))
        columns = first.latex_verbatim().strip("{}")
        assert re.fullmatch("[lr]+", columns)
        body = "".join(node.latex_verbatim() for node in tabular.nodelist)
        body = re.sub(r"\\(top|mid|bottom)rule\s*", "", body)
        assert not re.search(r"\\\\\s*[\[*]", body), "the end of a row takes what follows for its option"
        rows = [row for row in re.split(r"(?<!\\)\\\\\n", body) if row.strip()]
        split = [re.split(r"(?<!\\)&", row) for row in rows]
        assert {len(row) for row in split} == {len(columns)}
        tables.append([[read(cell).strip() for cell in row] for row in split])
    return tables


def test_every_table_of_the_report_says_in_latex_what_its_cells_say(study: Study) -> None:
    written = [table for part in sections(study) for table in part.tables]
    assert len(written) >= 7
    for table in written:
        latex = table_tex(table)
        head, *rows = cells_of(latex)[0]
        assert head == [printed(column) for column in table.columns]
        for row, cells in zip(rows, table.rows, strict=True):
            assert row == [printed(cell.text) + ",".join(map(str, cell.notes)) for cell in cells]
        assert printed(table.caption).split(". ")[0] in read(latex)
        assert all(printed(note) in read(latex) for note in table.notes)
        assert latex.count(r"\textbf{") == sum(cell.strong for row in table.rows for cell in row)
        assert latex.count(rf"\label{{tab:{table.key}}}") == 1


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), TEXTS)
def test_hostile_cells_stay_cells(rows: list[tuple[str, str]], words: str) -> None:
    table = Table("t", f"caption {words}", ["a", "b"], [[Cell(f"x{a}"), Cell(f"{b}x", strong=True)] for a, b in rows])
    assert len(cells_of(table_tex(table))[0]) == len(rows) + 1


@pytest.mark.parametrize("start", ["[0.1, 0.2]", "*", "[U", "中"])
def test_a_row_that_starts_like_an_option_is_guarded(start: str) -> None:
    table = Table("t", "c", ["a"], [[Cell("first")], [Cell(start)]])
    assert cells_of(table_tex(table))[0][1:] == [["first"], [escape(start)]]


@pytest.mark.parametrize(("rows", "floats"), [(1, 1), (MOST_ROWS, 1), (MOST_ROWS + 1, 2), (95, 3)])
def test_a_long_table_goes_on_in_the_next_float(rows: int, floats: int) -> None:
    table = Table("long", "Many rows.", ["name", "value"], [[Cell(f"r{i}"), number(str(i), i)] for i in range(rows)])
    table.note("A note.")
    latex = table_tex(table)
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == floats
    assert latex.count("(continued)") == floats - 1
    assert latex.count("A note.") == latex.count(r"\label{") == 1
    assert [row[0] for part in cells_of(latex) for row in part[1:]] == [f"r{i}" for i in range(rows)]


def test_rows_that_a_reader_does_not_see_are_left_out() -> None:
    table = Table("t", "c", ["a"], [[Cell(str(i))] for i in range(9)], most=4)
    assert len(cells_of(table_tex(table))[0]) == 1 + 4


def test_a_wide_table_spans_both_columns() -> None:
    assert r"\begin{table*}" in table_tex(Table("t", "c", ["a"], [[Cell("x" * 70)]]))
    assert r"\begin{table}" in table_tex(Table("t", "c", ["a"], [[Cell("x")]]))


def test_formulas_in_a_paragraph_are_those_of_the_laws(study: Study) -> None:
    latex = paragraph(methods(study), formulas(study))
    for symbol in "NDC":
        assert rf"$L = A {symbol}^{{-\alpha}}$" in latex
    assert r"\textasciicircum" not in latex.replace("(F - F", "")
    text = " ".join(read(latex).split())
    assert text.startswith("In the study demo, 48 runs were made")
    assert " the law “power”, L = A N^-α, was fitted" in text


def test_files_say_how_they_were_made_and_what_they_need(study: Study, table: Path, tmp_path: Path) -> None:
    source = provenance(study, table, table.with_name("fits.json"), Path("a\nb%"), "tex")
    paths = write_tex(study, source, tmp_path)
    assert {path.name for path in paths} == {p.name for p in tmp_path.iterdir()} >= {"methods.tex", "best.tex"}
    for path in paths:
        comments = [line for line in path.read_text().splitlines() if line.startswith("%")]
        assert comments[-2].startswith(f"% scisci report {table}")
        assert comments[-2].endswith("--metric force_mae --format tex --out 'a b%'")
        assert comments[-1] == r"% needs \usepackage[T1]{fontenc} \usepackage{booktabs,graphicx}"
        assert len(comments) == 4


def test_a_study_without_fits_has_tables_and_a_paragraph(study: Study, tmp_path: Path) -> None:
    paths = write_tex(assemble(study.frame, parse([], "none")), Provenance(["scisci report"], []), tmp_path)
    assert {path.stem for path in paths} == {"symmetry", "best", "not-finished", "methods"}
