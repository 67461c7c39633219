"""A memory card that can lose power.

Serves QEMU by the NBD protocol. As in the cache of a real card, written data is persistent only after a
flush. After a power cut, each write since the last flush is kept, lost or kept partially, at random.
Killing QEMU alone would not test this, because the host keeps all writes.
"""

import os
import random
import socket
import struct
import threading
import time

SECTOR = 512

_OPTION = struct.Struct(">QII")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY_MAGIC = 0x67446698
_REQUEST_MAGIC = 0x25609513
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_FUA = 1
# HAS_FLAGS, SEND_FLUSH, SEND_FUA
_FLAGS = 1 | 4 | 8


class Card:
    """The card image at `path`, served at the Unix socket `address`.

    `write_speed` is in bytes per second. `flush_delay()` returns how long the card is busy with a flush, in seconds;
    meanwhile it answers no other request.
    `on_write(offset, length)` is called before every write. If it returns true, the power is cut: `cut` is
    set, and no further requests are answered.
    """

    def __init__(self, path, address, write_speed=None):
        self.path = path
        self.address = str(address)
        self.write_speed = write_speed
        self.flush_delay = None
        self.on_write = None
        self.cut = threading.Event()
        self.writes = 0
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR)
        self._size = os.fstat(self._file).st_size
        # Since the last flush: the previous content of each sector, and the writes in order.
        self._kept = {}
        self._pending = []
        self._listener = socket.socket(socket.AF_UNIX)
        if os.path.exists(self.address):
            os.unlink(self.address)
        self._listener.bind(self.address)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def power_off(self, rng=None, share=None):
        """Cuts the power. With `rng`, unflushed writes are lost: each is kept with the probability `share`,
        or with a random one. Returns a report."""
        with self._lock:
            self.cut.set()
            self._listener.close()
            report = "no unflushed writes"
            if rng is not None and self._pending:
                report = self._lose(rng, share)
            os.fsync(self._file)
            os.close(self._file)
        return report

    def _lose(self, rng, share):
        for sector, data in self._kept.items():
            os.pwrite(self._file, data, sector * SECTOR)
        # From no writes kept to all writes kept.
        share = rng.choice([0, 1, rng.random()]) if share is None else share
        kept = torn = 0
        for offset, data in self._pending:
            if rng.random() < share:
                if len(data) > SECTOR and rng.random() < 0.2:
                    data = data[: rng.randrange(len(data) // SECTOR) * SECTOR]
                    torn += 1
                os.pwrite(self._file, data, offset)
                kept += 1
        return f"{kept} of {len(self._pending)} unflushed writes kept, {torn} of them partially"

    def _accept(self):
        while not self.cut.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            with connection:
                if self._negotiate(connection):
                    while self._answer(connection):
                        pass
        except (ConnectionError, EOFError, OSError):
            pass

    def _negotiate(self, connection):
        connection.sendall(b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 1 | 2))
        receive(connection, 4)
        while True:
            _, option, length = _OPTION.unpack(receive(connection, _OPTION.size))
            receive(connection, length)
            if option == 1:  # EXPORT_NAME
                connection.sendall(struct.pack(">QH", self._size, _FLAGS))
                return True
            if option in (6, 7):  # INFO, GO
                info = struct.pack(">HQH", 0, self._size, _FLAGS)
                self._option_reply(connection, option, 3, info)
                self._option_reply(connection, option, 1, b"")
                if option == 7:
                    return True
            elif option == 2:  # ABORT
                self._option_reply(connection, option, 1, b"")
                return False
            else:
                self._option_reply(connection, option, 0x80000001, b"")

    @staticmethod
    def _option_reply(connection, option, kind, data):
        connection.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

    def _answer(self, connection):
        magic, flags, kind, handle, offset, length = _REQUEST.unpack(receive(connection, _REQUEST.size))
        assert magic == _REQUEST_MAGIC
        data = receive(connection, length) if kind == _WRITE else b""
        if kind == _DISCONNECT:
            return False
        if kind == _WRITE and self.write_speed:
            time.sleep(length / self.write_speed)
        if kind == _FLUSH and self.flush_delay:
            time.sleep(self.flush_delay())
        with self._lock:
            if self.cut.is_set():
                return False
            answer = b""
            if kind == _READ:
                answer = os.pread(self._file, length, offset)
            elif kind == _WRITE:
                self.writes += 1
                if self.on_write and self.on_write(offset, length):
                    # This write is pending as well and may be kept.
                    self._write(offset, data)
                    self.cut.set()
                    return False
                self._write(offset, data)
            if kind == _FLUSH or flags & _FUA:
                self._kept.clear()
                self._pending.clear()
        connection.sendall(struct.pack(">IIQ", _REPLY_MAGIC, 0, handle) + answer)
        return True

    def _write(self, offset, data):
        for sector in range(offset // SECTOR, (offset + len(data)) // SECTOR):
            if sector not in self._kept:
                self._kept[sector] = os.pread(self._file, SECTOR, sector * SECTOR)
        self._pending.append((offset, data))
        os.pwrite(self._file, data, offset)


def receive(connection, length):
    """Receives exactly `length` bytes."""
    parts = []
    while length:
        part = connection.recv(min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def seeded_rng(seed):
    """A random number generator with a fixed seed."""
    return random.Random(seed)
