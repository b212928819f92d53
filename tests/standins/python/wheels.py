"""Makes wheels (PEP 427) of Python packages that Debian installed, and takes those away.

    wheels.py DIST_PACKAGES WHEELS NAME[:NEED,...]...

What a package needs is said here: Debian takes most of it out of a package's metadata, and says it in
its own control file, by the names of Debian's packages.
"""

import pathlib
import shutil
import sys
import zipfile


def metadata(info: pathlib.Path, needs: list[str]) -> str:
    """The wheel's METADATA: what the package says of itself, and what it needs."""
    head, _, text = (info / "PKG-INFO").read_text().partition("\n\n")
    return "\n".join([head, *(f"Requires-Dist: {need}" for need in needs)]) + "\n\n" + text


def make_wheel(site: pathlib.Path, to: pathlib.Path, info: pathlib.Path, needs: list[str]) -> None:
    name, version = info.name.removesuffix(".egg-info").split("-")[:2]
    modules = [site / module for module in (info / "top_level.txt").read_text().split()]
    files = [file for module in modules for file in sorted(module.rglob("*")) if file.is_file()]
    native = any(file.suffix == ".so" for file in files)
    tag = "cp311-cp311-linux_x86_64" if native else "py3-none-any"
    about = f"{name}-{version}.dist-info"
    extra = {
        "METADATA": metadata(info, needs),
        "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {str(not native).lower()}\nTag: {tag}\n",
    }
    if (info / "entry_points.txt").exists():
        extra["entry_points.txt"] = (info / "entry_points.txt").read_text()
    record = ""
    with zipfile.ZipFile(to / f"{name}-{version}-{tag}.whl", "w") as out:
        for file in files:
            inside = file.relative_to(site)
            out.writestr(zipfile.ZipInfo(str(inside)), file.read_bytes())
            record += f"{inside},,\n"
        for file, text in extra.items():
            out.writestr(zipfile.ZipInfo(f"{about}/{file}"), text)
            record += f"{about}/{file},,\n"
        out.writestr(zipfile.ZipInfo(f"{about}/RECORD"), record + f"{about}/RECORD,,\n")
    for module in [*modules, info]:
        shutil.rmtree(module)


def main() -> None:
    site, to = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    to.mkdir(parents=True)
    for package in sys.argv[3:]:
        name, _, needs = package.partition(":")
        (info,) = site.glob(f"{name}-*.egg-info")
        make_wheel(site, to, info, needs.split(",") if needs else [])


main()
