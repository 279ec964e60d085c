"""Messages between the scorer and its replicas: a JSON header and bytes, over a local socket.

A message consists of the lengths of its header and of its bytes (two little-endian uint32), the header, and the bytes.
Nothing is pickled.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

Header = dict[str, Any]
Message = tuple[Header, memoryview]
_LENGTHS = struct.Struct("<II")


def pack(header: Header, content: Sequence[bytes | memoryview] = ()) -> bytes:
    """Return a message as it is sent over the socket.

    Args:
        header: JSON-able mapping.
        content: pieces of the message's bytes, in order.

    Returns:
        The whole message.

    Example:
        >>> pack({"batch": 1}, [b"abc"])[8:]
        b'{"batch":1}abc'
    """
    head = orjson.dumps(header)
    size = sum(len(part) for part in content)
    return b"".join([_LENGTHS.pack(len(head), size), head, *content])


class Inbox:
    """Assembles messages from the pieces in which they arrive.

    Example:
        >>> inbox, message = Inbox(), pack({"batch": 1}, [b"abc"])
        >>> list(inbox.take(message[:10]))
        []
        >>> [(header, bytes(content)) for header, content in inbox.take(message[10:])]
        [({'batch': 1}, b'abc')]
    """

    def __init__(self) -> None:
        self._content = bytearray()

    def take(self, arrived: bytes) -> Iterator[Message]:
        """Add a piece, and yield the messages that are complete now.

        Args:
            arrived: bytes as they came from the socket.

        Yields:
            The header and the bytes of each message.
        """
        self._content += arrived
        while (end := self._end()) is not None:
            whole = memoryview(bytes(self._content[:end]))
            del self._content[:end]
            head = _LENGTHS.size + _LENGTHS.unpack_from(whole)[0]
            yield orjson.loads(whole[_LENGTHS.size : head]), whole[head:]

    def _end(self) -> int | None:
        if len(self._content) < _LENGTHS.size:
            return None
        end = _LENGTHS.size + sum(_LENGTHS.unpack_from(self._content))
        return end if len(self._content) >= end else None


def receive(connection: socket.socket) -> Message | None:
    """Wait for one message.

    Args:
        connection: blocking socket; its timeout applies to each read.

    Returns:
        The header and the bytes, or None when the other side is gone.
    """
    lengths = _exactly(connection, _LENGTHS.size)
    if lengths is None:
        return None
    head, size = _LENGTHS.unpack(lengths)
    content = _exactly(connection, head + size)
    return None if content is None else (orjson.loads(content[:head]), content[head:])


def _exactly(connection: socket.socket, size: int) -> memoryview | None:
    content = memoryview(bytearray(size))
    done = 0
    while done < size:
        try:
            number = connection.recv_into(content[done:])
        except ConnectionError:
            return None
        if not number:
            return None
        done += number
    return content


def send_with(connection: socket.socket, header: Header, other: socket.socket) -> None:
    """Send a message without bytes, together with a socket.

    Args:
        connection: Unix domain socket that it is sent over.
        header: JSON-able mapping.
        other: socket that is sent along; the receiver gets a descriptor of its own for it.
    """
    message = pack(header)
    sent = socket.send_fds(connection, [message], [other.fileno()])
    connection.sendall(message[sent:])


def receive_with(connection: socket.socket) -> tuple[Header, socket.socket | None] | None:
    """Wait for one message of :func:`send_with`.

    Args:
        connection: Unix domain socket, blocking.

    Returns:
        The header, and the socket that came with it or None; None when the other side is gone.
    """
    try:
        lengths, descriptors, _, _ = socket.recv_fds(connection, _LENGTHS.size, 1)
    except ConnectionError:
        return None
    other = socket.socket(fileno=descriptors[0]) if descriptors else None
    content = _exactly(connection, sum(_LENGTHS.unpack(lengths))) if len(lengths) == _LENGTHS.size else None
    if content is None:
        if other is not None:
            other.close()
        return None
    return orjson.loads(content), other
