"""A network for Bochs machines: a hub that speaks version 3 of VDE's protocol over unix sockets in the run's private folder.

A machine asks on a control connection, naming its own datagram socket, and is told the hub's socket for it. A frame from one goes to
all others. A machine's emulated card takes a frame a millisecond and its socket holds ten, so frames wait here, in order. One thread,
which ends with the process.
"""

import selectors
import socket
import struct
import threading
from collections import deque
from pathlib import Path

MAGIC, VERSION = 0xFEEDFACE, 3
REQUEST = struct.Struct("=IIIH108s")  # magic, version, what, a sockaddr_un
ADDRESS = struct.Struct("=H108s")
MOST_WAITING = 1000  # frames for one machine


class Hub:
    def __init__(self, folder: Path) -> None:
        self.control = folder / "hub"
        self._folder = folder
        self._ports: dict[socket.socket, deque[bytes]] = {}  # our socket for a machine, and what waits for it
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.control))
        self._listening.listen(16)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connections = []  # a machine takes the end of its connection for the end of the network
        while True:
            for key, ready in self._selector.select():
                if key.fileobj is self._listening:
                    connections.append(self._listening.accept()[0])
                    self._join(connections[-1])
                    continue
                if ready & selectors.EVENT_WRITE:
                    self._hand_over(key.fileobj)
                if ready & selectors.EVENT_READ:
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
        port.connect(REQUEST.unpack(request)[4])
        self._ports[port] = deque()
        self._selector.register(port, selectors.EVENT_READ)
        connection.sendall(ADDRESS.pack(socket.AF_UNIX, path.encode()))

    def _pass_on(self, port: socket.socket) -> None:
        try:
            frame = port.recv(1 << 16)
        except OSError:  # a machine that has ended
            return
        for other, waiting in self._ports.items():
            if other is port or len(waiting) >= MOST_WAITING:  # a network may lose frames
                continue
            waiting.append(frame)
            if len(waiting) == 1:
                self._hand_over(other)

    def _hand_over(self, port: socket.socket) -> None:
        """What the machine's socket takes; the rest when it can take more."""
        waiting = self._ports[port]
        try:
            while waiting:
                port.send(waiting[0])
                waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:  # a machine that has ended
            waiting.clear()
        self._selector.modify(port, selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting else 0))
