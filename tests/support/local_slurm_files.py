"""The files of a SLURM on this machine: configuration, make-believe GPUs, and two programs that jobs need."""

from __future__ import annotations

import socket
from pathlib import Path

# The node claims more than the machine has, as the profile asks for a GPU server's memory and cores; the number of
# GPUs limits the jobs that run at a time. Any two character devices do as GPUs.
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
# Snakemake's plugin takes all but a few SLURM variables from the environment of a job's srun, SLURM_CONF too, and srun
# then looks below /etc.
_SRUN = """\
#!/bin/sh
SLURM_CONF={conf} exec {srun} "$@"
"""
# The plugin falls back to sacct where the controller is slow to answer, and forgets its jobs where sacct fails, as it
# does without an accounting database. It asks for the states of the jobs of one name, its last argument.
_SACCT = """\
#!/bin/sh
for name; do :; done
exec squeue --noheader --states=all --format="%i|%T" --name "$name"
"""


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
