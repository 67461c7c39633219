"""Reads our recipes with BitBake's own library, without OpenEmbedded.

The classes of OpenEmbedded and meta-rauc are not available from PyPI. They are replaced by empty ones and by the
few variables that our recipes use. Therefore, the tests check only the contents and the syntax of *our* files. The
commands in docs/yocto.md check that these files work with the real classes.
"""

import pathlib
import sys
import types

# Not included in the wheel; needed only to share builds between machines.
for name in ("hashserv", "hashserv.client"):
    sys.modules.setdefault(name, types.ModuleType(name))

import bb.data
import bb.event
import bb.parse
import bb.siggen
import bb.utils

ROOT = pathlib.Path(__file__).parents[2]
LAYER = ROOT / "meta-berrymse"
FOREIGN_CLASSES = ("bundle", "cargo", "deploy", "image", "native", "nopackages", "systemd", "update-rc.d", "useradd")


def config(folder, overrides="", **values):
    """Returns a data store with the configuration of a build. The empty classes are written to `folder`."""
    for name in FOREIGN_CLASSES:
        at = folder / "classes-recipe" / f"{name}.bbclass"
        at.parent.mkdir(parents=True, exist_ok=True)
        at.touch()
    d = bb.data.init()
    d.setVar("__bbclasstype", "recipe")
    d.setVar("TOPDIR", str(folder))
    d.setVar("BBPATH", f"{LAYER}:{folder}")
    d.setVar("BERRYMSE_TREE", str(ROOT))
    d.setVar("OVERRIDES", overrides)
    d.setVar("PN", "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[0] or 'defaultpkgname'}")
    d.setVar("BPN", "${PN}")
    d.setVar("FILESPATH", "${FILESEXTRAPATHS}${FILE_DIRNAME}/files")
    d.setVar("FILE_DIRNAME", "${@os.path.dirname(d.getVar('FILE', False))}")
    d.setVar("THISDIR", "${@os.path.dirname(d.getVar('FILE', False))}")
    d.setVar("UNPACKDIR", "/unpacked")
    d.setVar("MACHINE", "qemuarm64")
    d.setVar("DISTRO_FEATURES", "")
    for name, value in {"bindir": "/usr/bin", "datadir": "/usr/share", "sysconfdir": "/etc", **values}.items():
        d.setVar(name, value)
    bb.parse.siggen = bb.siggen.init(d)
    return d


def read(path, d):
    """Parses a recipe and returns its variants: {"": data, "native": data}."""
    d.setVar("FILE", str(path))
    return {name: data for name, data in bb.parse.handle(str(path), d).items()}


def append(path, d):
    """Applies a .bbappend or a class to `d`."""
    d.setVar("FILE", str(path))
    return bb.parse.BBHandler.handle(str(path), d, True)
