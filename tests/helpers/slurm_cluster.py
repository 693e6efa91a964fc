"""A true Slurm on this one host, from Debian's packages slurm-wlm and munge: its controller, one
node with two cores, and the daemon that signs their messages, all on the loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """\
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=node1 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Reason for which no Slurm can be started here; empty: it can."""
    if absent := [name for name in (*DAEMONS, "sbatch") if not shutil.which(name, path=path())]:
        return f"{absent[0]} is not installed (apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "slurmd runs jobs as root alone"


def path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """A Slurm that sbatch and the like find by SLURM_CONF; it and its jobs end with the context.

    Args:
        folder: of its files; short, since a socket lies in it.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key, conf = folder / "key", folder / "slurm.conf"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    controller, node = free_ports(2)
    conf.write_text(
        CONF.format(folder=folder, controller=controller, node=node, host=socket.gethostname())
    )
    os.environ["SLURM_CONF"] = str(conf)
    try:
        start("munged", f"--key-file={key}", f"--socket={folder}/munge.socket", "--force",
              f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
              f"--seed-file={folder}/munged.seed")  # fmt: skip
        start("slurmctld", "-f", str(conf))
        start("slurmd", "-N", "node1", "-f", str(conf))
        wait_for_node()
        yield
        subprocess.run(["scancel", "--signal=KILL", "--user=root"], check=False)
    finally:
        for name in reversed(DAEMONS):
            end(folder / f"{name}.pid")
        del os.environ["SLURM_CONF"]


def start(*words: str) -> None:
    done = subprocess.run(words, env={**os.environ, "PATH": path()}, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


def wait_for_node() -> None:
    deadline = time.monotonic() + 30
    while "idle" not in called("sinfo", "--noheader", "--format=%T"):
        assert time.monotonic() < deadline, called("sinfo")
        time.sleep(0.2)


def end(pid_file: Path) -> None:
    """End a daemon, and wait for it."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def called(*words: str) -> str:
    """What a command of Slurm's prints."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
