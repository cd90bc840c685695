"""A network for Bochs machines: a hub that speaks version 3 of VDE's protocol over unix sockets in the run's private folder.

A machine asks on a control connection, naming its own datagram socket, and is told the hub's socket for it. A frame from one goes to
all others. One thread, which ends with the process.
"""

import selectors
import socket
import struct
import threading
from pathlib import Path

MAGIC, VERSION = 0xFEEDFACE, 3
REQUEST = struct.Struct("=IIIH108s")  # magic, version, what, a sockaddr_un
ADDRESS = struct.Struct("=H108s")


class Hub:
    def __init__(self, folder: Path) -> None:
        self.control = folder / "hub"
        self._folder = folder
        self._ports: dict[socket.socket, bytes] = {}  # our socket for a machine, and the machine's own address
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.control))
        self._listening.listen(16)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connections = []  # a machine takes the end of its connection for the end of the network
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listening:
                    connections.append(self._listening.accept()[0])
                    self._join(connections[-1])
                else:
                    self._pass_on(key.fileobj)

    def _join(self, connection: socket.socket) -> None:
        request = connection.recv(REQUEST.size)
        if len(request) < REQUEST.size or REQUEST.unpack(request)[:2] != (MAGIC, VERSION):
            connection.close()
            return
        path = str(self._folder / f"hub-{len(self._ports)}")
        port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        port.bind(path)
        port.setblocking(False)
        self._ports[port] = REQUEST.unpack(request)[4]
        self._selector.register(port, selectors.EVENT_READ)
        connection.sendall(ADDRESS.pack(socket.AF_UNIX, path.encode()))

    def _pass_on(self, port: socket.socket) -> None:
        frame = port.recv(1 << 16)
        for other in self._ports:
            if other is not port:
                try:
                    other.sendto(frame, self._ports[other])
                except OSError:
                    pass  # a machine that has ended, or is slow: a network may lose frames
