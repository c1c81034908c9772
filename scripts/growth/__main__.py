"""`python -m scripts.growth` writes docs/growth.md and its pictures from the kept results."""

from __future__ import annotations

from scripts.growth.page import IMAGES, PAGE, page, pictures
from scripts.growth.results import load


def main() -> None:
    """Write the page and its drawings from the results."""
    results = load()
    PAGE.write_text(page(results), encoding="utf-8")
    for name, text in pictures(results).items():
        (IMAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
