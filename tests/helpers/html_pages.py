"""Reading pages back: well formed, and what they refer to."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "path", "hr", "link", "img", "use"}
SVG = {"g", "path", "use"}
"""Elements of a drawing, which may close themselves."""


class Checker(HTMLParser):
    """Collects what a page refers to, and fails when its tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = {name: value for name, value in attrs if value is not None}
        self.addresses += [values[name] for name in ("src", "href") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID | SVG
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker
