"""Write the audit's report, as JSON for programs and as one HTML page for people."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape

from paddock.examples.audit.measure import Module

__all__ = ["Figures", "write"]

_TOP = 25

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bar: #4a8fe7; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } p.source { color: #888; margin-top: .2rem; }
ul.figures { display: flex; flex-wrap: wrap; gap: 1rem; padding: 0; list-style: none; }
ul.figures li { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1.1rem; }
ul.figures b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bar { width: 30%; } td.bar i { display: block; height: .7rem; border-radius: .2rem; background: var(--bar); }
code { font-size: .93em; } details summary { cursor: pointer; margin: 1rem 0; }
"""


@dataclass
class Figures:
    """The audit in a few numbers."""

    modules: int
    lines: int
    functions: int
    classes: int
    complexity: float
    undocumented: int
    names: int


def write(source: str, modules: Sequence[Module], names: int, stem: str) -> Figures:
    """Write `stem`.json and `stem`.html; return the main figures."""
    functions = sum(module.functions for module in modules)
    figures = Figures(
        modules=len(modules),
        lines=sum(module.lines for module in modules),
        functions=functions,
        classes=sum(module.classes for module in modules),
        complexity=round(sum(module.complexity for module in modules) / max(functions, 1), 2),
        undocumented=sum(module.undocumented for module in modules),
        names=names,
    )
    with open(f"{stem}.json", "w", encoding="utf-8") as file:
        data = {"source": source, "figures": asdict(figures), "modules": [asdict(module) for module in modules]}
        json.dump(data, file, indent=1)
    with open(f"{stem}.html", "w", encoding="utf-8") as file:
        file.write(_page(source, modules, figures))
    return figures


def _page(source: str, modules: Sequence[Module], figures: Figures) -> str:
    tiles = "".join(f"<li><b>{value:,}</b>{escape(title)}</li>" for title, value in _titled(figures))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Code audit</title><style>{_STYLE}</style></head><body>
<h1>Code audit</h1><p class="source">{escape(source)}</p>
<ul class="figures">{tiles}</ul>
<h2>Most complex functions</h2>{_complex(modules)}
<h2>Longest modules</h2>{_longest(modules)}
<h2>Most undocumented public functions</h2>{_undocumented(modules)}
<h2>Most imported modules</h2>{_imported(modules)}
{_problems(modules)}<h2>All modules</h2><details><summary>{len(modules):,} modules</summary>{_all(modules)}</details>
</body></html>
"""


def _titled(figures: Figures) -> list[tuple[str, float]]:
    return [
        ("modules", figures.modules),
        ("lines", figures.lines),
        ("functions", figures.functions),
        ("classes", figures.classes),
        ("mean complexity", figures.complexity),
        ("undocumented public functions", figures.undocumented),
        ("names in the index", figures.names),
    ]


def _complex(modules: Sequence[Module]) -> str:
    worst = sorted(((m, m.worst) for m in modules if m.worst), key=lambda pair: -pair[1].complexity)[:_TOP]
    most = worst[0][1].complexity if worst else 1
    rows = [
        (
            _code(function.name),
            _code(f"{module.path}:{function.line}"),
            function.lines,
            function.complexity,
            _bar(function.complexity / most),
        )
        for module, function in worst
    ]
    return _table(("function", "where", "#lines", "#complexity", ""), rows)


def _longest(modules: Sequence[Module]) -> str:
    longest = sorted(modules, key=lambda module: -module.lines)[:_TOP]
    rows = [(_code(m.path), m.lines, m.functions, m.classes, _bar(m.lines / longest[0].lines)) for m in longest]
    return _table(("module", "#lines", "#functions", "#classes", ""), rows)


def _undocumented(modules: Sequence[Module]) -> str:
    found = sorted((m for m in modules if m.undocumented), key=lambda module: -module.undocumented)[:_TOP]
    rows = [(_code(m.path), m.undocumented, m.functions, _bar(m.undocumented / found[0].undocumented)) for m in found]
    return _table(("module", "#undocumented", "#functions", ""), rows)


def _imported(modules: Sequence[Module]) -> str:
    counted = Counter(name for module in modules for name in module.imports).most_common(_TOP)
    rows = [(_code(name), count, _bar(count / counted[0][1])) for name, count in counted]
    return _table(("module", "#imported by", ""), rows)


def _problems(modules: Sequence[Module]) -> str:
    rows = [(_code(module.path), escape(module.problem)) for module in modules if module.problem]
    return f"<h2>Modules that do not parse</h2>{_table(('module', 'problem'), rows)}" if rows else ""


def _all(modules: Sequence[Module]) -> str:
    rows = [(_code(m.path), m.lines, m.functions, m.classes, m.complexity, m.undocumented) for m in modules]
    return _table(("module", "#lines", "#functions", "#classes", "#complexity", "#undocumented"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """Return a table; a head that begins with # is of numbers."""
    top = "".join(f'<th class="n">{head[1:]}</th>' if head.startswith("#") else f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    return f'<td class="bar">{value}</td>' if value.startswith("<i") else f"<td>{value}</td>"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _bar(share: float) -> str:
    return f'<i style="width:{100 * share:.1f}%"></i>'
