"""Show what the tests catch: put one mistake at a time into a copy of the package and say which test fails first.

Run: python scripts/mutations.py                       all of scripts/mutations.toml
     python scripts/mutations.py --only losses         those whose names begin with one of these words
     python scripts/mutations.py --tree FOLDER         of another checkout
     python scripts/mutations.py --output table.md     goes on where an earlier run has ended
     python scripts/mutations.py --places              only says where each mistake would go, in seconds

Each row of the table of mutations has four fields:

name     part-what; it must not occur twice.
find     A piece of code that occurs once in the package. The file is found by searching, so a module may move.
replace  What stands there instead; it must change what the program does.
tests    Which tests to run, the likeliest first. Each entry is one or more words that follow each other in the path of
         a test file, where folders count as words and ``test`` and ``tests`` do not: "inference tiles" is
         ``tests/test_inference_tiles.py`` as well as ``tests/inference/test_tiles.py``. Of the files of one entry those
         come first whose path ends with the words.

A mutation is caught if a test fails that passes without it; at the end all tests that failed are run once more without
any mutation. SURVIVED says that no test of its row failed. The exit status is 1 if any survived, and 2 if one could not
be run (its code is not there or twice, no test is selected, or the copy cannot even be imported, which any test would
show) or a test fails anyhow.
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
# No byte code is kept: of a file with the same size and second it would hide the mutation.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "QT_API": "pyqt6",
    "QT_QPA_PLATFORM": "offscreen",
}


class CannotRun(Exception):
    """A mutation that says nothing about the tests."""


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
        Beginnings of names; empty: all.

    Returns
    -------
    list of Mutation
    """
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutation"]
    table = [Mutation(row["name"], row["find"], row["replace"], tuple(row["tests"])) for row in rows]
    names = [mutation.name for mutation in table]
    if twice := {name for name in names if names.count(name) > 1}:
        sys.exit(f"{TABLE.name} names twice: {', '.join(sorted(twice))}.")
    return [mutation for mutation in table if not only or mutation.name.startswith(tuple(only))]


def tracked(tree: Path) -> list[Path]:
    """List the files of a checkout that belong to it, relative to it."""
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
        If the code is not there or more than once.
    """
    modules = [file for file in files if file.parts[0] == PACKAGE and file.suffix == ".py"]
    counts = {file: (tree / file).read_text(encoding="utf-8").count(mutation.find) for file in modules}
    found = [file for file, count in counts.items() for _ in range(count)]
    if len(found) != 1:
        where = f"{len(found)} times, in {', '.join(sorted(set(map(str, found))))}" if found else "nowhere"
        raise CannotRun(f"the code to replace is {where}")
    return found[0]


def chosen_tests(mutation: Mutation, files: list[Path]) -> list[str]:
    """Select test files.

    Returns
    -------
    list of str
        In the order of the row, each once.

    Raises
    ------
    CannotRun
        If there is none.
    """
    tests = sorted(file for file in files if file.parts[0] == TESTS and file.name.startswith("test_"))
    chosen: list[Path] = []
    for words in mutation.tests:
        matching = [file for file in tests if f" {words} " in _words(file)]
        chosen += sorted(matching, key=lambda file, last=f" {words} ": not _words(file).endswith(last))
    if not chosen:
        raise CannotRun(f"there are no tests of {', '.join(mutation.tests)}")
    return [str(file) for file in dict.fromkeys(chosen)]


def _words(file: Path) -> str:
    words = re.split(r"[_/]", file.with_suffix("").as_posix())
    return f" {' '.join(word for word in words if word not in {'test', 'tests'})} "


def failures(copy: Path, tests: list[str], *, first: bool) -> list[str]:
    """Run tests and list those that fail.

    Parameters
    ----------
    copy : Path
        The tree to run them in.
    tests : list of str
    first : bool
        Whether to end with the first failure.

    Returns
    -------
    list of str
        Their names without their parameters.

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
        ran = subprocess.run(
            command, cwd=copy, env=variables, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"the tests take more than {LONGEST_SECONDS} s") from None
    failed = FAILED.findall(ran.stdout)
    if ran.returncode not in {0, 1} or bool(failed) != bool(ran.returncode):
        last = (ran.stdout + ran.stderr).strip().splitlines()[-1:]
        raise CannotRun(f"pytest ended with status {ran.returncode}: {' '.join(last)}")
    return list(dict.fromkeys(failed))


@contextmanager
def copied(tree: Path, files: list[Path]) -> Iterator[Path]:
    """Lend a copy of a tree."""
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
        Where the mutation is, and the test that fails first or SURVIVED.
    """
    place, tests = place_of(mutation, tree, files), chosen_tests(mutation, files)
    with copied(tree, files) as copy:
        original = (copy / place).read_text(encoding="utf-8")
        (copy / place).write_text(original.replace(mutation.find, mutation.replace), encoding="utf-8")
        failed = failures(copy, tests, first=True)
    return str(place), f"`{failed[0]}`" if failed else SURVIVED


def fail_anyhow(table: str, tree: Path, files: list[Path]) -> list[str]:
    """List those tests of a table of results that fail without any mutation."""
    tests = list(dict.fromkeys(re.findall(r"`(\S+::\S+)`", table)))
    with copied(tree, files) as copy:
        return failures(copy, tests, first=False) if tests else []


def places(table: list[Mutation], tree: Path, files: list[Path]) -> int:
    """Print where each mutation would go and which test files it would run; 2 if any has no place or no tests."""
    status = 0
    for mutation in table:
        try:
            told = f"{place_of(mutation, tree, files)}: {' '.join(chosen_tests(mutation, files))}"
        except CannotRun as reason:
            told, status = f"{CANNOT}: {reason}", 2
        sys.stdout.write(f"{mutation.name}: {told}\n")
    return status


def row_of(mutation: Mutation, tree: Path, files: list[Path]) -> str:
    """Try one mutation and give its row of the table of results."""
    begun = time.monotonic()
    try:
        place, result = outcome(mutation, tree, files)
    except CannotRun as reason:
        place, result = "", f"{CANNOT}: {reason}".replace("|", "\\|")
    return f"| {mutation.name} | {place} | {result} | {time.monotonic() - begun:.0f} |\n"


def _so_far(output: Path | None) -> str:
    """Give the table that an earlier run has written, without what could not be run."""
    if output is None or not output.exists():
        return HEADER
    lines = output.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if CANNOT not in line)


def main() -> int:
    """Try the mutations that have no row in the output yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--tree", type=Path, default=Path(__file__).parents[1], help="a git checkout; default: this one"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only mutations that begin like this")
    parser.add_argument("--output", type=Path, help="file for the table of results, to which rows are added")
    parser.add_argument("--places", action="store_true", help="run nothing; say where each mutation would go")
    given = parser.parse_args()
    tree, rows, table = given.tree.resolve(), [], mutations(given.only)
    files = tracked(tree)
    if given.places:
        return places(table, tree, files)
    written = _so_far(given.output)
    if given.output:
        given.output.write_text(written, encoding="utf-8")
    sys.stdout.write(written)
    for mutation in table:
        if f"| {mutation.name} |" in written:
            continue
        rows.append(row_of(mutation, tree, files))
        sys.stdout.write(rows[-1])
        sys.stdout.flush()
        if given.output:
            with given.output.open("a", encoding="utf-8") as file:
                file.write(rows[-1])
    everything = written + "".join(rows)
    wrong = fail_anyhow(everything, tree, files)
    for test in wrong:
        sys.stdout.write(f"{test} fails without any mutation, too, and shows nothing.\n")
    return 2 if wrong or CANNOT in everything else int(SURVIVED in everything)


if __name__ == "__main__":
    sys.exit(main())
