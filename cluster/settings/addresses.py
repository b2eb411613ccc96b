"""What an address is, and the error of every setting that is none of what it should be."""

import ipaddress


class SettingsError(ValueError):
    """One line for the operator: which setting, which value, how to fix it."""


def parse_address(text: str, key: str) -> tuple[str, int]:
    """Splits `host:port` or `[ipv6]:port`. Raises SettingsError that names `key`."""
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not separator or not host or (":" in host and not bracketed):
        raise SettingsError(
            f"{key} = {text!r} is not an address: write host:port, for example 127.0.0.1:7001"
        )
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise SettingsError(f"{key} = {text!r}: the port must be a number from 1 to 65535")
    return (host[1:-1] if bracketed else host), int(port)


def is_loopback(address: str) -> bool:
    """Whether `host:port` can only be reached from this machine."""
    host, _ = parse_address(address, "address")
    if host == "localhost":
        return True  # what it really means here is checked when the port is taken
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name: nobody knows what it will mean tomorrow
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
