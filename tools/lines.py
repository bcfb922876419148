"""Count the lines of Python outside tests: all of them, and those that are code.

    python3 tools/lines.py

Code is what is left without blank lines, comments and docstrings. Lines of templates, sweep
definitions and documents are not Python and are not counted.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def code_lines(source: str) -> int:
    """Return how many lines of `source` hold a token that is neither comment nor docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            assert text.end_lineno is not None
            lines.difference_update(range(text.lineno, text.end_lineno + 1))
    return len(lines)


def count(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return files, lines and lines of code by folder, for every Python file outside tests."""
    files, every, code = Counter[str](), Counter[str](), Counter[str]()
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if inside.parts[0] in ("tests", "build") or inside.parts[0].startswith("."):
            continue
        source, folder = path.read_text(encoding="utf-8"), inside.parent.as_posix()
        files[folder] += 1
        every[folder] += len(source.splitlines())
        code[folder] += code_lines(source)
    return {folder: (files[folder], every[folder], code[folder]) for folder in sorted(files)}


def main(root: Path = ROOT) -> None:
    """Print the table."""
    counts = count(root)
    files, every, code = (sum(part) for part in zip(*counts.values(), strict=True))
    counts["total"] = (files, every, code)
    print(f"{'folder':<32}{'files':>6}{'lines':>8}{'code':>8}")
    for folder, numbers in counts.items():
        print(f"{folder:<32}{numbers[0]:>6}{numbers[1]:>8}{numbers[2]:>8}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
