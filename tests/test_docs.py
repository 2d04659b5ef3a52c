"""What the docs show works: the how-to page's network and loss, the pages' links, the reference pages' freshness."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.losses import LOSSES, build_loss
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.registry import Registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code_blocks(page):
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    return [dedent(block) for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the import path, for modules that the page tells to write."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("two_layers", None)
    sys.modules.pop("soft_hamming", None)


def test_the_pages_network_is_one_file_and_one_line(folder):
    network, line = code_blocks("add-a-network.md")
    (folder / "two_layers.py").write_text(network)
    (name,) = re.findall(r'"(\w+)": "napari_unetvnet.networks.two_layers:TwoLayers"', line)
    table = Registry("network", {**NETWORKS, name: "two_layers:TwoLayers"})
    assert table.describe(name).defaults == {"width": 8}
    built = table.resolve(name)(3, 2, 4, **table.check_options(name, {"width": "4"}))
    assert built(torch.zeros(1, 2, 5, 6, 7)).shape == (1, 4, 5, 6, 7)


def test_the_pages_loss_is_one_function_and_one_line(folder, monkeypatch):
    module, row = code_blocks("add-a-loss.md")
    (folder / "soft_hamming.py").write_text(module)
    assert '"soft_hamming": "napari_unetvnet.losses.soft_hamming:soft_hamming"' in row
    monkeypatch.setitem(LOSSES._members, "soft_hamming", "soft_hamming:soft_hamming")
    loss = build_loss("dice + 2*soft_hamming", head="binary", power=2)
    logits = torch.full((1, 1, 4, 4), -50.0)
    assert loss(logits, torch.zeros(1, 4, 4)).item() == pytest.approx(0, abs=1e-6)
    assert loss(-logits, torch.zeros(1, 4, 4)).item() > 2


@in_one_case("page", PAGES)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_reference_pages_say_what_the_program_does():
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"], capture_output=True)
    assert done.returncode == 0, done.stdout


def test_every_network_and_loss_of_the_readme_exists():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Networks and losses")[1]
    named = set(re.findall(r"`(\w+)`", section))
    assert set(NETWORKS) | set(LOSSES) <= named
