"""A simulated machine: appliance/root with BusyBox in a chroot, and a /sys that consists of plain files.

The appliance's scripts run with BusyBox mdev and modprobe. Only operations that would affect this machine's
kernel are replaced: mounting, and inserting a module, which is recorded in /kernel/inserted instead. A module
may have a script in /kernel/probe that replaces its driver's probe function and adds devices to /sys.
"""

import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
# Unpacked by ./ci/test layers: BusyBox and its C library, in their usual directories.
BUSYBOX = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "layers/busybox"
AS_ROOT = [] if os.geteuid() == 0 else ["sudo"]
GROUPS = "root:x:0:\nvideo:x:44:\nberrymse:x:500:\n"
USERS = "root:x:0:0:root:/root:/bin/sh\nberrymse:x:500:500::/nonexistent:/bin/false\n"

# Installed in /usr/sbin, which precedes /bin in the PATH of the appliance's scripts.
REPLACED = {
    "mount": "exit 0",
    "mdev": 'echo "mdev $*" >>/kernel/log\nexec /usr/bin/busybox mdev "$@"',
    "modprobe": """
for name; do
    case $name in -*) continue ;; esac
    /usr/bin/busybox modprobe -b -q -D "$name" | sed -n 's|^insmod .*/\\([^/ ]*\\)[.]ko.*|\\1|p' | while read -r module; do
        ! grep -qx "$module" /kernel/inserted || continue
        echo "$module" >>/kernel/inserted
        echo "insert $module" >>/kernel/log
        [ ! -e "/kernel/probe/$module" ] || sh "/kernel/probe/$module"
    done
done""",
    # Started by rcS.
    "berrymse": "exit 0",
}


class Machine:
    def __init__(self, root):
        self.root = root
        shutil.copytree(ROOT / "appliance/root", root, symlinks=True)
        shutil.copytree(BUSYBOX, root, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("share", "gconv"))
        for link in ("bin", "sbin", "lib", "lib64"):
            if not (root / link).exists():
                (root / link).symlink_to(f"usr/{link}")
        for folder in ("usr/sbin", "dev", "proc", "run", "tmp", "var", "root", "kernel/probe", "data", "boot", "sys/devices", "sys/dev/char", "sys/dev/block"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        status, said = self.run("/usr/bin/busybox", "--install", "-s", "/usr/bin")
        assert status == 0, said
        for name, script in REPLACED.items():
            self.write(f"usr/sbin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)
        self.write("etc/group", GROUPS)
        self.write("etc/passwd", USERS)
        for name in ("kernel/inserted", "kernel/log"):
            self.write(name, "")
        self.modules({})

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def modules(self, modules):
        """Writes the files that depmod would generate. `modules`: {name: (aliases, required modules)}."""
        folder = f"lib/modules/{os.uname().release}"
        needs = {name: "".join(f" kernel/{need}.ko" for need in needed) for name, (_, needed) in modules.items()}
        self.write(f"{folder}/modules.dep", "".join(f"kernel/{name}.ko:{need}\n" for name, need in needs.items()))
        lines = [f"alias {alias} {name.replace('-', '_')}\n" for name, (aliases, _) in modules.items() for alias in aliases]
        self.write(f"{folder}/modules.alias", "".join(lines))

    def device(self, path, number=None, subsystem="platform", attribute=False, **uevent):
        """Adds a device to /sys, in the kernel's format. `number`: (major, minor) of a character device."""
        at = f"sys/devices/{path}"
        if number:
            uevent = {"MAJOR": number[0], "MINOR": number[1], **uevent}
            self.write(f"{at}/dev", "%d:%d\n" % number)
            (self.root / "sys/dev/char" / ("%d:%d" % number)).symlink_to(f"../../devices/{path}")
        self.write(f"{at}/uevent", "".join(f"{key}={value}\n" for key, value in uevent.items()))
        if attribute:
            self.write(f"{at}/modalias", uevent["MODALIAS"] + "\n")
        (self.root / at / "subsystem").symlink_to(f"/sys/class/{subsystem}")

    def command(self, *command, device=None, **environment):
        """Returns the command line that runs a command in new namespaces, which exist as long as the command runs,
        and without access to this machine's clock, modules or power. `device`: (a device of this machine, its name
        in the chroot)."""
        variables = [f"{name}={value}" for name, value in {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment}.items()]
        inside = [
            "setpriv", "--bounding-set=-sys_time,-sys_module,-sys_boot,-sys_rawio", "env", "-i", *variables, "chroot", self.root, *command,
        ]  # fmt: skip
        if device:
            self.write(device[1], "")
            inside = ["sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh", device[0], self.root / device[1], *inside]
        return [*AS_ROOT, "unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", *map(str, inside)]

    def run(self, *command, **environment):
        done = subprocess.run(self.command(*command, **environment), capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def nodes(self):
        """Returns the device nodes in /dev: {name: (mode, owner, group)}."""
        _, listed = self.run("/usr/bin/find", "/dev", "-type", "c", "-exec", "stat", "-c", "%n %a %U %G", "{}", "+")
        rows = (line.split() for line in listed.splitlines())
        return {name.removeprefix("/dev/"): (mode, owner, group) for name, mode, owner, group in rows}

    def read(self, name):
        return (self.root / name).read_text()
