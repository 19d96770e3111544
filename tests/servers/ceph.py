"""Ceph's RADOS gateway on one node (monitor, one object store, gateway), from Debian's packages, as root or not.

Why Ceph: its conditional writes are decided by the object store itself, so exactly one of many concurrent writers
wins; a late part of an aborted upload is refused; signatures are checked. The emulators fail one of the three.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.servers.debian import unpacked
from tests.servers.support import Daemon, accepts_connections, data_folder, free_port, run

_PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-base")
_NOT_NEEDED = ("libllvm", "systemd_", "locales")
_INSTEAD = "set TEST_S3_ENDPOINT, TEST_S3_ACCESS_KEY and TEST_S3_SECRET_KEY to an S3 server that has conditional writes"

_CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{monitor_port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_allow_insecure_global_id_reclaim = false

run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
keyring = {folder}/keyring
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/rgw
plugin_dir = {libraries}/ceph
erasure_code_dir = {libraries}/ceph/erasure-code
osd_class_dir = {libraries}/rados-classes

# The gateway creates eight pools before it answers, each a decision of the monitor, which gathers decisions
# for a second unless told not to: start takes 13 s with the default, 6 s with this.
paxos_propose_interval = 0.01
paxos_min_wait = 0.01

# one copy of everything, on one disk
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
mon_osd_full_ratio = 0.99
mon_osd_nearfull_ratio = 0.98

# The disk is a sparse file, which grows with what is stored: objects cost disk, not memory.
osd_objectstore = bluestore
bluestore_block_size = {disk_bytes}
bluestore_block_wal_size = 0
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
osd_memory_target = 939524096

rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_enable_apis = s3, admin
rgw_dynamic_resharding = false
# what is deleted gives its disk back within minutes, not hours
rgw_gc_obj_min_wait = 60
rgw_gc_processor_period = 60
rgw_thread_pool_size = 64
"""

_DISK_BYTES = 40 << 30


class Gateway:
    """A running gateway on `port`, and the means to add users to it."""

    def __init__(self, folder: Path) -> None:
        root = unpacked("ceph", _PACKAGES, without=_NOT_NEEDED, instead=_INSTEAD)
        self.port = free_port()
        self._folder = folder
        self._root = root
        self._libraries = next(root.glob("usr/lib/*-linux-gnu"))
        self._configuration = folder / "ceph.conf"
        self._daemons: list[Daemon] = []

    @property
    def version(self) -> str:
        found = re.search(r"version (\S+)", run(self._command("radosgw", "--version")))
        return f"Ceph RGW {found[1] if found else 'of an unknown version'}"

    def start(self, name: str, access_key: str, secret_key: str) -> None:
        """Return when the gateway answers requests of the user `name`."""
        monitor_port = free_port()
        fsid = str(uuid.uuid4())
        self._configure(fsid, monitor_port)
        self._start_monitor(fsid, monitor_port)
        self._start_object_store()
        self.add_user(name, access_key, secret_key)
        gateway = self._start("radosgw", "-n", "client.rgw")
        gateway.wait_until(lambda: accepts_connections(self.port), 60)

    def stop(self) -> None:
        """Everything it stored goes with it, so nothing is asked: SIGKILL, the gateway first."""
        while self._daemons:
            self._daemons.pop().kill()

    def add_user(self, name: str, access_key: str, secret_key: str) -> None:
        keys = (f"--access-key={access_key}", f"--secret-key={secret_key}")
        self._run("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}", *keys)

    def _configure(self, fsid: str, monitor_port: int) -> None:
        for name in ("mon", "osd", "rgw"):
            (self._folder / name).mkdir()
        text = _CONFIGURATION.format(
            fsid=fsid,
            monitor_port=monitor_port,
            port=self.port,
            folder=self._folder,
            libraries=self._libraries,
            disk_bytes=_DISK_BYTES,
        )
        self._configuration.write_text(text)

    def _start_monitor(self, fsid: str, port: int) -> None:
        keyring, map_file = self._folder / "keyring", self._folder / "monmap"
        capabilities = {
            "mon.": {"mon": "allow *"},
            "client.admin": {"mon": "allow *", "osd": "allow *"},
            "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
        }
        for entity, allowed in capabilities.items():
            words = [word for daemon, what in allowed.items() for word in ("--cap", daemon, what)]
            create = [] if keyring.exists() else ["--create-keyring"]
            run(self._command("ceph-authtool", *create, str(keyring), "--gen-key", "-n", entity, *words))
        address = f"[v2:127.0.0.1:{port}]"
        run(self._command("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, str(map_file)))
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(map_file), "--keyring", str(keyring))
        self._start("ceph-mon", "-i", "a").wait_until(lambda: accepts_connections(port), 30)

    def _start_object_store(self) -> None:
        identity = str(uuid.uuid4())
        self._ask_monitor("osd", "new", identity)
        key = self._ask_monitor("auth", "get-or-create", "osd.0", "mon", "allow profile osd", "osd", "allow *")
        with (self._folder / "keyring").open("a") as keyring:
            keyring.write(key)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
        self._start("ceph-osd", "-i", "0")

    def _start(self, program: str, *arguments: str) -> Daemon:
        daemon = Daemon(
            self._command(program, "-c", str(self._configuration), *arguments, "-f"),
            log=self._folder / f"{program}.out",
            env=self._environment(),
            folder=self._folder,
        )
        self._daemons.append(daemon)
        return daemon

    def _run(self, program: str, *arguments: str) -> str:
        command = self._command(program, "-c", str(self._configuration), *arguments)
        return run(command, env=self._environment())

    def _ask_monitor(self, *arguments: str) -> str:
        """Ceph's own command line is a Python program: it gets the Python it was packaged with."""
        script = str(self._root / "usr/bin/ceph")
        command = self._command("python3", script, "-c", str(self._configuration), "--connect-timeout=30", *arguments)
        home = self._root / "usr"
        paths = {"PYTHONHOME": str(home), "PYTHONPATH": str(home / "lib/python3/dist-packages")}
        return run(command, env={**self._environment(), **paths})

    def _command(self, program: str, *arguments: str) -> list[str]:
        """Run a packaged program with the C library it was packaged with."""
        loader = next(self._libraries.glob("ld-linux*.so*"))
        libraries = f"{self._libraries}:{self._libraries / 'ceph'}"
        return [str(loader), "--library-path", libraries, str(self._root / "usr/bin" / program), *arguments]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder), "LC_ALL": "C.UTF-8"}


@contextlib.contextmanager
def started(name: str, access_key: str, secret_key: str) -> Iterator[Gateway]:
    with data_folder("ceph") as folder:
        gateway = Gateway(folder)
        try:
            gateway.start(name, access_key, secret_key)
            yield gateway
        finally:
            gateway.stop()
