"""Mutation testing: apply one mutation at a time to a copy of the package and report the first test that fails.

Run: python scripts/mutations.py                       all mutations of scripts/mutations.toml
     python scripts/mutations.py --only losses         those whose names start with one of these words
     python scripts/mutations.py --tree FOLDER         of another checkout
     python scripts/mutations.py --output table.md     continue an interrupted run
     python scripts/mutations.py --places              only list file and tests of each mutation, in seconds

Each row of the table of mutations has four fields:

name     package-mutation; unique.
find     Code that occurs once in the package. It is searched in all files, so modules can be moved.
replace  The mutated code; it must change the behaviour.
tests    Tests to run, the likeliest first. Each entry is one or more consecutive words in the path of a test file;
         folders count as words, ``test`` and ``tests`` do not: "inference tiles" matches
         ``tests/test_inference_tiles.py`` and ``tests/inference/test_tiles.py``. Files whose path ends with the words
         come first.

A mutation is caught if a test fails that passes without it; at the end all failed tests are run again without any
mutation. SURVIVED means that no test of its row failed. The exit status is 1 if any mutation survived, and 2 if one
cannot be run (its code is missing or ambiguous, no test is selected, or the mutated package cannot be imported, which
any test would catch) or a test also fails without mutations.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).with_suffix(".toml")
PACKAGE, TESTS = "napari_unetvnet", "tests"
SURVIVED, CANNOT = "**SURVIVED**", "**CANNOT RUN**"
HEADER = "| mutation | file | first test that fails | seconds |\n|---|---|---|---|\n"
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py::[^\[\s]+)", re.MULTILINE)
LONGEST_SECONDS = 900
# Without byte code, which would hide the mutation if size and modification time of the file are unchanged.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "QT_API": "pyqt6",
    "QT_QPA_PLATFORM": "offscreen",
}


class CannotRun(Exception):
    """A mutation that cannot be tested."""


@dataclass(frozen=True)
class Mutation:
    """One row of the table."""

    name: str
    find: str
    replace: str
    tests: tuple[str, ...]


def mutations(only: list[str]) -> list[Mutation]:
    """Read the table.

    Parameters
    ----------
    only : list of str
        Prefixes of names; empty means all.

    Returns
    -------
    list of Mutation
    """
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutation"]
    table = [Mutation(row["name"], row["find"], row["replace"], tuple(row["tests"])) for row in rows]
    names = [mutation.name for mutation in table]
    if duplicates := {name for name in names if names.count(name) > 1}:
        sys.exit(f"{TABLE.name} has duplicate names: {', '.join(sorted(duplicates))}; rename them.")
    return [mutation for mutation in table if not only or mutation.name.startswith(tuple(only))]


def tracked(tree: Path) -> list[Path]:
    """List the tracked files of a checkout, relative to it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=tree, check=True, capture_output=True, text=True)  # noqa: S607
    return [Path(name) for name in listed.stdout.split("\0") if name and (tree / name).is_file()]


def place_of(mutation: Mutation, tree: Path, files: list[Path]) -> Path:
    """Find the file that holds the code of a mutation.

    Returns
    -------
    Path
        Relative to the tree.

    Raises
    ------
    CannotRun
        If the code is missing or occurs more than once.
    """
    modules = [file for file in files if file.parts[0] == PACKAGE and file.suffix == ".py"]
    counts = {file: (tree / file).read_text(encoding="utf-8").count(mutation.find) for file in modules}
    matches = [file for file, count in counts.items() for _ in range(count)]
    if len(matches) != 1:
        where = f"in {', '.join(sorted(set(map(str, matches))))}" if matches else "in the package"
        raise CannotRun(f"the code to replace occurs {len(matches)} times {where}, expected once")
    return matches[0]


def select_tests(mutation: Mutation, files: list[Path]) -> list[str]:
    """Select test files.

    Returns
    -------
    list of str
        In the order of the row, without duplicates.

    Raises
    ------
    CannotRun
        If there are none.
    """
    tests = sorted(file for file in files if file.parts[0] == TESTS and file.name.startswith("test_"))
    selected: list[Path] = []
    for words in mutation.tests:
        matching = [file for file in tests if f" {words} " in _words(file)]
        selected += sorted(matching, key=lambda file, last=f" {words} ": not _words(file).endswith(last))
    if not selected:
        raise CannotRun(f"no test file matches {', '.join(mutation.tests)}")
    return [str(file) for file in dict.fromkeys(selected)]


def _words(file: Path) -> str:
    words = re.split(r"[_/]", file.with_suffix("").as_posix())
    return f" {' '.join(word for word in words if word not in {'test', 'tests'})} "


def failures(copy: Path, tests: list[str], *, first: bool) -> list[str]:
    """Run tests and list those that fail.

    Parameters
    ----------
    copy : Path
        Tree in which they run.
    tests : list of str
    first : bool
        Whether to stop at the first failure.

    Returns
    -------
    list of str
        Names without parameters.

    Raises
    ------
    CannotRun
        If the tests cannot be run, or take too long.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        *["-x"] * first,
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-n0",
        *tests,
    ]
    variables = os.environ | ENVIRONMENT | {"PYTHONPATH": str(copy)}
    try:
        process = subprocess.run(
            command, cwd=copy, env=variables, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"the tests take more than {LONGEST_SECONDS} s") from None
    failed = FAILED.findall(process.stdout)
    if process.returncode not in {0, 1} or bool(failed) != bool(process.returncode):
        last = (process.stdout + process.stderr).strip().splitlines()[-1:]
        raise CannotRun(f"pytest ended with status {process.returncode}: {' '.join(last)}")
    return list(dict.fromkeys(failed))


@contextmanager
def copied(tree: Path, files: list[Path]) -> Iterator[Path]:
    """Copy a tree to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder)
        for file in files:
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree / file, copy / file)
        yield copy


def outcome(mutation: Mutation, tree: Path, files: list[Path]) -> tuple[str, str]:
    """Try one mutation.

    Returns
    -------
    file, result : str
        File of the mutation, and the first test that fails or SURVIVED.
    """
    place, tests = place_of(mutation, tree, files), select_tests(mutation, files)
    with copied(tree, files) as copy:
        original = (copy / place).read_text(encoding="utf-8")
        (copy / place).write_text(original.replace(mutation.find, mutation.replace), encoding="utf-8")
        failed = failures(copy, tests, first=True)
    return str(place), f"`{failed[0]}`" if failed else SURVIVED


def failing_unmutated(table: str, tree: Path, files: list[Path]) -> list[str]:
    """List the tests in a table of results that also fail without any mutation."""
    tests = list(dict.fromkeys(re.findall(r"`(\S+::\S+)`", table)))
    with copied(tree, files) as copy:
        return failures(copy, tests, first=False) if tests else []


def places(table: list[Mutation], tree: Path, files: list[Path]) -> int:
    """Print file and test files of each mutation; return 2 if any cannot be run."""
    status = 0
    for mutation in table:
        try:
            text = f"{place_of(mutation, tree, files)}: {' '.join(select_tests(mutation, files))}"
        except CannotRun as reason:
            text, status = f"{CANNOT}: {reason}", 2
        sys.stdout.write(f"{mutation.name}: {text}\n")
    return status


def row_of(mutation: Mutation, tree: Path, files: list[Path]) -> str:
    """Try one mutation and return its row of the table of results."""
    start = time.monotonic()
    try:
        place, result = outcome(mutation, tree, files)
    except CannotRun as reason:
        place, result = "", f"{CANNOT}: {reason}".replace("|", "\\|")
    return f"| {mutation.name} | {place} | {result} | {time.monotonic() - start:.0f} |\n"


def _previous_rows(output: Path | None) -> str:
    """Read the table of an earlier run, without the rows that could not be run."""
    if output is None or not output.exists():
        return HEADER
    lines = output.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if CANNOT not in line)


def main() -> int:
    """Try the mutations that are not in the output yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--tree", type=Path, default=Path(__file__).parents[1], help="a git checkout; default: this one"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="only mutations whose names start with this"
    )
    parser.add_argument("--output", type=Path, help="file for the table of results, to which rows are appended")
    parser.add_argument("--places", action="store_true", help="only list file and tests of each mutation")
    parsed = parser.parse_args()
    tree, rows, table = parsed.tree.resolve(), [], mutations(parsed.only)
    files = tracked(tree)
    if parsed.places:
        return places(table, tree, files)
    previous = _previous_rows(parsed.output)
    if parsed.output:
        parsed.output.write_text(previous, encoding="utf-8")
    sys.stdout.write(previous)
    for mutation in table:
        if f"| {mutation.name} |" in previous:
            continue
        rows.append(row_of(mutation, tree, files))
        sys.stdout.write(rows[-1])
        sys.stdout.flush()
        if parsed.output:
            with parsed.output.open("a", encoding="utf-8") as file:
                file.write(rows[-1])
    results = previous + "".join(rows)
    broken = failing_unmutated(results, tree, files)
    for test in broken:
        sys.stdout.write(f"{test} also fails without mutations; fix it first.\n")
    return 2 if broken or CANNOT in results else int(SURVIVED in results)


if __name__ == "__main__":
    sys.exit(main())
