"""A drawing as Mermaid text, which GitHub, many editors and https://mermaid.live show."""

from __future__ import annotations

from collections.abc import Iterator

from ..authoring.diagram import Box, Diagram, Group

__all__ = ["mermaid"]

#: How each kind of box opens and closes.
_SHAPES = {
    "choice": ("{", "}"),
    "loop": ("{", "}"),
    "parallel": ("{{", "}}"),
    "sleep": ("([", "])"),
    "wait_event": ("([", "])"),
    "wait_for": ("([", "])"),
    "poll": ("[/", "/]"),
    "child": ("[[", "]]"),
    "start": ("((", "))"),
    "end": ("((", "))"),
    "join": ("((", "))"),
    "pass": ("(", ")"),
    "state": ("(", ")"),
}
_CLASSES = {
    "completed": "fill:#d3f2dc,stroke:#1a7f37,color:#0b3d1a",
    "running": "fill:#d6ecff,stroke:#0969da,color:#0a3069",
    "waiting": "fill:#e6e4ff,stroke:#6639ba,color:#2e1461",
    "failed": "fill:#ffdcd9,stroke:#cf222e,color:#5c0a12",
}
#: Which class a status is shown as, where it is not its own name.
_AS = {"retrying": "running", "cancelled": "failed", "timed_out": "failed"}
_UNNAMED = {"task", "state", "start", "end", "join", "step"}


def mermaid(diagram: Diagram) -> str:
    """Return the text of a flowchart."""
    names = {box.key: f"n{number}" for number, box in enumerate(diagram.boxes)}
    lines = ["flowchart TD"]
    lines += [f"    {line}" for line in _boxes(diagram, names, None)]
    taken = []
    for number, arrow in enumerate(diagram.arrows):
        label = f'|"{_quoted(arrow.label)}"|' if arrow.label else ""
        line = "==>" if arrow.taken else "-->" if diagram.complete or arrow.label else "-.->"
        lines.append(f"    {names[arrow.source]} {line}{label} {names[arrow.target]}")
        if arrow.taken:
            taken.append(str(number))
    lines += _dressed(diagram, names)
    if taken:
        lines.append(f"    linkStyle {','.join(taken)} stroke:#1a7f37,stroke-width:3px")
    return "\n".join(lines)


def _boxes(diagram: Diagram, names: dict[str, str], group: Group | None) -> Iterator[str]:
    key = group.key if group is not None else None
    for box in diagram.boxes:
        if box.group == key:
            opening, closing = _SHAPES.get(box.kind, ("[", "]"))
            yield f'{names[box.key]}{opening}"{_label(box)}"{closing}'
    for number, inner in enumerate(diagram.groups):
        if inner.parent == key:
            yield f'subgraph g{number}["{_quoted(inner.name)}"]'
            yield from (f"    {line}" for line in _boxes(diagram, names, inner))
            yield "end"


def _label(box: Box) -> str:
    if box.kind == "join":
        return " "
    kind = "" if box.kind in _UNNAMED else f"<br/><small>{_quoted(box.kind.replace('_', ' '))}</small>"
    visits = f" ×{box.visits}" if box.visits > 1 else ""
    return f"{_quoted(box.name)}{visits}{kind}"


def _quoted(text: str) -> str:
    """Return a text that stands for itself between quotes: Mermaid's entities are those of HTML with # in place of &."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def _dressed(diagram: Diagram, names: dict[str, str]) -> Iterator[str]:
    worn: dict[str, list[str]] = {}
    for box in diagram.boxes:
        if box.status is not None:
            worn.setdefault(_AS.get(box.status, box.status), []).append(names[box.key])
    for name, style in _CLASSES.items():
        if name in worn:
            yield f"    classDef {name} {style}"
            yield f"    class {','.join(worn[name])} {name}"
