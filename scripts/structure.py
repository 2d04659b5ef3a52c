"""Print the structure of the package: packages with their imports, levels, cycles, the longest functions and files.

Run: python scripts/structure.py            print
     python scripts/structure.py --check    fail if a limit of CONTRIBUTING.md is exceeded

Type-only imports and imports inside functions count too, because a reader has to follow them as well.
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
MOST_LEVELS, LONGEST_FUNCTION, LONGEST_FILE, MOST_PACKAGES, MOST_MODULES = 13, 40, 400, 13, 7
NOT_COUNTED = {"__init__", "__main__"}
"""Modules at the top of the package that do not count."""

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Map the dotted name of each module within the package to its file."""
    files = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return files


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a file imports, at any level."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE):
            continue
        module = (node.module or "").removeprefix(PACKAGE).lstrip(".")
        for alias in node.names:
            inner = f"{module}.{alias.name}".lstrip(".")
            yield inner if inner in known else module


def graph_of(known: Mapping[str, Path]) -> Graph:
    """Map each module to the modules that it imports."""
    return {name: {other for other in imports(path, known) if other != name} for name, path in known.items()}


def by_package(graph: Graph) -> Graph:
    """Merge the modules of each package."""
    merged: Graph = defaultdict(set)
    for name, others in graph.items():
        own = name.partition(".")[0]
        merged[own] |= {other.partition(".")[0] for other in others} - {own, ""}
    return dict(merged)


def cycles(graph: Graph) -> list[list[str]]:
    """List import cycles, removing one import of each cycle until there are none."""
    remaining, result = {name: set(others) for name, others in graph.items()}, []
    while True:
        try:
            TopologicalSorter(remaining).prepare()
        except CycleError as error:
            cycle = error.args[1]  # each module is imported by the next
            remaining[cycle[1]].discard(cycle[0])
            result.append(cycle)
        else:
            return result


def levels(graph: Graph) -> dict[str, int]:
    """Return the number of packages on the longest import path from each package, including itself."""
    heights: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        heights[name] = 1 + max((heights[other] for other in graph.get(name, ())), default=0)
    return heights


def functions(known: Mapping[str, Path]) -> list[tuple[int, str]]:
    """List all functions with their number of lines without docstring, the longest first."""
    sizes = []
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = node.body[0] if ast.get_docstring(node) else None
                inside = (doc.end_lineno or 0) - doc.lineno + 1 if doc else 0
                sizes.append(((node.end_lineno or 0) - node.lineno + 1 - inside, f"{name}.{node.name}"))
    return sorted(sizes, reverse=True)


def main() -> int:
    """Print the structure and the limits that are exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is exceeded")
    check = parser.parse_args().check
    known = modules()
    graph = graph_of(known)
    packages = {name: others for name, others in by_package(graph).items() if name != "__init__"}
    import_cycles, longest = cycles(graph) + cycles(packages), functions(known)
    files = sorted(((len(path.read_text("utf-8").splitlines()), name) for name, path in known.items()), reverse=True)
    folders = {name for name in packages if (ROOT / PACKAGE / name).is_dir()}
    top = sorted(set(packages) - folders - NOT_COUNTED)
    heights = levels(packages) if not cycles(packages) else {}
    for name in sorted(packages, key=lambda name: (-heights.get(name, 0), name)):
        count = sum(module.partition(".")[0] == name for module in known)
        print(f"{heights.get(name, 0):>3}  {name:<12} {count:>3} modules  -> {', '.join(sorted(packages[name]))}")
    print(f"\n{len(folders)} packages, {len(top)} modules at the top ({', '.join(top)})")
    print(f"{max(heights.values(), default=0)} levels; cycles, including type-only imports: {import_cycles or 'none'}")
    print("\nLongest functions, lines without docstring:")
    print("\n".join(f"{lines:>5}  {name}" for lines, name in longest[:10]))
    print(f"\nLongest file: {files[0][1]}, {files[0][0]} lines")
    limits = {
        "packages": (len(folders), MOST_PACKAGES),
        "modules at the top": (len(top), MOST_MODULES),
        "levels": (max(heights.values(), default=MOST_LEVELS + 1), MOST_LEVELS),
        "cycles": (len(import_cycles), 0),
        "lines of a function": (longest[0][0], LONGEST_FUNCTION),
        "lines of a file": (files[0][0], LONGEST_FILE),
    }
    exceeded = [f"{what}: {value}, at most {most}" for what, (value, most) in limits.items() if value > most]
    text = ["", *(f"Limit exceeded: {line}" for line in exceeded)] if exceeded else ["\nAll within the limits."]
    print("\n".join(text))
    return int(check and bool(exceeded))


if __name__ == "__main__":
    sys.exit(main())
