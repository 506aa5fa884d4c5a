"""A real SLURM on this machine, to try the cluster profile without a cluster:

    python -m tests.support.local_slurm snakemake --workflow-profile slurm --slurm-status-command squeue

starts munge, the controller and one node's daemon on loopback, runs the command with them and stops them. It needs
Debian's `slurm-wlm` and `munge`, keeps all state in a temporary directory and uses nothing of the system's set-up.
Tried with SLURM 22.05 as root. Without control groups, memory and GPUs are counted but not enforced.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

_DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*_DAEMONS, "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "setpriv")
"""They must be installed."""
# The node claims more than the machine has, as the profile asks for a GPU server's memory and cores. The number of
# GPUs limits the concurrent jobs; any two character devices do as GPUs.
_GPUS = ("/dev/null", "/dev/zero")
_CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MinJobAge=3600
MailProg=/bin/true
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# Snakemake's plugin removes nearly all SLURM variables from the environment of a job's srun. Without SLURM_CONF, srun
# would look below /etc.
_SRUN = """\
#!/bin/sh
SLURM_CONF={conf} exec {srun} "$@"
"""
# The plugin falls back to sacct when the controller is slow to answer, and forgets its jobs when sacct fails, as it
# does without an accounting database. It asks for the jobs of one name, its last argument.
_SACCT = """\
#!/bin/sh
for name; do :; done
exec squeue --noheader --states=all --format="%i|%T" --name "$name"
"""


def missing_programs() -> list[str]:
    """The PROGRAMS that are not installed."""
    return [name for name in PROGRAMS if _program(name) is None]


def _program(name: str) -> str | None:
    # Daemons are in sbin, which may be missing from a user's PATH.
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 300.0, poll: float = 0.2) -> None:
    """Return when `condition()` holds. Raises TimeoutError, naming `what`, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(poll)


class LocalSlurm:
    """munged, slurmctld and slurmd in a temporary directory, as a context manager.

    environment: variables with which a command talks to this SLURM and to no other.
    """

    def __init__(self) -> None:
        absent = missing_programs()
        if absent:
            raise FileNotFoundError(f"not installed: {', '.join(absent)} (Debian: slurm-wlm and munge)")
        # A short path: that of a socket has at most 107 characters.
        self.directory = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.environment = {
            "SLURM_CONF": str(self.directory / "slurm.conf"),
            "PATH": f"{self.directory / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalSlurm:
        try:
            write_configuration(self.directory, getpass.getuser(), str(_program("srun")))
            self._start_munge()
            self._start("slurmctld", "-D")
            wait_for("the controller", lambda: "UP" in self.ask("scontrol", "ping", check=False))
            self.start_node()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_node(self) -> None:
        """Start the node's daemon and wait until the controller hears it.

        It takes over jobs that still run. The controller queues lost jobs again, to start two minutes later, if they
        were submitted with --requeue; otherwise they fail (NODE_FAIL).
        """
        self._start("slurmd", "-D")
        wait_for(
            "the node", lambda: self.ask("sinfo", "-h", "-o", "%t", check=False) in ("idle", "mix", "alloc")
        )

    def kill_node_daemon(self) -> None:
        """SIGKILL the node's daemon; its jobs run on."""
        self._daemons["slurmd"].kill()
        self._daemons.pop("slurmd").wait()

    def crash_node(self) -> None:
        """SIGKILL the node's daemon and everything that runs on the node, as in a power cut."""
        self.kill_node_daemon()
        _kill_all(self.jobs_processes)

    def ask(self, *command: str, check: bool = True) -> str:
        """The stripped output of a SLURM command."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=check
        )
        return done.stdout.strip()

    def processes(self) -> dict[int, str]:
        """Command lines of all processes that were started with this SLURM's configuration, by process id."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            # A process may end meanwhile, and another user's cannot be read.
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if line and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = line
        return found

    def jobs_processes(self) -> dict[int, str]:
        """The processes that run for jobs of the node: SLURM's step daemons and their children."""
        return {pid: line for pid, line in self.processes().items() if _is_of_a_job(pid)}

    def stop(self) -> None:
        """Cancel all jobs, stop the daemons, kill all processes left, and remove the directory."""
        if "slurmctld" in self._daemons:
            self.ask("scancel", "--state=pending,running,suspended", "--user", getpass.getuser(), check=False)
            with contextlib.suppress(TimeoutError):
                wait_for("the jobs to end", lambda: not self.jobs_processes(), seconds=20)
        for name in reversed(_DAEMONS):
            daemon = self._daemons.pop(name, None)
            if daemon is not None:
                daemon.terminate()
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        _kill_all(self.processes)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start_munge(self) -> None:
        at = self.directory
        (at / "munge.key").write_bytes(secrets.token_bytes(128))
        (at / "munge.key").chmod(0o600)
        names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid"}
        names |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        # --force: munged refuses a directory below one that others may write to.
        options = (f"--{option}={at / name}" for option, name in names.items())
        self._start("munged", "--foreground", "--force", *options)
        wait_for("munge", (at / "munge.socket").exists)

    def _start(self, name: str, *arguments: str) -> None:
        # The daemons must not outlive this process, even if it is killed.
        command = [str(_program("setpriv")), "--pdeathsig", "KILL", str(_program(name)), *arguments]
        with (self.directory / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _is_of_a_job(pid: int) -> bool:
    """Whether a process is a slurmstepd or has one among its ancestors."""
    while pid > 1:
        try:
            # The name is in brackets, and may contain spaces and brackets.
            head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except OSError:
            return False
        if "(slurmstepd" in head:
            return True
        pid = int(tail.split()[1])
    return False


def _kill_all(processes: Callable[[], Mapping[int, str]]) -> None:
    """SIGKILL what `processes` returns until it returns nothing: they may start others meanwhile."""
    for _ in range(50):
        found = processes()
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    raise TimeoutError(f"cannot end {processes()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_configuration(directory: Path, user: str, srun: str) -> None:
    """Write slurm.conf, gres.conf and bin/ below `directory`, for daemons of `user`; srun: the installed program."""
    for folder in ("state", "spool", "bin"):
        (directory / folder).mkdir()
    conf = directory / "slurm.conf"
    text = _CONF.format(
        host=socket.gethostname().split(".")[0],
        user=user,
        directory=directory,
        controller_port=_free_port(),
        node_port=_free_port(),
        gpus=len(_GPUS),
    )
    conf.write_text(text)
    (directory / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in _GPUS))
    for name, script in (("srun", _SRUN.format(conf=conf, srun=srun)), ("sacct", _SACCT)):
        (directory / "bin" / name).write_text(script)
        (directory / "bin" / name).chmod(0o755)


def main() -> int:
    """Run the given command with its own SLURM; returns its exit status."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    with LocalSlurm() as slurm:
        return subprocess.call(sys.argv[1:], env={**os.environ, **slurm.environment})


if __name__ == "__main__":
    raise SystemExit(main())
