"""The files of a SLURM of two nodes that share one machine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopback import Cluster

NODES = ("n1", "n2")
NAME = "loopback"
# Its jobs take the nodes of others.
URGENT = "urgent"


def slurm_conf(cluster: "Cluster") -> str:
    accounting = "AccountingStorageType=accounting_storage/none"
    if cluster.accounting:
        accounting = (
            "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePort={cluster.ports['slurmdbd']}\nAccountingStoragePass={cluster.munge}\n"
            "AccountingStorageTRES=gres/gpu\nAccountingStorageEnforce=associations"
        )
    gpus = {NODES[1]: " Gres=gpu:2"}
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={cluster.host} NodeAddr=127.0.0.1 Port={cluster.ports[node]} "
        f"CPUs=4 RealMemory=16000{gpus.get(node, '')}"
        for node in NODES
    )
    return f"""\
ClusterName={NAME}
SlurmctldHost={cluster.host}(127.0.0.1)
SlurmctldPort={cluster.ports["slurmctld"]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthInfo=socket={cluster.munge}
StateSaveLocation={cluster.state}
SlurmdSpoolDir={cluster.home}/spool-%n
SlurmctldPidFile={cluster.home}/run/slurmctld.pid
SlurmdPidFile={cluster.home}/run/slurmd-%n.pid
SlurmctldLogFile={cluster.home}/log/slurmctld.log
SlurmdLogFile={cluster.home}/log/slurmd-%n.log
# Neither cgroups nor systemd are needed: processes are found by their parents, memory is read once a second.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
# Nodes may claim more than the machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode=200
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=15
KillWait=3
SchedulerParameters=bf_interval=2,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SlurmctldParameters=preempt_send_user_signal
{accounting}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=1 GraceTime=60
PartitionName={URGENT} Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=2
"""


def slurmdbd_conf(cluster: "Cluster") -> str:
    return f"""\
AuthInfo=socket={cluster.munge}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={cluster.ports["slurmdbd"]}
CommunicationParameters=NoInAddrAny
SlurmUser=root
LogFile={cluster.home}/log/slurmdbd.log
PidFile={cluster.home}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={cluster.ports["mariadbd"]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""
