# The part of an address after the question mark.

PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~"


def escape(text, space="+"):
    result = ""
    for byte in text.encode("utf-8"):
        char = chr(byte)
        if char in PLAIN:
            result += char
        elif char == " ":
            result += space
        else:
            result += "%%%02X" % byte
    return result


def unescape(text):
    data = bytearray()
    rest = text.replace("+", " ").encode("utf-8")
    while rest:
        if rest[:1] == b"%" and len(rest) >= 3:
            data.append(int(rest[1:3], 16))
            rest = rest[3:]
        else:
            data.append(rest[0])
            rest = rest[1:]
    return data.decode("utf-8")


def parse_query(query, keep_blank=False):
    pairs = []
    for part in query.lstrip("?").split("&"):
        name, _, value = part.partition("=")
        if not name:
            continue
        if value or keep_blank:
            pairs.append((unescape(name), unescape(value)))
    return pairs


def build_query(pairs):
    parts = []
    for name, value in pairs:
        if value is None:
            continue
        parts.append(escape(name) + "=" + escape(str(value)))
    return "&".join(parts)


def first_value(pairs, name, default=None):
    for key, value in pairs:
        if key == name:
            return value
    return default


def replace_value(pairs, name, value):
    kept = [pair for pair in pairs if pair[0] != name]
    if value is not None:
        kept.append((name, value))
    return kept


def split_address(address):
    address, _, fragment = address.partition("#")
    path, mark, query = address.partition("?")
    if not mark:
        return path, [], fragment
    return path, parse_query(query), fragment


def same_query(left, right):
    if len(left) != len(right):
        return False
    return sorted(left) == sorted(right)
