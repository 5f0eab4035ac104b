#!/usr/bin/env python3
"""Licences, duplicates and unused dependencies of one package, by `cargo metadata`: no tool is to be built."""

import collections
import json
import pathlib
import re
import subprocess
import sys
import tomllib

manifest = pathlib.Path(sys.argv[1])
deny = tomllib.loads(pathlib.Path("deny.toml").read_text())
allowed = set(deny["licenses"]["allow"])
skipped = {skip["crate"].partition("@")[0] for skip in deny["bans"].get("skip", [])}

command = ["cargo", "metadata", "--format-version=1", "--all-features", "--manifest-path", manifest]
metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
root = metadata["resolve"]["root"]
used = {node["id"] for node in metadata["resolve"]["nodes"]}
packages = [package for package in metadata["packages"] if package["id"] in used]
complaints = []


def is_allowed(expression):
    """An expression of SPDX, or two licences with a slash between them, which was the way before."""
    expression = re.sub(r"\s*/\s*", " OR ", expression or "none")
    atom = r"[A-Za-z0-9.+-]+(?: WITH [A-Za-z0-9.+-]+)?"
    replace = lambda match: match[0].lower() if match[0] in ("AND", "OR") else str(match[0] in allowed)
    return eval(re.sub(atom, replace, expression))  # Only True, False, and, or and brackets are left.


for package in packages:
    if package["source"] and not is_allowed(package["license"]):
        complaints.append(f"{package['name']} {package['version']}: licence {package['license']}")

# As cargo-deny does: those of dev-dependencies are compiled by nobody else.
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
shipped, to_visit = set(), [root]
while to_visit:
    node = to_visit.pop()
    if node not in shipped:
        shipped.add(node)
        deps = nodes[node]["deps"]
        to_visit += [dep["pkg"] for dep in deps if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
versions = collections.defaultdict(set)
for package in packages:
    if package["id"] in shipped:
        versions[package["name"]].add(package["version"])
for name, several in versions.items():
    if len(several) > 1 and name not in skipped:
        complaints.append(f"{name}: {' and '.join(sorted(several))}")

# As cargo-machete does: a dependency whose name is nowhere in the sources is not used.
directory = manifest.parent
own = next(package for package in packages if package["id"] == root)
below = [directory / "src", directory / "tests", directory / "benches"]
sources = [path for part in below for path in part.rglob("*.rs")] if directory == pathlib.Path() else directory.rglob("*.rs")
text = "\n".join(path.read_text() for path in sources if "target" not in path.parts)
for dependency in own["dependencies"]:
    name = (dependency["rename"] or dependency["name"]).replace("-", "_")
    if not re.search(rf"\b{name}\b", text):
        complaints.append(f"{name} is not used")

print(f"{manifest}: {len(packages)} packages: licences, duplicates, unused: {len(complaints)} complaints")
sys.exit("\n".join(complaints) or 0)
