"""Write those parts of docs/ that are made from the code. Run it as `make docs`; a test compares them."""

import sys
from pathlib import Path

from tools import reading_page, settings_page, stores_page, structure

DOCS = Path(__file__).parents[1] / "docs"


def made() -> dict[Path, str]:
    """Return the content of each file that is made."""
    return {
        DOCS / "reading.md": reading_page.page(),
        DOCS / "settings.md": settings_page.page(),
        DOCS / "stores.md": stores_page.page(),
        DOCS / "images" / "structure.svg": structure.svg(),
    }


def main() -> int:
    """Write what differs; return the exit code."""
    for path, content in made().items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
