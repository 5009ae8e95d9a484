"""`docs/reading.md`: its excerpts are made from the code; the text between them is written by hand."""

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reading.md"

_EXCERPT = re.compile(r"^`(\S+\.py)`, `(\S+)`:\n\n```python\n.*?```", re.MULTILINE | re.DOTALL)


def page() -> str:
    """Return the page with the code as it is now."""
    return _EXCERPT.sub(lambda found: _excerpt(found[1], found[2]), PAGE.read_text(encoding="utf-8"))


def _excerpt(module: str, name: str) -> str:
    """Return a function without its docstring, below a line that says where it is."""
    source = (ROOT / module).read_text(encoding="utf-8")
    lines, (owner, _, function) = source.splitlines(), name.rpartition(".")
    [scope] = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and node.name == owner
    ]
    [found] = [node for node in scope.body if isinstance(node, ast.FunctionDef) and node.name == function]
    head = lines[found.lineno - 1 : found.body[0].lineno - 1]
    documented = ast.get_docstring(found) is not None
    body = lines[
        (found.body[0].end_lineno or 0) if documented else found.body[0].lineno - 1 : found.end_lineno
    ]
    code = textwrap.dedent("\n".join(head + body))
    return f"`{module}`, `{name}`:\n\n```python\n{code}\n```"
