"""Machines of a network, as Linux makes them on one: a namespace and an address for each."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import pytest

from tests.leftovers import Leftovers

# The plugs by name: those of a removed namespace go some time later.
_CLEAR = """
for port in $(ls "/sys/class/net/$1/brif"); do ip link del "$port"; done
ip netns list | cut -d ' ' -f 1 | grep "^$1-" | while read -r name; do ip netns del "$name"; done
ip link del "$1"
"""


class Host:
    """One machine: a command behind its `prefix` has its address and keeps its pid."""

    def __init__(self, name: str, namespace: str, port: str, address: str) -> None:
        self.name = name
        self.namespace = namespace
        self.port = port  # where it is plugged in
        self.address = address
        self.prefix = ["ip", "netns", "exec", namespace]

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """A command to its end, on this machine."""
        return subprocess.run(
            [*self.prefix, *command], capture_output=True, text=True, check=False, timeout=60
        )


class Network:
    """A switch with machines; this machine is at the switch too, as `address`."""

    def __init__(self) -> None:
        # At most 15 characters for the name of an interface; at random, as tests run side by side.
        self._bridge = f"jv{secrets.token_hex(3)}"
        self._hosts: dict[str, Host] = {}
        self._leftovers = Leftovers(_CLEAR, self._bridge)
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            self._net = _free_net()
            self.address = f"{self._net}.1"
            _ip("address", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
        except BaseException:
            self.close()
            raise

    def host(self, name: str) -> Host:
        """The machine of this name, plugged in at its first mention."""
        if name not in self._hosts:
            self._hosts[name] = self._plug_in(name, len(self._hosts) + 2)
        return self._hosts[name]

    def cut(self, host: Host) -> None:
        """Pull its plug: nothing it sends arrives, nothing arrives there, and nobody is told."""
        _ip("link", "set", host.port, "down")

    def mend(self, host: Host) -> None:
        """Put its plug back."""
        _ip("link", "set", host.port, "up")

    def close(self) -> None:
        """Take the network away; who still runs on its machines is on his own."""
        self._leftovers.clear()

    def _plug_in(self, name: str, number: int) -> Host:
        namespace, port = f"{self._bridge}-{name}", f"{self._bridge}p{number}"
        host = Host(name, namespace, port, f"{self._net}.{number}")
        _ip("netns", "add", namespace)
        _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", port, "master", self._bridge, "up")
        for words in (
            ("address", "add", f"{host.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", namespace, *words)
        return host

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def network_or_skip() -> Network:
    """A network, where this machine lets us make one; else a skip with the reason."""
    if shutil.which("ip") is None:
        pytest.skip("there is no iproute2 here")
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    try:
        network = Network()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network can be made here: {error.stderr.strip()}")
    probe = network.host("probe").run(["true"])
    if probe.returncode:
        network.close()
        pytest.skip(f"no namespace can be entered here: {probe.stderr.strip()}")
    return network


def _free_net() -> str:
    """The first three numbers of a net that no route of this machine leads to."""
    taken = _ip("-4", "route", "show", "table", "all")
    while True:
        net = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        if f"{net}." not in taken:
            return net


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
