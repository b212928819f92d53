"""Takes away the Node modules that nothing of what is named needs: closure.py MODULES NAME..."""

import json
import pathlib
import shutil
import sys

root = pathlib.Path(sys.argv[1])
needed, todo = set(), sys.argv[2:]
while todo:
    name = todo.pop()
    if name not in needed:
        needed.add(name)
        # Modules may carry others, which need more.
        for about in (root / name).rglob("package.json"):
            todo += json.loads(about.read_text()).get("dependencies", {})
# Those within a scope (`@scope/name`) first: a scope goes when nothing of it is needed.
for path in [*root.glob("@*/*"), *root.iterdir()]:
    name = str(path.relative_to(root))
    if path.name == "node_modules":  # A link by which a scope's modules find more of them.
        continue
    if any(kept == name or kept.startswith(f"{name}/") for kept in needed):
        continue
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)
