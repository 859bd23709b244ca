#!/usr/bin/env python3
"""What the program is linked with, and under which licences: packaging/licences.py TARGET > third-party-licences.txt

Reads `cargo metadata`: every crate that the program or a build script of its crates needs on the target. Build scripts count,
because they bring C libraries (OpenSSL, librdkafka, SQLite, zstd) that are linked in. Texts that several share stand once.
"""

import json
import pathlib
import subprocess
import sys

NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE")
# Where crates carry the C library that they build.
BUNDLED = ("librdkafka/LICENSES.txt", "openssl/LICENSE.txt", "zstd/LICENSE", "sqlite3/sqlite3.h")


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def linked(found):
    """The ids reachable from the program over anything but dependencies of tests."""
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    seen, waiting = set(), [found["resolve"]["root"]]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for dep in nodes[here]["deps"]:
            if any(kind["kind"] != "dev" for kind in dep["dep_kinds"]):
                waiting.append(dep["pkg"])
    return seen - {found["resolve"]["root"]}


def texts(folder):
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name.upper().startswith(NAMES)]
    files += [folder / name for name in BUNDLED if (folder / name).is_file()]
    for path in files:
        text = path.read_text(errors="replace")
        # SQLite is in the public domain and says so at the head of its header.
        yield text.split("*/")[0] + "*/" if path.name == "sqlite3.h" else text.strip()


def main():
    found = metadata(sys.argv[1])
    ids = linked(found)
    packages = sorted((p for p in found["packages"] if p["id"] in ids), key=lambda p: (p["name"], p["version"]))
    print(f"Forebay is linked with {len(packages)} crates and what they bring. Their licences:\n")
    users, without = {}, []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        print(f"  {name:<40} {package['license'] or 'see its text'}  {package['repository'] or ''}".rstrip())
        own = list(texts(pathlib.Path(package["manifest_path"]).parent))
        for text in own:
            users.setdefault(text, []).append(name)
        if not own:
            without.append(name)
    print("\nWithout a text of their own in what is published: " + (", ".join(without) or "none") + ".")
    for text, names in users.items():
        print("\n" + "=" * 100 + "\n" + ", ".join(names) + "\n" + "=" * 100 + "\n")
        print(text)


main()
