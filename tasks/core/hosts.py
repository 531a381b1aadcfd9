"""Host names of requests: a page whose name was given this machine's address sends its own name, and so is refused."""

from __future__ import annotations

import ipaddress
import re

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/?#\\\s]+?)\.?(:\d{0,5})?", re.ASCII)


def host_name(host: str) -> str:
    """The name or address in a Host header, lower-case, without port and brackets; empty if it is none."""
    match = HOST.fullmatch(host.lower())
    return match[1].strip("[]") if match else ""


def parse_host_names(text: str) -> frozenset[str]:
    """The names in a setting, with blanks or commas between."""
    return frozenset(host_name(name) for name in re.split(r"[\s,]+", text)) - {""}


def is_loopback(address: str) -> bool:
    """Whether this is an address of the loopback; a name is none."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
