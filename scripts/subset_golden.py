#!/usr/bin/env python3
"""Copies some cases of a folder of golden vectors to another pair of files.

usage: subset_golden.py SOURCE_DIR NAME OUT_DIR CASE...

Reads SOURCE_DIR/NAME.json and its .safetensors, writes OUT_DIR/NAME_small.{json,safetensors} with the cases
whose names are given. Values are copied bit by bit.
"""

import json
import pathlib
import struct
import sys


def main() -> None:
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    source, name, out, *wanted = sys.argv[1:]
    source, out = pathlib.Path(source), pathlib.Path(out)
    manifest = json.loads((source / f"{name}.json").read_text())
    known = {case["name"] for case in manifest["cases"]}
    if missing := set(wanted) - known:
        sys.exit(f"{name}.json has no case {', '.join(sorted(missing))}; it has {', '.join(sorted(known))}")

    content = (source / manifest["file"]).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    entries, data = json.loads(content[8 : 8 + length]), content[8 + length :]

    manifest["file"] = f"{name}_small.safetensors"
    manifest["cases"] = [case for case in manifest["cases"] if case["name"] in wanted]
    kept, chunks, end = {}, [], 0
    for case in manifest["cases"]:
        for tensor in case["tensors"]:
            key = f"{case['name']}/{tensor}"
            begin, stop = entries[key]["data_offsets"]
            kept[key] = {**entries[key], "data_offsets": [end, end + stop - begin]}
            chunks.append(data[begin:stop])
            end += stop - begin

    header = json.dumps(kept, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    (out / f"{name}_small.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (out / manifest["file"]).write_bytes(struct.pack("<Q", len(header)) + header + b"".join(chunks))


if __name__ == "__main__":
    main()
