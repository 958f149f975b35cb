#!/usr/bin/env python3
"""The benchmarking guide's script of this name: `bkbench run` with the same flags, see docs/guide-map.md.
BKBENCH names the program; without it cargo builds and runs it."""

import os
import pathlib
import subprocess
import sys

MANIFEST = str(pathlib.Path(__file__).resolve().parents[1] / "Cargo.toml")
CARGO = ["cargo", "run", "--quiet", "--locked", "--manifest-path", MANIFEST, "--bin", "bkbench", "--"]


def bkbench(*arguments, **options):
    flags = []
    for name, value in options.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        flags += [f"--{name}", *("false" if value is False else str(value) for value in values if value is not True)]
    program = [os.environ["BKBENCH"]] if "BKBENCH" in os.environ else CARGO
    if status := subprocess.call([*program, *arguments, *flags]):
        sys.exit(status)


if __name__ == "__main__":
    bkbench("run", *sys.argv[1:])
