"""Whether a client has what it asks for. Must not know what that is. Source: RFC 9110, 13.1.2."""


def is_known(header: str, tag: str) -> bool:
    """Whether an If-None-Match names the tag."""
    known = [each.strip().removeprefix("W/") for each in header.split(",")]
    return tag in known or known == ["*"]
