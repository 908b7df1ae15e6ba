"""What a process inside a host finds in its environment, so that scripts written for a launcher run unchanged."""

from __future__ import annotations

from thinwire.lab.state import LabRecord

INTERFACE = "eth0"
MASTER_PORT = 29500

MEANINGS = {
    "RANK": "the host's number; the rank, if there is one process a host",
    "WORLD_SIZE": "the number of hosts",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "the address of the first host",
    "MASTER_PORT": "a port on it",
    "PET_NNODES": "the number of hosts, for torchrun",
    "PET_NODE_RANK": "the host's number, for torchrun",
    "PET_MASTER_ADDR": "the address of the first host, for torchrun",
    "PET_MASTER_PORT": "a port on it, for torchrun",
    "GLOO_SOCKET_IFNAME": "the host's interface, for Gloo",
    "TP_SOCKET_IFNAME": "the same, for TensorPipe",
    "THINWIRE_INTERFACE": "the same, for thinwire",
    "THINWIRE_LAB": "the name of the lab",
    "THINWIRE_LAB_HOST": "the name of the host",
    "THINWIRE_LAB_ADDRESS": "the address of the host",
}


def environment(record: LabRecord, host: str) -> dict[str, str]:
    """The variables of ``MEANINGS`` for a process in ``host``."""
    names = [known.name for known in record.hosts]
    number, num_hosts = str(names.index(host)), str(len(names))
    master_address, master_port = record.hosts[0].address, str(MASTER_PORT)
    return {
        "RANK": number,
        "WORLD_SIZE": num_hosts,
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": master_address,
        "MASTER_PORT": master_port,
        "PET_NNODES": num_hosts,
        "PET_NODE_RANK": number,
        "PET_MASTER_ADDR": master_address,
        "PET_MASTER_PORT": master_port,
        "GLOO_SOCKET_IFNAME": INTERFACE,
        "TP_SOCKET_IFNAME": INTERFACE,
        "THINWIRE_INTERFACE": INTERFACE,
        "THINWIRE_LAB": record.name,
        "THINWIRE_LAB_HOST": host,
        "THINWIRE_LAB_ADDRESS": record.host(host).address,
    }
