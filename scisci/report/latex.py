"""Tables and paragraphs as LaTeX: plain ASCII that every engine takes, with no more than `PREAMBLE`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from scisci.report.cells import Cell, Table

PREAMBLE = r"\usepackage[T1]{fontenc} \usepackage{booktabs,graphicx}"
MOST_ROWS = 40  # of one float: a table of more goes on in the next
WIDE = 60  # characters: a wider table spans both columns where a page has two

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_LEVEL = str.maketrans(_SUPERSCRIPTS, "0123456789-")
_MATH = {
    "±": "pm", "×": "times", "→": "rightarrow", "≥": "geq", "≤": "leq", "≈": "approx", "∞": "infty", "µ": "mu",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_TEXT = {
    "\\": "textbackslash", "~": "textasciitilde", "^": "textasciicircum", "<": "textless", ">": "textgreater",
    "|": "textbar", '"': "textquotedbl", "`": "textasciigrave", "…": "ldots", "·": "textperiodcentered",
    "°": "textdegree", "–": "textendash", "—": "textemdash", "“": "textquotedblleft", "”": "textquotedblright",
    "‘": "textquoteleft", "’": "textquoteright", "Å": "AA", "å": "aa", "ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o",
    "Ø": "O", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030b": "H", "\u030c": "v", "\u0327": "c", "\u0328": "k",
}  # fmt: skip
_WRITTEN = (
    {character: f"\\{character}" for character in "{}$&#_%"}
    | {character: f"\\{name}{{}}" for character, name in _TEXT.items()}
    | {character: f"$\\{name}$" for character, name in _MATH.items()}
    | {"−": "$-$"}
)
_TOKEN = re.compile(
    rf"(?P<power>[{_SUPERSCRIPTS}]+)"
    r"|(?P<minus>(?<![^\s\[(])-(?=\d))"
    r"|(?P<ligature>(?<=[-',])[-',])"  # two of them in a row are another character to TeX
    r"|."
)


def escape(text: str) -> str:
    """`text` as LaTeX that prints it; what LaTeX has no letter for becomes its code, "[U+4E2D]"."""
    return _TOKEN.sub(_token, " ".join(unicodedata.normalize("NFC", text).split()))


def _token(found: re.Match[str]) -> str:
    text = found[0]
    if found["power"]:
        return f"$^{{{text.translate(_LEVEL)}}}$"
    if found["minus"]:
        return "$-$"
    if found["ligature"]:
        return "{}" + text
    return _WRITTEN.get(text) or (text if text.isascii() and text.isprintable() else _letter(text))


def _letter(character: str) -> str:
    """An accented letter as its accents on an ASCII one; anything else by its code."""
    decomposed = unicodedata.normalize("NFD", character)
    letter, marks = decomposed[0], decomposed[1:]
    if not (marks and letter.isascii() and _ACCENTS.keys() >= set(marks)):
        return f"[U+{ord(character):04X}]"
    for mark in marks:
        letter = f"\\{_ACCENTS[mark]}{{{letter}}}"
    return letter


def paragraph(text: str, formulas: Mapping[str, str]) -> str:
    """A paragraph, its `formulas` (by how `text` writes them) in their own LaTeX."""
    written = "|".join(re.escape(plain) for plain in sorted(formulas, key=len, reverse=True))
    parts = re.split(f"({written})", text) if written else [text]
    return "".join(f"${formulas[part]}$" if part in formulas else _kept(part) for part in parts)


def _kept(part: str) -> str:
    """`part` escaped, with the blank at either end that `escape` takes for layout."""
    left, right = (" " if blank else "" for blank in (part[:1].isspace(), part[-1:].isspace()))
    return left + escape(part) + right if part.strip() else left


def table_tex(table: Table) -> str:
    """A table as booktabs floats of at most `MOST_ROWS` rows, no wider than the line; its notes under the last."""
    rows = table.shown
    chunks = [rows[at : at + MOST_ROWS] for at in range(0, len(rows), MOST_ROWS)]
    return "\n".join(_float(table, chunk, chunk is chunks[0], chunk is chunks[-1]) for chunk in chunks)


def _float(table: Table, rows: list[list[Cell]], first: bool, last: bool) -> str:
    texts = [table.columns, *([cell.text for cell in row] for row in rows)]
    width = sum(max(len(text) for text in column) for column in zip(*texts, strict=True))
    place = "table*" if width > WIDE else "table"
    label = rf"\label{{tab:{table.key}}}" if first else " (continued)"
    notes = [rf"\textsuperscript{{{i}}}~{escape(note)}" for i, note in enumerate(table.notes, 1)]
    lines = [
        rf"\begin{{{place}}}",
        r"\centering",
        rf"\caption{{{escape(table.caption)}{label}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join('r' if cell.numeric else 'l' for cell in rows[0])}}}",
        r"\toprule",
        _row([escape(column) for column in table.columns]),
        r"\midrule",
        *(_row([_cell(cell) for cell in row]) for row in rows),
        r"\bottomrule",
        r"\end{tabular}}",
        *([r"\par\smallskip\footnotesize\raggedright", r"\par ".join(notes)] if last and notes else []),
        rf"\end{{{place}}}",
        "",
    ]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    """A row, guarded at its start: the end of the row before takes "[" and "*" for its own options."""
    return ("{}" if cells[0][:1] in ("[", "*") else "") + " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = rf"\textbf{{{escape(cell.text)}}}" if cell.strong else escape(cell.text)
    return text + (rf"\textsuperscript{{{','.join(map(str, cell.notes))}}}" if cell.notes else "")
