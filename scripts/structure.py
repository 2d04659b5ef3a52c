"""Print the structure of the package: packages and what they import, levels, circles, the longest functions and files.

Run: python scripts/structure.py            prints
     python scripts/structure.py --check    fails beyond the bounds of CONTRIBUTING.md

Type-only imports and those inside functions count, too: a circle is a circle to whoever reads it.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[1]
PACKAGE = "napari_unetvnet"
MOST_LEVELS, LONGEST_FUNCTION, LONGEST_FILE, MOST_PACKAGES, MOST_MODULES = 13, 40, 400, 13, 5
NOT_COUNTED = {"__init__", "__main__"}
"""The name of the package and the way into it, beside the modules at its top."""

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Give the file of each module by its dotted name within the package."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Give the modules of the package that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE):
            continue
        module = (node.module or "").removeprefix(PACKAGE).lstrip(".")
        for alias in node.names:
            inner = f"{module}.{alias.name}".lstrip(".")
            yield inner if inner in known else module


def graph_of(known: Mapping[str, Path]) -> Graph:
    """Give the modules that each module imports."""
    return {name: {other for other in imports(path, known) if other != name} for name, path in known.items()}


def by_package(graph: Graph) -> Graph:
    """Put the modules of each package together."""
    merged: Graph = defaultdict(set)
    for name, others in graph.items():
        own = name.partition(".")[0]
        merged[own] |= {other.partition(".")[0] for other in others} - {own, ""}
    return dict(merged)


def circles(graph: Graph) -> list[list[str]]:
    """Give circles of imports until, without one import of each, none is left."""
    left, found = {name: set(others) for name, others in graph.items()}, []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            ring = error.args[1]  # each is imported by the next
            left[ring[1]].discard(ring[0])
            found.append(ring)
        else:
            return found


def levels(graph: Graph) -> dict[str, int]:
    """Give how many packages lie on the longest path down from each, itself included."""
    heights: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        heights[name] = 1 + max((heights[other] for other in graph.get(name, ())), default=0)
    return heights


def functions(known: Mapping[str, Path]) -> list[tuple[int, str]]:
    """Give all functions with their lines without docstring, the longest first."""
    sizes = []
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = node.body[0] if ast.get_docstring(node) else None
                inside = (doc.end_lineno or 0) - doc.lineno + 1 if doc else 0
                sizes.append(((node.end_lineno or 0) - node.lineno + 1 - inside, f"{name}.{node.name}"))
    return sorted(sizes, reverse=True)


def main() -> int:
    """Print the structure and what is beyond a bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bound is exceeded")
    check = parser.parse_args().check
    known = modules()
    graph = graph_of(known)
    packages = {name: others for name, others in by_package(graph).items() if name != "__init__"}
    rings, longest = circles(graph) + circles(packages), functions(known)
    files = sorted(((len(path.read_text("utf-8").splitlines()), name) for name, path in known.items()), reverse=True)
    folders = {name for name in packages if (ROOT / PACKAGE / name).is_dir()}
    top = sorted(set(packages) - folders - NOT_COUNTED)
    heights = levels(packages) if not circles(packages) else {}
    for name in sorted(packages, key=lambda name: (-heights.get(name, 0), name)):
        count = sum(module.partition(".")[0] == name for module in known)
        print(f"{heights.get(name, 0):>3}  {name:<12} {count:>3} modules  -> {', '.join(sorted(packages[name]))}")
    print(f"\n{len(folders)} packages, {len(top)} modules at the top ({', '.join(top)})")
    print(f"{max(heights.values(), default=0)} levels; circles, type-only imports included: {rings or 'none'}")
    print("\nLongest functions, lines without docstring:")
    print("\n".join(f"{lines:>5}  {name}" for lines, name in longest[:10]))
    print(f"\nLongest file: {files[0][1]}, {files[0][0]} lines")
    bounds = {
        "packages": (len(folders), MOST_PACKAGES),
        "modules at the top": (len(top), MOST_MODULES),
        "levels": (max(heights.values(), default=MOST_LEVELS + 1), MOST_LEVELS),
        "circles": (len(rings), 0),
        "lines of a function": (longest[0][0], LONGEST_FUNCTION),
        "lines of a file": (files[0][0], LONGEST_FILE),
    }
    beyond = [f"{what}: {value}, at most {most}" for what, (value, most) in bounds.items() if value > most]
    print("\n".join(["", *(f"Beyond the bound: {line}" for line in beyond)]) if beyond else "\nAll within the bounds.")
    return int(check and bool(beyond))


if __name__ == "__main__":
    sys.exit(main())
