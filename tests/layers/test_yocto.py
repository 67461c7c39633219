"""The Yocto layer, as far as it can be checked without a build."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[2]


def test_the_crates_are_those_of_cargo_lock():
    subprocess.run([ROOT / "ci/yocto-crates", "--check"], check=True)
