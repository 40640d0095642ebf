"""Writes every frame that passes one network interface to a file, until it is ended: `sniffer.py INTERFACE FILE`.

It runs in the node's network (nsenter), so it imports nothing but the standard library. It says `ready` once it
listens.
"""

import socket
import sys

_EVERY_PROTOCOL = 0x0003  # ETH_P_ALL, linux/if_ether.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; the module has no name for it


def main() -> None:
    interface, path = sys.argv[1:]
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
    # Root may ask for more than the machine's limit: nothing is lost while this process waits for a processor.
    tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 * 1024 * 1024)
    tap.bind((interface, 0))
    with open(path, "ab", buffering=0) as file:  # noqa: PTH123 - unbuffered: what was seen is there when it is killed
        print("ready", flush=True)
        while True:
            file.write(tap.recv(262144))


if __name__ == "__main__":
    main()
