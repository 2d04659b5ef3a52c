"""The commands that list networks and losses, and that of models."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from napari_unetvnet.cli.models import add_models
from napari_unetvnet.cli.output import print_line

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from napari_unetvnet.cli.arguments import Add, Parser
    from napari_unetvnet.registry import Registry

__all__ = ["add_listings"]


def add_listings(add: Add) -> None:
    """Add the listing commands.

    Parameters
    ----------
    add : callable
        Adds a command, given its name, its function and its description.
    """
    for name, function, text in (
        ("networks", _networks, "List the networks with their options."),
        ("losses", _losses, "List the losses with their options."),
    ):
        listing = add(name, function, text)
        listing.add_argument("--json", action="store_true", help="Print JSON.")
        if name == "networks":
            _add_network_options(listing)
    add_models(add)


def _add_network_options(parser: Parser) -> None:
    parser.add_argument("--in-channels", type=int, default=1, help="For the count of parameters. Default: 1.")
    parser.add_argument("--outputs", type=int, default=1, help="For the count of parameters. Default: 1.")
    parser.add_argument("--dims", type=int, choices=[2, 3], help="Default: those of each network's source.")


def _networks(parsed: Namespace) -> None:
    from napari_unetvnet.networks import NETWORKS

    def facts(name: str) -> dict[str, Any]:
        from napari_unetvnet.networks.facts import network_facts

        return network_facts(name, parsed.dims, parsed.in_channels, parsed.outputs)

    _list_members(NETWORKS, facts, as_json=parsed.json)


def _losses(parsed: Namespace) -> None:
    from napari_unetvnet.losses import LOSSES

    def facts(name: str) -> dict[str, Any]:
        entry = LOSSES.describe(name)
        return {
            "heads": list(entry.facts["head_modes"]),
            "needs": list(entry.facts.get("needs", ())),
            "formula": " ".join(entry.section("Notes").split()),
            "source": [" ".join(text.split()) for text in re.split(r"\.\. \[\d+\]", entry.section("References"))[1:]],
        }

    _list_members(LOSSES, facts, as_json=parsed.json)


def _list_members(registry: Registry, facts: Callable[[str], dict[str, Any]], *, as_json: bool) -> None:
    """Print the members of a registry with their descriptions and options."""
    if as_json:
        described = [registry.describe(name) for name in registry]
        rows = [
            {
                "name": entry.name,
                "summary": entry.summary,
                **facts(entry.name),
                "options": {
                    option.name: {"default": option.default, "choices": list(option.choices), "help": option.help}
                    for option in entry.options
                },
                "defined_in": entry.target,
            }
            for entry in described
        ]
        print_line(json.dumps(rows, indent=2))
        return
    for name in registry:
        entry = registry.describe(name)
        print_line(f"{name}: {entry.summary}")
        for option in entry.options:
            choices = f" of {', '.join(map(str, option.choices))}" if option.choices else ""
            print_line(f"    {option.name}={option.default}{choices}  {option.help}")
