#!/usr/bin/env python3
"""The benchmarking guide's script of this name: `bkbench plot quantization` with the same options, see docs/guide-map.md."""

import sys

try:
    from scripts.mamba_vs_bk_benchmark import bkbench
except ImportError:  # called by its path
    from mamba_vs_bk_benchmark import bkbench


def main(*arguments, **options):
    bkbench("plot", "quantization", *arguments, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
