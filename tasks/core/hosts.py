"""Host names of requests, against DNS rebinding: a foreign page that resolves to this machine sends its own name."""

from __future__ import annotations

import ipaddress
import re

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/?#\\\s]+?)\.?(:\d{0,5})?", re.ASCII)


def host_name(host: str) -> str:
    """The name or address of a Host header, lower-case, without port and brackets; empty when invalid."""
    match = HOST.fullmatch(host.lower())
    return match[1].strip("[]") if match else ""


def parse_host_names(text: str) -> frozenset[str]:
    """The host names of a setting, separated by blanks or commas."""
    return frozenset(host_name(name) for name in re.split(r"[\s,]+", text)) - {""}


def is_loopback(address: str) -> bool:
    """Whether this is a loopback address; false for a name."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
