"""A real SLURM on this machine, to try the cluster profile without a cluster:

    python -m tests.support.local_slurm snakemake --workflow-profile slurm --slurm-status-command squeue

starts munge, the controller and one node's daemon on loopback, runs the command with them and stops them. Needs
Debian's `slurm-wlm` and `munge`; all state is in a temporary directory, nothing of the system's own set-up is used.
Tried with SLURM 22.05 as root. Control groups are not used, so memory and GPUs are counted and not enforced.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from tests.support.local_slurm_files import write_configuration

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "scontrol",
    "sinfo",
    "setpriv",
)
"""What has to be installed."""


def missing_programs() -> list[str]:
    """Those of PROGRAMS that are not installed; SLURM can be started where there are none."""
    return [name for name in PROGRAMS if _program(name) is None]


def _program(name: str) -> str | None:
    # Daemons lie in sbin, which a user's PATH may lack.
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 300.0, poll: float = 0.2) -> None:
    """Return when `condition()` holds. Raises TimeoutError, naming `what`, where it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(poll)


class LocalSlurm:
    """munged, slurmctld and slurmd in a temporary directory; use as a context manager.

    environment: what a command needs to talk to this SLURM and to no other.
    """

    def __init__(self) -> None:
        absent = missing_programs()
        if absent:
            raise FileNotFoundError(f"not installed: {', '.join(absent)} (Debian: slurm-wlm and munge)")
        # Short, as a socket's path has at most 107 characters.
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

        Jobs that run are taken over. Those that are gone the controller queues again where they were submitted
        with --requeue, and starts two minutes later; else it gives them up (NODE_FAIL).
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
        """SIGKILL the node's daemon and everything that runs on the node, as a power cut does."""
        self.kill_node_daemon()
        _kill_all(self.jobs_processes)

    def ask(self, *command: str, check: bool = True) -> str:
        """What a SLURM command prints, stripped."""
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
            # A process may end while it is looked at, and one of another user cannot be looked at.
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if line and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = line
        return found

    def jobs_processes(self) -> dict[int, str]:
        """Of those, what runs for jobs of the node: SLURM's step daemons and their children."""
        return {pid: line for pid, line in self.processes().items() if _is_of_a_job(pid)}

    def stop(self) -> None:
        """Cancel all jobs, stop the daemons, kill what is left of either, and remove the directory."""
        if "slurmctld" in self._daemons:
            self.ask("scancel", "--state=pending,running,suspended", "--user", getpass.getuser(), check=False)
            with contextlib.suppress(TimeoutError):
                wait_for("the jobs to end", lambda: not self.jobs_processes(), seconds=20)
        for name in ("slurmd", "slurmctld", "munged"):
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
        # By force: it would rather not lie below a directory that others may write to.
        options = (f"--{option}={at / name}" for option, name in names.items())
        self._start("munged", "--foreground", "--force", *options)
        wait_for("munge", (at / "munge.socket").exists)

    def _start(self, name: str, *arguments: str) -> None:
        # Where this process is killed, its daemons must not stay.
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
            # Its name is in brackets, and may hold spaces and brackets itself.
            head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except OSError:
            return False
        if "(slurmstepd" in head:
            return True
        pid = int(tail.split()[1])
    return False


def _kill_all(processes: Callable[[], Mapping[int, str]]) -> None:
    """SIGKILL what `processes` names until it names nothing, as they may have started others meanwhile."""
    for _ in range(50):
        found = processes()
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    raise TimeoutError(f"cannot end {processes()}")


def main() -> int:
    """Run the command line's command with a SLURM of its own; returns its exit status."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    with LocalSlurm() as slurm:
        return subprocess.call(sys.argv[1:], env={**os.environ, **slurm.environment})


if __name__ == "__main__":
    raise SystemExit(main())
