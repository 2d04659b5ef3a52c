"""Damage, interrupt and overload the program for long, and write what happened to soak.md.

Run: make soak                                  all of it, at most 40 minutes on 2 cores
     python benchmarks/soak.py --minutes 10     as much of each part as fits
     python benchmarks/soak.py --parts fuzz     one part: faults, fuzz, kills, runs, volume

The tests in tests/robust do a small share of the same in every run of the suite.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "robust")]
REPORT = Path(__file__).with_suffix(".md")
INPUTS, INPUTS_A_TASK = 1_800, 150
KILLS, KILLS_A_TASK = 100, 5
SHARES = 16
"""Tasks in which the calls of a work are divided, so that each has some of its beginning and of its end."""
RUNS, PLANES, LIMIT = 200, 4096, 2 << 30
LONGEST_LINE = 300
WHAT = {
    "faults": "calls to the disk, each of which failed (full disk, no permission, I/O error) or ended the process",
    "viewer": "calls to the disk while the viewer writes its layers, likewise",
    "fuzz": "damaged files of 17 kinds",
    "kills": "runs killed by signal 9 at random and resumed",
    "runs": "runs in a row in one process: memory, handles and threads flat",
    "volume": "GiB of voxels segmented into zarr in 2 GiB of address space",
}

MEANING = [
    "Wrong is a traceback, a process that ended, more than 20 s for a damaged file, a result that is neither the old",
    "one nor the whole new one, other bytes after a resume, or a file that was left behind.",
]


def begin(folder):
    """Make the inputs and the model in a new folder of this process."""
    import torch
    from fuzz import readers
    from loop import write_more_inputs
    from work import follow, training, write_inputs

    torch.set_num_threads(1)
    own = Path(tempfile.mkdtemp(dir=folder))
    os.environ |= {"NAPARI_UNETVNET_CACHE": str(own / "cache"), "NAPARI_UNETVNET_RUNS": str(own / "runs")}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # ITK and the progress of runs
    files = write_inputs(own)
    follow(training(files, files / "run"))
    shutil.copyfile(files / "run" / "model.safetensors", files / "model.safetensors")
    write_more_inputs(files)
    STATE.update(files=files, readers=readers(files), kills={})


STATE = {}
"""Of a process: the folder with the inputs, the readers, and the kinds of work that are killed."""


def tasks(parts):
    """List the tasks of each part."""
    from faults import KINDS
    from loop import WORKS
    from test_fuzz import NAMES

    lists = defaultdict(list)
    for kind in KINDS:
        lists["viewer"].append(("viewer", kind))
    for share in range(SHARES):
        lists["faults"] += [("faults", i, kind, share) for i in range(len(WORKS)) for kind in KINDS]
    for start in range(0, INPUTS, INPUTS_A_TASK):
        lists["fuzz"] += [("fuzz", name, start) for name in NAMES]
    from endurance import MAKE

    lists["kills"] = [("kills", kind, s) for s in range(0, KILLS // len(MAKE), KILLS_A_TASK) for kind in MAKE]
    lists["runs"], lists["volume"] = [("runs",)], [("volume",)]
    return {part: lists[part] for part in parts}


def work(task):
    """Do a task; give its part, how many cases it had, and what was wrong."""
    try:
        return task[0], *globals()[f"do_{task[0]}"](*task[1:])
    except AssertionError as error:
        return task[0], 1, [f"{task}: {error}"]
    except BaseException:  # noqa: BLE001 (all that may happen is counted)
        return task[0], 1, [f"{task}: {traceback.format_exc()}"]


def do_faults(index, kind, share):
    """Let some calls of a work fail."""
    from loop import WORKS, calls_of, check

    one, files, bad = WORKS[index], STATE["files"], []
    numbers = range(1 + share, calls_of(one, files, kind) + 1, SHARES)
    for n in numbers:
        try:
            check(one, files, kind, n)
        except BaseException:  # noqa: BLE001
            bad.append(f"{one.name}, {kind} at call {n}: {traceback.format_exc()}")
    return len(numbers), bad


def do_viewer(kind):
    """Let each call fail while the viewer writes its layers."""
    from loop import check_viewer

    from napari_unetvnet.widgets import task

    task.runs.start = lambda _: None
    folder, n = Path(tempfile.mkdtemp(dir=STATE["files"])), 1
    while check_viewer(folder, kind, n) is not None:
        n += 1
    return n - 1, []


def do_fuzz(name, start):
    """Read damaged files; those that crash are added to the corpus."""
    from fuzz import fuzz, keep

    folder, row = Path(tempfile.mkdtemp(dir=STATE["files"])), STATE["readers"][name]
    counts, bad = fuzz(row, folder, name, range(start, start + INPUTS_A_TASK))
    lines = [f"{name} {n}: kept as {keep(row, folder, name, n)}: {text}" for n, text in bad]
    shutil.rmtree(folder)
    return sum(counts.values()) + len(bad), lines


def do_kills(kind, start):
    """Kill runs and resume them."""
    from endurance import Kills

    folder = Path(tempfile.mkdtemp(dir=STATE["files"]))
    kills = STATE["kills"].setdefault(kind, None) or Kills(kind, STATE["files"], folder)
    STATE["kills"][kind] = kills
    for seed in range(start, start + KILLS_A_TASK):
        kills.kill(seed)
    return KILLS_A_TASK, []


def do_runs():
    """Run many segmentations in one process."""
    from endurance import check_flat, runs_in_a_row

    facts = runs_in_a_row(STATE["files"], Path(tempfile.mkdtemp(dir=STATE["files"])), RUNS)
    check_flat(facts)
    return RUNS, []


def do_volume():
    """Segment more voxels than there is address space."""
    from endurance import large_volume

    large_volume(STATE["files"], Path(tempfile.mkdtemp(dir=STATE["files"])), PLANES, LIMIT)
    return PLANES / 1024, []


def run(parts, minutes, workers):
    """Do the tasks in turn, so that each part gets its share of the time; give cases, tasks and errors of each part."""
    lists = tasks(parts)
    queue = [
        task for _, task in sorted((i / len(some), task) for some in lists.values() for i, task in enumerate(some))
    ]
    done, cases, bad = Counter(), Counter(), []
    end, folder = time.monotonic() + 60 * minutes, tempfile.mkdtemp(prefix="soak-")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, begin, (folder,)) as pool:
        pending = set()
        while (queue and time.monotonic() < end) or pending:
            while queue and len(pending) < workers and time.monotonic() < end:
                pending.add(pool.submit(work, queue.pop(0)))
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for part, count, errors in (future.result() for future in finished):
                done[part] += 1
                cases[part] += count
                bad += [(part, text) for text in errors]
    shutil.rmtree(folder, ignore_errors=True)
    return {part: (done[part], len(some), cases[part]) for part, some in lists.items()}, bad


def report(rows, bad, seconds, command):
    """Write the figures."""
    from napari_unetvnet import __version__

    share = "; ".join(f"{part} {done} of {of}" for part, (done, of, _) in rows.items() if done < of)
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    lines = [
        "# Soak test",
        "",
        "Made by `make soak` ([soak.py](soak.py)); the tests in `tests/robust` do a small share of it in every run.",
        "",
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, version {__version__}, {machine}, {seconds / 60:.1f} minutes.",
        f"Not all of it was run, but of the tasks: {share}." if share else "All of it was run.",
        "",
        "| part | cases | what | wrong |",
        "|---|---|---|---|",
    ]
    wrong = Counter(part for part, _ in bad)
    lines += [f"| {part} | {count:g} | {WHAT[part]} | {wrong[part]} |" for part, (_, _, count) in rows.items()]
    lines += ["", *MEANING, ""]
    if bad:
        lines += ["## What was wrong", "", "```", *(_short(text) for _, text in bad), "```", ""]
    REPORT.write_text("\n".join(lines), encoding="utf-8")
    return "\n".join(lines)


def _short(text):
    first, last = text.strip().splitlines()[0], text.strip().splitlines()[-1]
    return first[:LONGEST_LINE] if first == last else f"{first[:LONGEST_LINE]} ... {last[:LONGEST_LINE]}"


def main():
    """Do what the command line says, and end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=38, help="no task is started after that (default 38)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=WHAT, default=list(WHAT))
    parsed = parser.parse_args()
    begun = time.monotonic()
    rows, bad = run(parsed.parts, parsed.minutes, parsed.workers)
    command = " ".join(["python", "benchmarks/soak.py", *sys.argv[1:]])
    print(report(rows, bad, time.monotonic() - begun, command))
    for _, text in bad:
        print(text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
