"""How threads wait for each other."""

import os
import subprocess
import sys

import pytest

from napari_unetvnet.cli.threads import SPINS, wait_briefly

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_threads_spin_for_a_moment_unless_the_user_has_said_otherwise(monkeypatch, own):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    environment = dict(os.environ)
    monkeypatch.setattr(os, "environ", environment)
    wait_briefly()
    found = {name: environment[name] for name in NAMES if name in environment}
    assert found == (own or {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(SPINS)})


def test_the_command_line_sets_it_before_torch_is_there():
    code = (
        "import os, runpy, sys; sys.argv = ['napari-unetvnet', '--version']\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': print('torch', os.environ.get('GOMP_SPINCOUNT'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "try: runpy.run_module('napari_unetvnet', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import torch\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("torch")] == [f"torch {SPINS}"]
