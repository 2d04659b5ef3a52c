"""Generate docs/reference/, and the lists in README.md, from the settings and the registries, so that they agree.

Run: python scripts/reference.py            write the pages (make docs)
     python scripts/reference.py --check    fail if a page is not up to date
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unetvnet.cli.arguments import Parser, option_rows
from napari_unetvnet.cli.models import add_models
from napari_unetvnet.cli.runs import add_runs
from napari_unetvnet.data.targets import TARGET_MAPS
from napari_unetvnet.images.formats import FLOATS, FORMATS, INTEGERS, Format, listed, sentence
from napari_unetvnet.losses import LOSSES, PURPOSES
from napari_unetvnet.metrics import EvaluateSettings
from napari_unetvnet.networks import FAMILIES, NETWORKS
from napari_unetvnet.networks.facts import network_facts
from napari_unetvnet.settings import CleanJob, ConvertJob, InspectJob, SegmentJob, TrainJob

README = Path(__file__).parents[1] / "README.md"
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from napari_unetvnet.cli.arguments import Add

REFERENCE = README.parent / "docs" / "reference"
MADE = "<!-- Made by `make docs`; change the docstrings and descriptions it reads, not this page. -->\n"

COMMANDS = """
| command | what it does |
|---|---|
| `train` | Train a model on images with labels. |
| `segment IMAGE` | Segment an image with a model. |
| `inspect IMAGE` | Show what a model computes besides labels, as maps on the grid of an image. |
| `check` | Look for mistakes in images and labels; takes the options of `train`; `--json`. |
| `convert FOLDER` | Make one HDF5 set of the files of many subjects with several modalities. |
| `clean LABELS` | Clean a label file, and divide it into objects. |
| `evaluate PREDICTION TRUTH` | Compare labels with the truth: files or folders; `--json`, `--csv`. |
| `sweep` | Train several networks and losses, or folds, one after the other, and compare them. |
| `compare RUN ...` | Rank trainings on the same hold-out, with their curves and cost. |
| `run FOLDER` | Run the job of a run folder; `--resume` continues an interrupted run. |
| `runs list`, `show`, `prune`, `limit` | List, show or remove the runs that are kept on the disk. |
| `networks`, `losses`, `models` | List networks, losses, models (`--for IMAGE`: the best first); `--json`. |
| `models rename`, `remove`, `export`, `import`, `path` | What is done with one model. |
| `demo` | Segment a real image with a shipped model, then improve it by half a minute of training. |

Every option of `train`, `segment` and `inspect` can also be set in a JSON file for `--settings`, under the same name
with `_` for `-`; the `job.json` of a run is such a file. Options on the command line override those of the file.

Exit status: 0 success, 2 user error, 1 a bug, 130 stopped by Ctrl-C, a termination signal or a terminal that
was closed (progress is saved).
"""


ACTIONS = (add_runs, add_models)
"""What adds the commands that have actions."""
COMMAND_SETTINGS = (
    ("train", TrainJob),
    ("segment", SegmentJob),
    ("inspect", InspectJob),
    ("convert", ConvertJob),
    ("clean", CleanJob),
    ("evaluate", EvaluateSettings),
)


def command_line() -> str:
    """Write the page of commands and options."""
    parts = ["# Command line and settings\n", MADE, COMMANDS]
    for title, kind in COMMAND_SETTINGS:
        parts.append(f"\n## {title}\n\n| option | default | meaning |\n|---|---|---|\n")
        parts += [f"| `{flag}` | {default} | {_cell(text)} |\n" for flag, default, text in option_rows(kind)]
    for add_command in ACTIONS:
        parts += _actions(add_command)
    return "".join(parts)


def _actions(add_command: Callable[[Add], None]) -> Iterable[str]:
    """Write a section for a command with actions: each action, and its options."""
    commands = argparse.ArgumentParser().add_subparsers(parser_class=Parser)
    add_command(lambda name, _, text: commands.add_parser(name, description=text))
    for name, command in commands.choices.items():
        (actions,) = (each for each in command._actions if isinstance(each, argparse._SubParsersAction))
        yield f"\n## {name}\n\n{command.description}\n"
        yield from _rows(each for each in command._actions if each is not actions)
        for title, action in actions.choices.items():
            yield f"\n`{name} {title}`: {action.description}\n"
            yield from _rows(action._actions)


def _rows(arguments: Iterable[argparse.Action]) -> Iterable[str]:
    """Write a table of arguments."""
    arguments = [each for each in arguments if each.dest != "help"]
    yield "\n| option | meaning |\n|---|---|\n" if arguments else ""
    for each in arguments:
        flag = " ".join([*each.option_strings[:1], *([str(each.metavar)] if each.metavar else [])])
        yield f"| `{flag}` | {_cell(each.help or '')} |\n"


def tables() -> str:
    """Write the page of networks, losses and the maps that losses need."""
    parts = ["# Networks and losses\n", MADE, _sizes()]
    for title, registry in (("Networks", NETWORKS), ("Losses", LOSSES)):
        parts.append(f"\n## {title}\n")
        for name in registry:
            described = registry.describe(name)
            parts.append(f"\n### `{name}`\n\n{described.summary}\n")
            if heads := described.facts.get("head_modes"):
                parts += [_indented(described.section("Notes")), f"\nHeads: {', '.join(heads)}.\n"]
                parts += _needs(described.facts.get("needs", ()))
                parts.append(_sources(described.section("References")))
            if described.options:
                parts.append("\n| option | default | choices | meaning |\n|---|---|---|---|\n")
            for option in described.options:
                choices = ", ".join(f"`{choice}`" for choice in option.choices)
                parts.append(f"| `{option.name}` | `{option.default}` | {choices} | {_cell(option.help)} |\n")
    return "".join([*parts, _maps()])


def _needs(needs: tuple[str, ...]) -> list[str]:
    """Write the inputs of a loss besides logits and labels."""
    inputs = [
        f"{need} ([map of the labels](#target-maps))" if need in TARGET_MAPS else f"{need} (output of a network)"
        for need in needs
    ]
    return [f"\nNeeds: {', '.join(inputs)}.\n"] if inputs else []


def _maps() -> str:
    """Write the table of target maps."""
    rows = ["\n## Target maps\n\nComputed from the labels where a loss needs them.\n\n"]
    rows.append("| map | reaches the loss as | resampled by | meaning |\n|---|---|---|---|\n")
    for name, row in TARGET_MAPS.items():
        how = "weight of each voxel" if row.use == "weight" else "map"
        rows.append(f"| `{name}` | {how} | {row.interpolation} | {_cell(row.help)} |\n")
    return "".join(rows)


def _sizes() -> str:
    """Write the sizes of each network at its default options, as in `napari-unetvnet networks --json`."""
    rows = ["\nAt the default options, which are those of the source, for 1 input and 1 output channel:\n\n"]
    rows.append("| network | dims | multiples of | parameters | file |\n|---|---|---|---|---|\n")
    for name in NETWORKS:
        facts = network_facts(name)
        dims = ", ".join(f"{dims}D" for dims in facts["dims"])
        divisor = " x ".join(map(str, facts["divisor"] or ["?"]))
        file = NETWORKS[name].partition(":")[0].replace(".", "/") + ".py"
        count = "?" if facts["parameters"] is None else f"{facts['parameters']:,}"
        rows.append(f"| `{name}` | {dims} | {divisor} | {count} | `{file}` |\n")
    return "".join(rows)


def formats() -> str:
    """Write the page of file formats."""
    parts = ["# File formats\n", MADE, "\nThe ending decides the format. Labels are written in the smallest type that "]
    parts.append("holds them.\n\n| format | endings | labels as | fractions as | keeps | limits of a result |\n")
    parts.append("|---|---|---|---|---|---|\n")
    for each in FORMATS:
        types = (listed(dtype for dtype in each.dtypes if dtype in kinds) for kinds in (INTEGERS, FLOATS))
        cells = [each.name, listed(f"`{ending}`" for ending in each.endings), *types, listed(each.keeps), _limits(each)]
        parts.append(f"| {' | '.join(cells)} |\n")
    parts += ["\n", *(f"- **{each.name}**: {each.note}\n" for each in FORMATS if each.note)]
    endings = listed(f"`{ending}`" for each in FORMATS for ending in each.in_parts)
    parts.append(f"\nOf files with these endings only what is needed is read, if they are not compressed: {endings}.\n")
    return "".join(parts)


def _limits(each: Format) -> str:
    """Write the limits of a result, or that the format is read only."""
    if not each.dtypes:
        return "images, read only" if each.lossy else "read only"
    limits = ((each.planes, "plane"), (each.masks, "mask"), (None if each.time else 1, "time point"))
    return listed(f"{limit} {noun if limit == 1 else noun + 's'}" for limit, noun in limits if limit)


def readme() -> str:
    """Update the lists of networks, losses and formats in README.md."""
    text = README.read_text(encoding="utf-8")
    lists = {
        "networks": _families("networks", FAMILIES),
        "losses": _families("losses", PURPOSES),
        "formats": sentence(),
    }
    for name, part in lists.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        text = re.sub(f"{begin}.*?{end}", lambda _, part=part, b=begin, e=end: f"{b}{part}{e}", text, flags=re.DOTALL)
    return text


def _families(title: str, families: Mapping[str, Iterable[str]]) -> str:
    """Write a table with a row for each family."""
    rows = [f"| {title} | |", "|---|---|"]
    rows += [f"| {family} | {', '.join(f'`{name}`' for name in names)} |" for family, names in families.items()]
    return "\n" + "\n".join(rows) + "\n"


def _indented(formula: str) -> str:
    """Format a formula as a text block."""
    return f"\n```text\n{formula}\n```\n"


def _sources(references: str) -> str:
    """Write the references as a list."""
    texts = [" ".join(text.split()) for text in re.split(r"\.\. \[\d+\]", references)[1:]]
    return "\n" + "".join(f"- {text}\n" for text in texts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write or check the pages."""
    stale = []
    pages = {REFERENCE / "command-line.md": command_line(), REFERENCE / "tables.md": tables()}
    pages |= {REFERENCE / "formats.md": formats(), README: readme()}
    for path, text in pages.items():
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"Not up to date: {', '.join(stale)}; run make docs")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
