"""The only other host in the network of the machine under test: a DHCP server and port scanner.

Exchanges Ethernet frames with QEMU (`-netdev stream`), because QEMU's user network reaches only forwarded
ports. A port scan requires one packet in each direction per port.
"""

import socket
import struct
import threading
import time

OWN, OWN_MAC = bytes([10, 9, 0, 1]), bytes.fromhex("525400aabbcc")
THEIRS = bytes([10, 9, 0, 2])
_BROADCAST = b"\xff" * 6
_IP, _ARP = 0x0800, 0x0806
_ICMP, _TCP, _UDP = 1, 6, 17
_SYN, _RST, _ACK = 2, 4, 16


class Neighbor:
    def __init__(self, folder):
        self.address = str(folder / "network.socket")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen()
        self._connection = None
        self._lock = threading.Lock()
        self.their_mac = None
        # TCP ports that accepted and refused a connection; UDP ports that are closed.
        self.tcp_open, self.tcp_closed, self.udp_closed = set(), set(), set()
        # Received mDNS responses.
        self.names = []
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self):
        self._listener.close()

    def _listen(self):
        try:
            self._connection, _ = self._listener.accept()
            stream = self._connection.makefile("rb")
            while header := stream.read(4):
                self._receive(stream.read(struct.unpack(">I", header)[0]))
        except OSError:
            pass

    def _send(self, kind, data, mac=None):
        frame = (mac or self.their_mac or _BROADCAST) + OWN_MAC + struct.pack(">H", kind) + data
        with self._lock:
            self._connection.sendall(struct.pack(">I", len(frame)) + frame)

    def _send_ip(self, protocol, data, source=OWN, to=THEIRS, mac=None):
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 0, 0, 64, protocol, 0, source, to)
        self._send(_IP, head[:10] + struct.pack(">H", checksum(head)) + head[12:] + data, mac)

    def _send_udp(self, port, data, from_port, source=OWN, to=THEIRS, mac=None):
        # A checksum of 0 means none.
        self._send_ip(_UDP, struct.pack(">HHHH", from_port, port, 8 + len(data), 0) + data, source, to, mac)

    def _receive(self, frame):
        kind, data = struct.unpack(">H", frame[12:14])[0], frame[14:]
        if kind == _ARP and data[6:8] == b"\0\1" and data[24:28] == OWN:
            self._send(_ARP, data[:7] + b"\2" + OWN_MAC + OWN + data[8:18], frame[6:12])
        if kind != _IP:
            return
        protocol, inner = data[9], data[(data[0] & 15) * 4 :]
        if protocol == _UDP:
            from_port, port = struct.unpack(">HH", inner[:4])
            if port == 67:
                self._lease(inner[8:], frame[6:12])
            elif from_port == 5353:
                self.names.append(inner[8:])
        elif protocol == _TCP:
            from_port, port, _, number = struct.unpack(">HHII", inner[:12])
            if inner[13] & _SYN and inner[13] & _ACK:
                self.tcp_open.add(from_port)
                self._send_tcp(from_port, _RST, number=number, from_port=port)
            elif inner[13] & _RST:
                self.tcp_closed.add(from_port)
        elif protocol == _ICMP and inner[:2] == b"\3\3":
            # The ICMP header precedes the packet that it refers to.
            self.udp_closed.add(struct.unpack(">H", inner[8 + 20 + 2 :][:2])[0])

    def _lease(self, question, mac):
        """DHCP server (RFC 2131) with a single address for every client."""
        options, place = {}, 240
        while place < len(question) and question[place] != 255:
            length = question[place + 1]
            options[question[place]] = question[place + 2 : place + 2 + length]
            place += 2 + length
        kind = {1: 2, 3: 5}.get(options.get(53, b"\0")[0])
        if kind is None:
            return
        self.their_mac = mac
        answer = bytearray(question[:236])
        answer[0], answer[16:20], answer[20:24] = 2, THEIRS, OWN
        values = {53: bytes([kind]), 54: OWN, 51: struct.pack(">I", 86400), 1: b"\xff\xff\xff\0", 3: OWN, 6: OWN}
        text = b"".join(bytes([number, len(value)]) + value for number, value in values.items())
        self._send_udp(68, bytes(answer) + b"\x63\x82\x53\x63" + text + b"\xff", 67, mac=mac)

    def _send_tcp(self, port, flags, number=0, from_port=40000):
        head = struct.pack(">HHIIBBHHH", from_port, port, number, 0, 5 << 4, flags, 1024, 0, 0)
        pseudo = OWN + THEIRS + struct.pack(">BBH", 0, _TCP, len(head))
        self._send_ip(_TCP, head[:16] + struct.pack(">H", checksum(pseudo + head)) + head[18:])

    def scan_tcp(self, ports, seconds=120):
        """Sends SYN to each port until it responds. Returns the ports that accept connections."""
        end = time.monotonic() + seconds
        left = set(ports)
        while left and time.monotonic() < end:
            for count, port in enumerate(sorted(left)):
                self._send_tcp(port, _SYN, number=1)
                # The network card has space for this number of packets.
                if count % 128 == 127:
                    time.sleep(0.01)
            time.sleep(1)
            left -= self.tcp_open | self.tcp_closed
        assert not left, f"{len(left)} ports do not respond, such as {sorted(left)[:10]}"
        return self.tcp_open & set(ports)

    def scan_udp(self, ports, seconds=60):
        """Returns the ports that the kernel does not report as closed."""
        end = time.monotonic() + seconds
        left = set(ports)
        while left and time.monotonic() < end:
            for port in sorted(left):
                # The kernel limits these reports to one per second per address, and 1000 per second in total.
                source = bytes([10, 10, port >> 8, port & 255])
                self._send_udp(port, b"who is there?", 40001, source)
                time.sleep(0.002)
            time.sleep(1)
            before, left = left, left - self.udp_closed
            if left == before:
                break
        return left

    def ask_name(self, name):
        """Sends a query for a host name to all hosts (mDNS, RFC 6762)."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        question = struct.pack(">HHHHHH", 0, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
        mac = bytes.fromhex("01005e0000fb")
        self._send_udp(5353, question, 5353, to=bytes([224, 0, 0, 251]), mac=mac)


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
